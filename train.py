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
from torch import Tensor
from tqdm import tqdm

from east import models
from east.data import training_data
from east.run import artifacts, command_line, files
from east.run.config import Config, to_yaml, zero_of
from east.training import deepspeed_engine, metrics, objective, reference, schedule
from east.training.logprobs import CompletionLogprobs

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
    data = training_data.load(config, start, tokenizer, model_digest)
    rank, ranks, device = deepspeed_engine.start()
    ours = identity(config, model_digest, ranks)
    if claim(config, ours, data, rank):
        return
    model = build(config, start, device, ranks)
    steps = schedule.total_steps(len(data.kept), t.batch_size, t.epochs)
    last = min(steps, t.max_steps or steps)
    if data.reference is not None:  # also on resume: until the checkpoint is loaded, this is the starting model
        reference.check(model, data.tokens, data.reference, np.arange(len(data.reference)), device, t.dtype, t.seed)
    first = deepspeed_engine.restore(model, folder / "checkpoint")
    if first > last:
        raise ValueError(f"{folder / 'checkpoint'} stands after step {first}, train.max_steps is {last}; raise it")
    with deepspeed_engine.together():
        log = metrics.Log(folder, first, t.tensorboard, t.wandb, config.model_dump()) if rank == 0 else None
    stopping, stops = watch_sigterm(), 0.0
    largest = 0  # tokens of a micro-batch so far
    began = time.perf_counter()

    for step in tqdm(
        objective.steps(data, config.loss, t, first, last, rank, ranks, device),
        desc="train", initial=first, total=last, disable=rank > 0,
    ):  # fmt: skip
        torch.manual_seed(((t.seed * 1_000_003 + step.number) * 4096 + rank) % 2**63)  # the same dropout on resume
        numbers = objective.step_numbers(config.loss, model, step, deepspeed_engine.reduce_sum)
        if step.number == 0 and data.reference is not None:
            check_start(config, data, objective.start_error(model, step), numbers)
        sums = dict.fromkeys(objective.REPORTED[config.loss.name], torch.zeros((), dtype=torch.float64, device=device))
        for micro, number in zip(step.micro_batches, numbers, strict=True):
            tokens = len(micro.batch.input_ids)
            if tokens > largest:
                deepspeed_engine.trim(device)
                largest = tokens
            values, report = objective.example_losses(config.loss, model(micro.batch), micro, number)
            loss = (micro.weights * values).sum() / len(step.rows)
            model.backward(loss * ranks, scale_wrt_gas=False)  # DeepSpeed averages over ranks: this makes it a sum
            if micro.real:
                report |= {"loss": loss.detach(), "tokens": torch.tensor(tokens)}
                sums = {name: total + report[name] for name, total in sums.items()}
        told = sums["loss"].new_full((), stopping())
        *totals, stops = deepspeed_engine.reduce_sum(torch.stack([*sums.values(), told])).tolist()
        summed = dict(zip(sums, totals, strict=True))
        if not math.isfinite(summed["loss"]):
            found = f"step {step.number}: the loss is {summed['loss']}"
            raise ValueError(f"{found}; no update was made. {blame(data, step)}")
        rate = schedule.learning_rate(step.number, steps, t.lr, t.warmup_ratio, t.schedule)
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
            deepspeed_engine.save(model, folder / "checkpoint", done, rank)
        if stops:
            break
        began = time.perf_counter()
    if log:
        log.close()
    if stops:
        sys.exit(143)

    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the checkpoint stands: started again, the run exports
    state = deepspeed_engine.gather(model, rank)
    with deepspeed_engine.together():
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
    module = CompletionLogprobs(policy, t.head_chunk, collision, compiled=t.compile, device=device)
    module.train()
    trained = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": t.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW([g for g in groups if g["params"]], lr=t.lr, betas=t.betas, eps=t.eps, fused=True)
    return deepspeed_engine.initialize(
        module,
        optimizer,
        zero=zero,
        bf16=t.dtype == "bfloat16",
        max_grad_norm=t.max_grad_norm,
        micro_batch=t.micro_batch,
        micro_steps=schedule.micro_steps(t.batch_size, ranks, t.micro_batch),
    )


def identity(config: Config, model_digest: str, ranks: int) -> dict[str, Any]:
    """What decides the trained weights beside the data: the same on every topology, but where a setting averages
    over micro-batches."""
    split = {}
    if config.loss.depends_on_split:
        split = {"micro_batch": config.train.micro_batch, "micro_tokens": config.train.micro_tokens, "ranks": ranks}
    return split | {
        "loss": config.loss.used,
        "lora": config.model.lora and config.model.lora.model_dump(),
        "train": config.train.model_dump(exclude=SHARED_OUT),
        "max_steps": config.train.max_steps,
        "model": model_digest,
    }


def claim(config: Config, ours: dict[str, Any], data: objective.Data, rank: int) -> bool:
    """True when the model is there already. Raises ValueError when the folder holds another run's work."""
    folder, make = config.folder_of("train"), "python train.py --config X"
    with deepspeed_engine.together():
        if rank == 0:  # before final/, which is made from the same and more: what a plan forbids is the whole folder
            artifacts.claim(folder, {k: v for k, v in ours.items() if k != "max_steps"}, data.inputs, make)
    done = artifacts.reusable(folder / "final", KIND, ours, data.inputs, make)
    if rank == 0 and done:
        print(f"model: {folder / 'final'} is complete and made from just this; nothing to do")
    with deepspeed_engine.together():
        if rank == 0 and not done:
            files.write_text(folder / "config.yaml", to_yaml(config))
    return done


def check_start(config: Config, data: objective.Data, error: Tensor, numbers: list[objective.StepNumbers]) -> None:
    """Stop before the first update unless the policy is its reference, whatever the loss does with the two.

    Then every loss has its value of step 0: DPO ln 2 mean(w), KTO z0 = 0 and 0.5 mean(w lambda).
    error: this rank's, see `objective.start_error`. One that is nan passes: the loss stops the run, by its name.
    """
    worst, allowed = float(deepspeed_engine.reduce_max(error)), reference.TOLERANCE[config.train.dtype]
    if worst > allowed:
        raise ValueError(
            f"step 0: a sequence of T tokens has log-probability {worst:.2g} sqrt(T) nats from its reference, expected "
            f"at most {allowed:g} sqrt(T) for a policy that equals its reference; {reference.MEND}"
        )
    z0, longest = max(float(n.z0) for n in numbers), int(data.tokens.sequences["completion_length"].max())
    assert not z0 > allowed * math.sqrt(longest), f"z0 = {z0} at step 0 is no mean over the pairs"


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
    if torch.cuda.is_available():
        row["gpu_memory"] = torch.cuda.max_memory_allocated()  # bytes, of this rank, so far
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
    command_line.run(lambda config, _: train(config), argparse.ArgumentParser(description=__doc__.split("\n")[0]))
