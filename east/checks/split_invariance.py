"""`east check --split-invariance`: whether gradients and losses are independent of ranks, micro-batches and packing.

train.py is compared with `plain_trainer` on some of the run's examples, in float32 and without dropout: the gradient of
the first optimizer step, tensor by tensor, and the losses of ten steps, of which one has fewer examples.
"""

import dataclasses
import math
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from east.checks import plain_trainer
from east.data import indexed_dataset, training_data
from east.run import files, pipeline
from east.run.config import Config, to_yaml
from east.run.launch import command
from east.run.loss_table import LOSSES
from east.training import metrics, schedule

STEPS = 10
TOLERANCE = 1e-5  # relative, float32
SMALL = 1e-3  # the error of a tensor is relative to its norm, or to this share of the norm of the whole gradient
SCALE = 1e3  # the gradient run changes each weight by SCALE times its gradient, well above the weight's rounding error


class Split(NamedTuple):
    """How a step is split: ranks x micro_batch x accumulation examples, or by tokens if micro_tokens is set."""

    ranks: int
    micro_batch: int
    micro_tokens: int | None = None

    def name(self, batch_size: int) -> str:
        """Such as 2x2x4 (ranks x micro-batch x accumulation) or 2x150tokens."""
        if self.micro_tokens is not None:
            return f"{self.ranks}x{self.micro_tokens}tokens"
        return f"{self.ranks}x{self.micro_batch}x{schedule.micro_steps(batch_size, self.ranks, self.micro_batch)}"


def splits(batch_size: int, micro_tokens: int | None = None) -> list[Split]:
    """The splits that are checked. For steps of 16 examples: 1x16x1, 1x4x4, 2x2x4, 1x1x16; and if the run splits by
    tokens, its micro_tokens on 2 ranks."""
    shares = (1, batch_size), (1, math.ceil(batch_size / 4)), (2, math.ceil(batch_size / 8)), (1, 1)
    by_examples = list(dict.fromkeys(Split(*share) for share in shares))
    return by_examples if micro_tokens is None else [*by_examples, Split(2, 1, micro_tokens)]


def excerpt(config: Config, folder: Path) -> Config:
    """Write dataset and weights of a run of about ten steps in `folder`, with examples of the run `config`; returns its
    Config.

    Raises ValueError for settings that depend on the split by definition, and for fewer examples than two steps need.
    """
    if config.loss.name not in plain_trainer.EQUATIONS:
        raise ValueError(
            f"loss.name: found {config.loss.name}, unknown to the plain trainer; add its equation to EQUATIONS in "
            "east/checks/plain_trainer.py"
        )
    if config.loss.depends_on_split:
        raise ValueError(
            "loss.normalization, loss.kl: `microbatch` averages over micro-batches, so it depends on them; choose "
            "another value"
        )
    data = indexed_dataset.IndexedDataset(pipeline.dataset(config))
    weights, kept, _ = training_data.weights(config, data)
    rows = kept[: STEPS * config.train.batch_size - 1]
    rows = rows[: len(rows) - (len(rows) % config.train.batch_size == 0)]  # so that the last step has fewer examples
    if len(rows) <= config.train.batch_size:
        raise ValueError(
            f"found {len(rows)} examples, expected more than the {config.train.batch_size} of one step; lower "
            "train.batch_size"
        )
    run = _settings(config, folder, len(rows))
    with pipeline.weights(run, _copy(data, rows, run)).writing() as (out, _):
        np.save(out / "weights.npy", weights[rows])
        np.save(out / "kept.npy", np.ones(len(rows), dtype=bool))
    return run


def _settings(config: Config, folder: Path, examples: int) -> Config:
    """The run in `folder`: float32, without dropout, STEPS steps, a checkpoint only at the end."""
    steps = schedule.steps_per_epoch(examples, config.train.batch_size)
    model, lora = config.model, config.model.lora
    if lora is not None:
        model = model.model_copy(update={"lora": lora.model_copy(update={"dropout": 0.0})})
    train = config.train.model_copy(
        update={
            "dtype": "float32", "epochs": math.ceil(STEPS / steps), "max_steps": STEPS,
            "checkpoint_every": STEPS, "tensorboard": False, "wandb": None,
        }
    )  # fmt: skip
    return config.model_copy(update={"run": str(folder), "round": 1, "model": model, "train": train})


def _copy(data: indexed_dataset.IndexedDataset, rows: Any, run: Config) -> str:
    """Write the examples `rows` of `data` as the dataset of `run`; returns its fingerprint."""
    new_rows = dict[int, int]()  # by row in `data`
    source = data.manifest
    artifact = dataclasses.replace(pipeline.dataset(run), settings=source.config, inputs=source.inputs)
    with artifact.writing() as (out, summary):
        writer = indexed_dataset.Writer(out, data.vocabulary)

        def copied(row: int) -> int:
            if row >= 0 and row not in new_rows:
                s = data.sequences[row]
                prompt, completion = writer.segment(data.prompt(row)), writer.segment(data.completion(row))
                new_rows[row] = writer.sequence(prompt, completion, int(s["question"]), int(s["sample"]))
            return new_rows.get(row, -1)

        for e in data.examples[rows]:
            response, rejected = copied(int(e["response"])), copied(int(e["rejected"]))
            writer.example(int(e["question"]), response, rejected, bool(e["desirable"]))
        kl = None if data.kl is None else np.array([[copied(int(row)) for row in plan[rows]] for plan in data.kl])
        writer.close(data.question_ids(), kl)
        summary.update(vocabulary=data.vocabulary)
    return indexed_dataset.IndexedDataset(artifact).fingerprint


def variants(run: Config, split: Split) -> tuple[Config, Config]:
    """The two runs of train.py for one split: one for the gradient of the first step, one for the losses.

    AdamW without momentum and with an eps far above any gradient is gradient descent with rate lr / eps: after one step
    the weights are start - SCALE * gradient.
    """
    name = split.name(run.train.batch_size)
    shared = {"micro_batch": split.micro_batch, "micro_tokens": split.micro_tokens}
    descent = {
        "lr": SCALE * 1e8, "eps": 1e8, "betas": (0.0, 0.0), "weight_decay": 0.0, "max_grad_norm": 1e30,
        "warmup_ratio": 0.0, "schedule": "constant", "max_steps": 1,
    }  # fmt: skip
    gradient, curve = (run.train.model_copy(update={**shared, **change}) for change in (descent, {}))
    return (
        run.model_copy(update={"name": f"gradient-{name}", "train": gradient}),
        run.model_copy(update={"name": f"curve-{name}", "train": curve}),
    )


def exported_gradient(run: Config) -> dict[str, Tensor]:
    """The gradient of each trained tensor, from the model that a finished gradient run exported."""
    start, final = plain_trainer.start(run), run.folder_of("train") / "final"
    if run.model.lora:
        stored = safetensors.torch.load_file(final / "adapter" / "adapter_model.safetensors")
        after = {name.replace(".weight", ".default.weight"): value for name, value in stored.items()}
    else:
        after = safetensors.torch.load_file(final / "model.safetensors")
    return {n: (p.detach().cpu() - after[n]) / SCALE for n, p in start.named_parameters() if n in after}


def logged_losses(run: Config) -> list[float]:
    """The losses that a finished run logged."""
    return [row["loss"] for row in metrics.read(run.folder_of("train"))]


def gradient_error(gradient: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """The largest ||gradient - expected|| / ||expected|| over tensors; the denominator is at least SMALL times the norm
    of the whole expected gradient."""
    assert gradient.keys() == expected.keys(), gradient.keys() ^ expected.keys()
    floor = SMALL * float(torch.stack([e.norm() for e in expected.values()]).norm())
    return max(float((gradient[n] - e).norm()) / max(float(e.norm()), floor) for n, e in expected.items())


def curve_error(losses: list[float], expected: list[float]) -> float:
    """The largest relative difference of two loss curves of equal length."""
    return max(abs(loss - e) / max(abs(e), 1e-12) for loss, e in zip(losses, expected, strict=True))


def run(config: Config) -> None:
    """Print the errors of every split. Raises ValueError when one exceeds TOLERANCE, and keeps the runs' files."""
    scratch = config.folder / "split_invariance"
    shutil.rmtree(scratch, ignore_errors=True)
    small = excerpt(config, scratch)
    if LOSSES[config.loss.name].needs_reference:
        _launch(1, "reference", small)
    gradient, curve = plain_trainer.train(small, STEPS)
    torch.cuda.empty_cache()  # for the processes of train.py
    count = len(np.load(small.folder_of("weights") / "kept.npy"))
    print(f"{count} examples, steps of {small.train.batch_size}, float32; differences from unpacked training on one "
          "sequence at a time")  # fmt: skip
    print(f"{'ranks x micro-batch x accumulation':36}{'gradient':>12}{f'{STEPS} losses':>12}")
    worst = 0.0
    for split in splits(small.train.batch_size, small.train.micro_tokens):
        name = split.name(small.train.batch_size)
        if torch.cuda.is_available() and torch.cuda.device_count() < split.ranks:
            print(f"{name:36}{'not run: one GPU':>24}")
            continue
        gradient_run, curve_run = variants(small, split)
        for variant in (gradient_run, curve_run):
            _launch(split.ranks, "train", variant)
        errors = (
            gradient_error(exported_gradient(gradient_run), gradient),
            curve_error(logged_losses(curve_run), curve),
        )
        print(f"{name:36}{errors[0]:12.1e}{errors[1]:12.1e}", flush=True)
        worst = max(worst, *errors)
    if not worst <= TOLERANCE:
        raise ValueError(
            f"train.py differs from training on one sequence at a time by {worst:.1e}, expected at most {TOLERANCE:g}; "
            f"the runs are in {scratch}"
        )
    shutil.rmtree(scratch)


def _launch(ranks: int, verb: str, run: Config) -> None:
    """Run `east VERB` on the resolved run file in another process, as a user would. Raises ValueError when it fails."""
    file = Path(run.run) / f"{run.label}.yaml"
    files.write_text(file, to_yaml(run))
    start = command(verb, "python" if ranks == 1 else f"deepspeed --num_accelerators {ranks}")
    done = subprocess.run([*start, "--config", str(file)], capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error: " in line] or done.stderr.splitlines()[-1:]
        raise ValueError(f"{verb} on {ranks} ranks failed: {' '.join(lines[:1])}")
