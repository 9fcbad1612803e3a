"""Every folder that a run writes, in the order of the method: what it holds, what it is made from, by which command.

    samples ─▶ graded ─▶ dataset ─┬▶ weights ───┬▶ model ─▶ evaluation (samples, graded)
                                  └▶ reference ─┘

Stages ask here for their folder, whether it is complete, and whether what they read belongs to the run.
"""

import dataclasses
from pathlib import Path
from typing import Any

from east.grading import VERSION, Grading
from east.run import files
from east.run.artifacts import ANY, Artifact
from east.run.config import Config, Sampling
from east.run.loss_table import LOSSES

VERBS = {
    "merged": "check",
    "samples": "sample",
    "graded": "grade",
    "dataset": "index",
    "weights": "weigh",
    "reference": "reference",
    "scores": "reference",
    "model": "train",
    "evaluation": "evaluate",
}
COMMANDS = {kind: f"python -m east {verb} --config X" for kind, verb in VERBS.items()}
IMPORTED = "imported"  # the engine of responses made elsewhere
LOGPROBS = 2  # raised with every change of what logprobs, packing or attention compute
NOT_WHAT_IS_TRAINED = {  # settings that decide how a run is computed, not what: they may change on resume
    "micro_batch", "micro_tokens", "deepspeed", "gradient_checkpointing", "compile", "head_chunk", "checkpoint_every",
    "max_steps", "tensorboard", "wandb",
}  # fmt: skip


def at(kind: str, folder: Path) -> Artifact:
    """A folder of this kind, whatever it was made from."""
    return Artifact(kind, folder, None, {}, COMMANDS[kind])


def merged(folder: Path, adapter: str, base: str) -> Artifact:
    """A PEFT adapter and its base as one model, below the run's folder of them: where `model.path` is an adapter."""
    inputs = {"adapter": adapter, "base": base}
    return Artifact("merged", folder / files.digest(inputs), {}, inputs, COMMANDS["merged"])


def samples(config: Config, engine: str = ANY, **inputs: str) -> Artifact:
    """n responses to each question. inputs: model and questions; of imported ones responses, tokenizer, questions."""
    if config.sampling.responses:
        settings, inputs = {"engine": IMPORTED}, {k: v for k, v in inputs.items() if k != "model"}
    else:
        settings = {"engine": engine, **response_settings(config.sampling, config.grading)}
    return dataclasses.replace(at("samples", config.folder_of("samples")), settings=settings, inputs=inputs)


def graded(config: Config, samples: str) -> Artifact:
    """Final answers of the responses, right or wrong, in clusters of equal ones."""
    settings = verdict_settings(config.grading, None if config.sampling.responses else config.sampling.n)
    return Artifact("graded", config.folder_of("graded"), settings, {"samples": samples}, COMMANDS["graded"])


def dataset(config: Config, tokenizer: str = ANY, **inputs: str) -> Artifact:
    """Training examples and their tokens. inputs: samples, graded, and the model unless responses are imported."""
    unused = {"name"} if LOSSES[config.loss.name].mismatched else {"name", "kl_plans"}
    sampling = config.sampling
    drawn = {**sampling.plan, **sampling.model_dump(mode="json", include={"n", "adaptive"})}
    settings = {
        "task": config.task.model_dump(mode="json", exclude={"train", "test", "test_rows"}),
        "sampling": {"imported": True} if sampling.responses else drawn,
        "grading": config.grading.rules,
        "loss": config.loss.name,
        "rules": config.examples.model_dump(mode="json", exclude=unused),
        "tokenizer": tokenizer,
    }
    inputs = {k: v for k, v in inputs.items() if k != "model" or sampling.responses is None}
    return Artifact("dataset", config.folder_of("dataset"), settings, inputs, COMMANDS["dataset"])


def weights(config: Config, dataset: str) -> Artifact:
    """One weight per example."""
    folder, inputs = config.folder_of("weights"), {"dataset": dataset}
    return Artifact("weights", folder, config.weighting.used, inputs, COMMANDS["weights"])


def scores(config: Config, kernel: dict[str, str], model: str) -> Artifact:
    """Log-probabilities that the starting model has given so far, of any dataset of the round: it grows in place.

    kernel: torch's version and the device type, whose rounding is part of a log-probability.
    """
    settings = {"dtype": config.train.dtype, "torch": kernel["torch"], "logprobs": LOGPROBS}
    settings |= {"attention": config.model.training_attention, "device": kernel["device"]}
    folder = config.folder_of("scores") / files.digest({**settings, "model": model})
    return Artifact("scores", folder, settings, {"model": model}, COMMANDS["scores"])


def reference(config: Config, kernel: dict[str, str], model: str, dataset: str) -> Artifact:
    """One log-probability per sequence: what the starting model gives it."""
    folder, inputs = config.folder_of("reference"), {"dataset": dataset, "model": model}
    return Artifact("reference", folder, scores(config, kernel, model).settings, inputs, COMMANDS["reference"])


def model(config: Config, start: str, ranks: int, inputs: dict[str, str]) -> Artifact:
    """The trained model. start: digest of the model that training starts from; inputs: dataset, weights, reference.

    What decides its weights is the same on every number of ranks, but where a setting averages over micro-batches.
    """
    split = {}
    if config.loss.depends_on_split:
        split = {"micro_batch": config.train.micro_batch, "micro_tokens": config.train.micro_tokens, "ranks": ranks}
    settings = split | {
        "loss": config.loss.used,
        "lora": config.model.lora and config.model.lora.model_dump(),
        "train": config.train.model_dump(exclude=NOT_WHAT_IS_TRAINED),
        "max_steps": config.train.max_steps,
        "model": start,
    }
    return Artifact("model", config.folder_of("train") / "final", settings, inputs, COMMANDS["model"])


def training(trained: Artifact) -> Artifact:
    """The folder that grows while a model is trained: metrics.jsonl, checkpoint/, and at the end final/, the model."""
    settings = {k: v for k, v in (trained.settings or {}).items() if k != "max_steps"}
    return dataclasses.replace(trained, folder=trained.folder.parent, settings=settings)


def evaluated_samples(config: Config, folder: Path) -> Artifact:
    """One greedy response to each evaluation question, in an eval folder."""
    settings = {"engine": ANY, **response_settings(greedy(config), config.grading)}
    return Artifact("samples", folder / "samples", settings, {}, COMMANDS["evaluation"])


def evaluated_graded(config: Config, folder: Path, **inputs: str) -> Artifact:
    """Their verdicts. inputs: samples."""
    return Artifact("graded", folder / "graded", verdict_settings(config.grading, 1), inputs, COMMANDS["evaluation"])


def greedy(config: Config) -> Sampling:
    """How an evaluation samples."""
    once = {"n": 1, "adaptive": None, "temperature": 0.0, "top_p": 1.0, "responses": None}
    return config.sampling.model_copy(
        update={**once, "max_tokens": config.eval.max_tokens or config.sampling.max_tokens}
    )


def response_settings(sampling: Sampling, grading: Grading) -> dict[str, Any]:
    """What decides a response besides engine, model and question."""
    if sampling.adaptive is None:
        return sampling.plan
    return {**sampling.plan, "adaptive": {**sampling.adaptive.model_dump(), "grading": grading.rules}}


def verdict_settings(grading: Grading, n: int | None) -> dict[str, Any]:
    """What decides the verdicts and the report on the first n responses (None: all)."""
    return {"grader": VERSION, **grading.model_dump(exclude={"workers"}), "n": n}
