"""Train on weighted examples: `deepspeed train.py --config X`, or `python train.py --config X` on one process.

Reads dataset/, weights/ and (DPO, KTO) reference/ of the run; writes train/<name>/ with config.yaml,
metrics.jsonl, checkpoint/ and final/, a Hugging Face folder. After a crash the same command continues.

The loss of a step is (1/B) sum_i w_i L_i over the B examples of one optimizer step, however they are distributed
over ranks, micro-batches and packed rows.
"""

import argparse
import math
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from east import models
from east.data import training_data
from east.data.training_data import Data
from east.run import artifacts, command_line, deepspeed_file, files, pipeline
from east.run.artifacts import Artifact
from east.run.config import Config, to_yaml
from east.run.loss_table import LOSSES
from east.training import deepspeed_engine, logprobs, metrics, objective, reference, schedule

EXAMPLE = "deepspeed --num_gpus 8 train.py --config configs/8b_math_dpo.yaml train.deepspeed=zero3"


def run(config: Config, _: argparse.Namespace) -> None:
    """The stage: dataset/, weights/ and reference/ to train/NAME/final/."""
    train(config)


def train(config: Config) -> None:
    """Train, from the start or from the newest checkpoint, and export the model."""
    run = prepare(config)
    if run is None:
        return  # final/ is complete
    t, data, model, rank, ranks, device = config.train, run.data, run.model, run.rank, run.ranks, run.device
    sums = metrics.Sums(LOSSES[config.loss.name].logs, device)
    stopping, stop, began = watch_sigterm(), 0.0, time.perf_counter()
    steps = objective.steps(
        data, config.loss, t, config.model.packing, run.first, run.last, rank=rank, ranks=ranks, device=device
    )
    for step in tqdm(steps, desc="train", initial=run.first, total=run.last, disable=rank > 0):
        torch.manual_seed(((t.seed * 1_000_003 + step.number) * 4096 + rank) % 2**63)  # the same dropout on resume

        # 1. What losses need of the whole step (mean length, z0, mean perplexity), before any gradient
        shared = objective.step_numbers(config.loss, model, step, deepspeed_engine.reduce_sum)
        if step.number == 0 and data.reference is not None:
            check_start(config, data, objective.start_error(model, step), shared)

        # 2. The gradient of (1/B) sum_i w_i L_i, micro-batch by micro-batch
        sums.clear()
        for micro, numbers in zip(step.micro_batches, shared, strict=True):
            values, logged = objective.example_losses(config.loss, model(micro.batch), micro, numbers)
            loss = (micro.weights * values).sum() / len(step.rows)
            model.backward(loss * ranks, scale_wrt_gas=False)  # DeepSpeed averages over ranks: this makes it a sum
            if micro.real:
                sums.add({"loss": loss.detach(), "tokens": torch.tensor(micro.batch.tokens), **logged})

        # 3. Sums over ranks; refuse what is not finite
        summed, stop = sums.reduce(deepspeed_engine.reduce_sum, stopping())
        if not math.isfinite(summed["loss"]):
            what = f"step {step.number}: the loss is {summed['loss']}; no update was made"
            raise ValueError(f"{what}. {examples_of(data, step)}")

        # 4. The update
        rate = schedule.learning_rate(step.number, run.steps, t.lr, t.warmup_ratio, t.schedule)
        for group in model.optimizer.param_groups:
            group["lr"] = rate
        model.step()
        norm = float(model.get_global_grad_norm())
        if not math.isfinite(norm):  # on every rank alike, before this update can be saved
            what = f"step {step.number}: the gradient norm is {norm}; nothing was saved"
            raise ValueError(f"{what}. {examples_of(data, step)}")

        # 5. Log, checkpoint, stop
        if run.log:
            z0 = [float(numbers.z0) for numbers in shared]
            seconds = time.perf_counter() - began
            run.log.write(metrics.row(step.number, step.epoch, len(step.rows), summed, rate, norm, z0, seconds))
        done = step.number + 1
        if stop or done % t.checkpoint_every == 0 or done == run.last:
            deepspeed_engine.save(model, run.checkpoints, done, rank)
        if stop:
            break
        began = time.perf_counter()
    if run.log:
        run.log.close()
    if stop:
        sys.exit(143)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the last checkpoint is written: started again, the run exports
    export(config, run, summed["loss"] if run.first < run.last else None)


class Run(NamedTuple):
    """What a training run has before its first step. model: DeepSpeed's engine. steps: of the whole schedule, of which
    this process makes [first, last). log: on rank 0."""

    artifact: Artifact
    start: Path
    data: Data
    model: Any
    rank: int
    ranks: int
    device: torch.device
    steps: int
    first: int
    last: int
    checkpoints: Path
    log: metrics.Log | None


def prepare(config: Config) -> Run | None:
    """Read the data, build the engine, load the newest checkpoint; None when the model is complete already.

    Raises ValueError when data, model and settings do not belong together, or the folder holds another run's work.
    """
    t = config.train
    start, trust = models.resolve(*config.starting_model), config.model.trust_remote_code
    tokenizer = models.load_tokenizer(start, trust)
    digest = artifacts.model_digest(start)
    data = training_data.load(config, tokenizer, digest)
    training_data.check_lengths(data.tokens, models.context_limit(start, trust))
    rank, ranks, device = deepspeed_engine.start()
    artifact = pipeline.model(config, digest, ranks, data.inputs)
    if claim(config, artifact, rank):
        return None
    model = build(config, start, device, ranks)
    steps = schedule.total_steps(len(data.kept), t.batch_size, t.epochs)
    last = min(steps, t.max_steps or steps)
    if data.reference is not None:  # also on resume: until the checkpoint is loaded, this is the starting model
        rows = np.arange(len(data.reference))
        reference.check(model, data.tokens, data.reference, rows, config.model.packing, device, t.dtype, t.seed)
    folder = config.folder_of("train")
    first = deepspeed_engine.restore(model, folder / "checkpoint")
    if first > last:
        raise ValueError(f"{folder / 'checkpoint'} was saved after step {first}, train.max_steps is {last}; raise it")
    with deepspeed_engine.together():
        log = metrics.Log(folder, first, t.tensorboard, t.wandb, config.model_dump()) if rank == 0 else None
    checkpoints = folder / "checkpoint"
    return Run(artifact, start, data, model, rank, ranks, device, steps, first, last, checkpoints, log)


def build(config: Config, start: Path, device: torch.device, ranks: int) -> Any:
    """The DeepSpeed engine around the policy."""
    t, zero = config.train, deepspeed_file.zero_settings(config.train)
    torch.manual_seed(t.seed)  # the adapter's first matrix, the same on every rank and start
    module = logprobs.module_of(config, start, t.dtype, device).train()
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


def claim(config: Config, artifact: Artifact, rank: int) -> bool:
    """True when the model is complete already. Raises ValueError when the folder holds another run's work."""
    growing = pipeline.training(artifact)
    with deepspeed_engine.together():
        if rank == 0:  # before final/, which is made from the same and more: what a plan forbids is the whole folder
            growing.claim()
    done = artifact.complete()
    if rank == 0 and done:
        print(f"model: {artifact.folder} is complete and made from just this; nothing to do")
    with deepspeed_engine.together():
        if rank == 0 and not done:
            files.write_text(growing.folder / "config.yaml", to_yaml(config))
    return done


def export(config: Config, run: Run, last_loss: float | None) -> None:
    """Write final/, the starting folder with the trained weights, on rank 0, and compare it with the model in memory on
    the three shortest sequences."""
    tokens, packing, trust = run.data.tokens, config.model.packing, config.model.trust_remote_code
    rows = np.argsort(tokens.sequences["prompt_length"] + tokens.sequences["completion_length"])[:3]
    with objective.evaluating(run.model):  # on every rank: ZeRO-3 gathers weights
        ((_, expected),) = reference.score(run.model, tokens, [rows], packing, run.device)
    state = {name.removeprefix("model."): v for name, v in deepspeed_engine.gather(run.model, run.rank).items()}
    with deepspeed_engine.together():
        if run.rank == 0:
            with run.artifact.writing() as (scratch, summary):
                trained = run.model.module.model
                if config.model.lora:
                    base = models.load(run.start, dtype=config.train.dtype, trust=trust)
                    adapted = models.with_lora(base, config.model.lora)
                    trained = models.save_and_merge(adapted, state, scratch / "adapter")
                    state = dict(trained.state_dict())
                models.write(trained, state, run.start, scratch, config.train.dtype)
                sequences = [(tokens.prompt(r), tokens.completion(r)) for r in rows]
                models.verify(scratch, run.start, state, sequences, expected.tolist(), trust)
                summary.update(steps=run.last, examples=len(run.data.kept), last_loss=last_loss)
            print(f"model: {run.artifact.folder}")


def check_start(config: Config, data: Data, error: Tensor, shared: list[objective.StepNumbers]) -> None:
    """Check that policy and reference log-probabilities agree before the first update.

    Every loss then has its value of step 0: DPO ln 2 mean(w), KTO z0 = 0 and 0.5 mean(w lambda).
    error: this rank's, see `objective.start_error`. A nan passes here: the check of the loss names step and examples.
    """
    worst, allowed = float(deepspeed_engine.reduce_max(error)), models.TOLERANCE[config.train.dtype]
    if worst > allowed:
        raise ValueError(
            f"step 0: a sequence of T tokens has log-probability {worst:.2g} sqrt(T) nats from its reference, expected "
            f"at most {allowed:g} sqrt(T) for a policy that equals its reference; {reference.REMAKE}"
        )
    z0, longest = max(float(n.z0) for n in shared), int(data.tokens.sequences["completion_length"].max())
    assert not z0 > allowed * math.sqrt(longest), f"z0 = {z0} at step 0 is no mean over the pairs"


def examples_of(data: Data, step: objective.Step) -> str:
    """The questions of a step, for an error."""
    ids = data.tokens.question_ids()
    return f"Its examples: {[ids[q] for q in data.tokens.examples[step.rows]['question']]}"


def watch_sigterm() -> Callable[[], bool]:
    """A function that says whether SIGTERM has come: the loop then saves and leaves."""
    came: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: came.append(number))
    return lambda: bool(came)


if __name__ == "__main__":
    command_line.main(sys.modules[__name__], "train.py")
