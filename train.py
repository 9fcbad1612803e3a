"""Train on weighted examples: `deepspeed train.py --config X`, or `python train.py --config X` on one process.

Reads dataset/, weights/ and (DPO, KTO) reference/ of the run; writes train/<name>/ with config.yaml,
metrics.jsonl, checkpoint/ and final/, a Hugging Face folder. Started again after a crash, it goes on.

The loss of a step is (1/B) sum_i w_i L_i over the B examples of one optimizer step, however they are shared
out over ranks, micro-batches and packed rows.
"""

import argparse
import math
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from east import artifacts, batches, columns, command, engine, metrics, models, objective, reference
from east.config import Config, to_yaml, zero_of
from east.logprobs import CompletionLogprobs

KIND = "model"
SHARED_OUT = {  # settings that say how a run is computed, not what: they may change on resume
    "micro_batch", "micro_tokens", "deepspeed", "gradient_checkpointing", "compile", "head_chunk", "checkpoint_every",
    "max_steps", "tensorboard", "wandb",
}  # fmt: skip


def train(config: Config) -> None:
    t, folder = config.train, config.folder_of("train")
    start = models.resolve(*config.starting_model)
    tokenizer = models.load_tokenizer(start)
    model_digest = artifacts.model_digest(start)
    data = columns.load(config, start, tokenizer, model_digest)
    rank, ranks, device = engine.start()
    ours = identity(config, model_digest, ranks)
    if claim(config, ours, data, rank):
        return
    model = build(config, start, device, ranks)
    steps = batches.total_steps(len(data.kept), t.batch_size, t.epochs)
    last = min(steps, t.max_steps or steps)
    if data.reference is not None:  # also on resume: until the checkpoint is loaded, this is the starting model
        reference.check(model, data.tokens, data.reference, np.arange(len(data.reference)), device, t.dtype)
    first = engine.restore(model, folder / "checkpoint")
    if first > last:
        raise ValueError(f"{folder / 'checkpoint'} stands after step {first}, train.max_steps is {last}; raise it")
    with engine.together():
        log = metrics.Log(folder, first, t.tensorboard, t.wandb, config.model_dump()) if rank == 0 else None
    stopping, stops = watch_sigterm(), 0.0

    for step in tqdm(
        objective.steps(data, config.loss, t, first, last, rank, ranks, device),
        desc="train", initial=first, total=last, disable=rank > 0,
    ):  # fmt: skip
        began = time.perf_counter()
        torch.manual_seed(((t.seed * 1_000_003 + step.number) * 4096 + rank) % 2**63)  # the same dropout on resume
        numbers = objective.step_numbers(config.loss, model, step, engine.reduce_sum)
        sums = dict.fromkeys(objective.REPORTED[config.loss.name], torch.zeros((), dtype=torch.float64, device=device))
        for micro, number in zip(step.micro_batches, numbers, strict=True):
            values, report = objective.example_losses(config.loss, model(micro.batch), micro, number)
            loss = (micro.weights * values).sum() / len(step.rows)
            model.backward(loss * ranks, scale_wrt_gas=False)  # DeepSpeed averages over ranks: this makes it a sum
            if micro.real:
                report |= {"loss": loss.detach(), "tokens": torch.tensor(len(micro.batch.input_ids))}
                sums = {name: total + report[name] for name, total in sums.items()}
        *totals, stops = engine.reduce_sum(torch.stack([*sums.values(), sums["loss"].new_tensor(stopping())])).tolist()
        summed = dict(zip(sums, totals, strict=True))
        check_step(config, data, step, summed)
        rate = batches.learning_rate(step.number, steps, t.lr, t.warmup_ratio, t.schedule)
        for group in model.optimizer.param_groups:
            group["lr"] = rate
        model.step()
        norm = float(model.get_global_grad_norm())
        if not math.isfinite(norm):  # on every rank alike, before this update can be saved
            raise ValueError(f"step {step.number}: the gradient norm is {norm}; nothing was saved. {blame(data, step)}")
        if log:
            log.write(log_row(config, step, summed, numbers, rate, norm, time.perf_counter() - began))
        done = step.number + 1
        if stops or done % t.checkpoint_every == 0 or done == last:
            engine.save(model, folder / "checkpoint", done, rank)
        if stops:
            break
    if log:
        log.close()
    if stops:
        sys.exit(143)

    state = engine.gather(model, rank)
    with engine.together():
        if rank == 0:
            with artifacts.writing(folder / "final", KIND, ours, data.inputs) as (scratch, summary):
                names = {name.removeprefix("model."): value for name, value in state.items()}
                models.export(names, start, tokenizer, scratch, t.dtype, config.model.lora)
                summary.update(steps=last, examples=len(data.kept), last_loss=summed["loss"] if first < last else None)
            print(f"model: {folder / 'final'}")


def build(config: Config, start: Path, device: torch.device, ranks: int) -> Any:
    """The DeepSpeed engine around the policy."""
    t, zero = config.train, zero_of(config.train)
    torch.manual_seed(t.seed)  # the adapter's first matrix, the same on every rank and start
    policy = models.load_policy(
        start,
        dtype=t.dtype,
        attention=config.model.attention,
        lora=config.model.lora,
        gradient_checkpointing=t.gradient_checkpointing,
    )
    collision = config.loss.local_weight == "lw_w"
    module = CompletionLogprobs(policy, t.head_chunk, with_collision=collision, compiled=t.compile).to(device)
    module.train()
    trained = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": t.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW([g for g in groups if g["params"]], lr=t.lr, betas=t.betas, eps=t.eps, fused=True)
    return engine.initialize(
        module,
        optimizer,
        zero=zero,
        bf16=t.dtype == "bfloat16",
        max_grad_norm=t.max_grad_norm,
        micro_batch=t.micro_batch,
        micro_steps=batches.micro_steps(t.batch_size, ranks, t.micro_batch),
    )


def identity(config: Config, model_digest: str, ranks: int) -> dict[str, Any]:
    """What decides the trained weights beside the data: the same on every topology, but where a setting averages
    over micro-batches."""
    split = {}
    if config.loss.depends_on_split:
        split = {"micro_batch": config.train.micro_batch, "micro_tokens": config.train.micro_tokens, "ranks": ranks}
    return split | {
        "loss": config.loss.model_dump(),
        "lora": config.model.lora and config.model.lora.model_dump(),
        "train": config.train.model_dump(exclude=SHARED_OUT),
        "max_steps": config.train.max_steps,
        "model": model_digest,
    }


def claim(config: Config, ours: dict[str, Any], data: objective.Data, rank: int) -> bool:
    """True when the model is there already. Raises ValueError when the folder holds another run's work."""
    folder, make = config.folder_of("train"), "python train.py --config X"
    if artifacts.reusable(folder / "final", KIND, ours, data.inputs, make):
        if rank == 0:
            print(f"model: {folder / 'final'} is complete and made from just this; nothing to do")
        return True
    with engine.together():
        if rank == 0:
            artifacts.claim(folder, {k: v for k, v in ours.items() if k != "max_steps"}, data.inputs, make)
            artifacts.write_text(folder / "config.yaml", to_yaml(config))
    return False


def check_step(config: Config, data: objective.Data, step: objective.Step, report: dict[str, float]) -> None:
    """Stop before the update: on a loss that is not finite, and on a first step that breaks the invariants.

    With policy = reference DPO's loss is ln 2 mean(w); KTO's is 0.5 mean(w lambda) when z0 = 0.
    """
    if not math.isfinite(report["loss"]):
        raise ValueError(f"step {step.number}: the loss is {report['loss']}; no update was made. {blame(data, step)}")
    if step.number > 0 or config.loss.name == "sft" or config.loss.local_weight != "none":
        return
    weights = data.weights[step.rows]
    if config.loss.name == "dpo":
        expected = math.log(2) * float(weights.mean())
    else:
        desirable = data.tokens.examples[step.rows]["desirable"]
        factor = np.where(desirable, config.loss.lambda_desirable, config.loss.lambda_undesirable)
        expected = 0.5 * float((weights * factor).mean())
    tolerance = {"float32": 1e-3, "bfloat16": 5e-2}[config.train.dtype] * max(1.0, expected)
    if abs(report["loss"] - expected) > tolerance:
        raise ValueError(
            f"step 0: found loss {report['loss']:.6f}, expected {expected:.6f} for a policy that equals its reference; "
            "the reference column is not of this model: delete the round's folders reference/ and scores/ and run "
            "`python -m east reference`"
        )


def blame(data: objective.Data, step: objective.Step) -> str:
    """The questions of a step, for an error."""
    ids = data.tokens.question_ids()
    return f"Its examples: {[ids[q] for q in data.tokens.examples[step.rows]['question']]}"


def log_row(
    config: Config,
    step: objective.Step,
    report: dict[str, float],
    numbers: list[objective.StepNumbers],
    rate: float,
    grad_norm: float,
    seconds: float,
) -> dict[str, Any]:
    """One line of metrics.jsonl; sums over the step become means over its examples."""
    examples = len(step.rows)
    row: dict[str, Any] = {"step": step.number, "epoch": step.epoch, "examples": examples}
    row |= {"loss": report["loss"], "lr": rate, "grad_norm": grad_norm, "tokens": report["tokens"]}
    row["tokens_per_second"] = report["tokens"] / seconds
    counts = dict.fromkeys(report, float(examples))
    if config.loss.name == "kto":
        counts |= {"reward_desirable": report["desirable"], "reward_undesirable": examples - report["desirable"]}
        row["z0"] = float(np.mean([float(n.z0) for n in numbers]))
    return row | {k: v / max(counts[k], 1) for k, v in report.items() if k not in row and k != "desirable"}


def watch_sigterm() -> Any:
    """A function that says whether SIGTERM has come: the loop then saves and leaves."""
    came: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: came.append(number))
    return lambda: bool(came)


if __name__ == "__main__":
    command.run(lambda config, _: train(config), argparse.ArgumentParser(description=__doc__.split("\n")[0]))
