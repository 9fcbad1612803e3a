"""What is trained and whether it belongs together: tokens, weights and reference, held to the run and its model."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from east import models
from east.data.indexed_dataset import IndexedDataset
from east.run import artifacts
from east.run.config import Config
from east.training.objective import Data, Rows

REFERENCE = "reference"
MAKE = "python -m east {} --config X"
LOGPROBS = 1  # raised with every change of what logprobs, packing or attention compute


def load(config: Config, start: Path, tokenizer: Any, model: str) -> Data:
    """All that a run trains on; `start` is its model, `model` the digest of it.

    Raises ValueError when the parts, the run's settings and the model do not belong together, or when the content
    of a column is not what its manifest says.
    """
    tokens = dataset(config, start, tokenizer, model)
    column, kept, made = weights(config, tokens)
    inputs = {"dataset": tokens.fingerprint, "weights": made.fingerprint}
    if config.loss.name == "sft":
        return Data(tokens, column, kept, None, inputs)
    scores, made = reference(config, tokens, model)
    return Data(tokens, column, kept, scores, {**inputs, "reference": made.fingerprint})


def dataset(config: Config, start: Path, tokenizer: Any, model: str, verify: bool = False) -> IndexedDataset:
    """The run's token store. Raises ValueError when its rules, its tokenizer or the model that sampled are others."""
    tokens = IndexedDataset(config.folder_of("dataset"), config.dataset_settings, verify)
    made_for, found = tokens.manifest.config["tokenizer"], models.tokenizer_digest(tokenizer)
    if made_for != found:
        raise ValueError(
            f"{tokens.folder} was tokenised with tokenizer {made_for}, but {start} has {found}; train the model whose "
            "tokenizer sampled the responses, or make the index again"
        )
    sampler = tokens.manifest.inputs.get("model", model)  # imported responses name none
    if sampler != model:
        raise ValueError(
            f"{tokens.folder} holds responses of model {sampler}, but {start} is {model}; self-training starts from "
            "the model that sampled (give others' responses as sampling.responses)"
        )
    return tokens


def weights(config: Config, tokens: IndexedDataset) -> tuple[NDArray[np.float64], Rows, artifacts.Manifest]:
    """A weight per example, and the rows of the examples that are trained."""
    folder = config.folder_of("weights")
    column, made = tokens.column(folder, "weights", "weights", len(tokens), MAKE.format("weigh"))
    if made.config != config.weighting.used:
        unlike = artifacts.difference(made.config, config.weighting.used)
        raise ValueError(f"{folder} holds other weights: {unlike}; rm -r {folder} and run `{MAKE.format('weigh')}`")
    return column, np.flatnonzero(np.load(folder / "kept.npy")), made


def reference(config: Config, tokens: IndexedDataset, model: str) -> tuple[NDArray[np.float64], artifacts.Manifest]:
    """A log-probability per sequence. Raises ValueError when another model or another dtype gave them."""
    folder, make = config.folder_of("reference"), MAKE.format("reference")
    column, made = tokens.column(folder, REFERENCE, "logprobs", len(tokens.sequences), make)
    expected = {**reference_settings(config), "model": model}
    scored_by = {**made.config, "model": made.inputs["model"]}
    if scored_by != expected:
        raise ValueError(
            f"{folder} is not the reference of this run: {artifacts.difference(scored_by, expected)}; "
            f"rm -r {folder} and run `{make}`"
        )
    return column, made


def reference_settings(config: Config) -> dict[str, Any]:
    """What decides a sequence's log-probability beside its tokens and the model, rounding included."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    kernel = {"attention": config.model.attention, "device": device}
    return {"dtype": config.train.dtype, "torch": torch.__version__, "logprobs": LOGPROBS, **kernel}
