"""The data of a training run: tokens, weights and reference log-probabilities, checked to belong together."""

import dataclasses
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from east import models
from east.data.indexed_dataset import IndexedDataset
from east.run import pipeline
from east.run.artifacts import Manifest
from east.run.config import Config
from east.run.loss_table import LOSSES

Rows = NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class Data:
    """The dataset that is trained, and its columns."""

    tokens: IndexedDataset
    weights: NDArray[np.float64]  # [examples], with mean 1 over the kept ones
    kept: Rows  # rows of the examples that are trained
    reference: NDArray[np.float64] | None  # [sequences] log-probabilities in nats; None where the loss needs none
    inputs: dict[str, str]  # fingerprints of dataset, weights and reference


def load(config: Config, tokenizer: Any, model: str) -> Data:
    """The data of a run. model: digest of its starting model; tokenizer: that of the starting model.

    Raises ValueError when the parts, the run's settings and the model do not belong together, or when the content
    of a column differs from its manifest.
    """
    tokens = dataset(config, tokenizer, model)
    column, kept, manifest = weights(config, tokens)
    inputs = {"dataset": tokens.fingerprint, "weights": manifest.fingerprint}
    if not LOSSES[config.loss.name].needs_reference:
        return Data(tokens, column, kept, None, inputs)
    logprobs, manifest = reference(config, tokens, model)
    return Data(tokens, column, kept, logprobs, {**inputs, "reference": manifest.fingerprint})


def dataset(config: Config, tokenizer: Any, model: str, verify: bool = False) -> IndexedDataset:
    """The dataset of the run. verify: also check the checksums of its files.

    Raises ValueError when it was made with other settings, another tokenizer, or responses of another model.
    """
    return IndexedDataset(pipeline.dataset(config, models.tokenizer_digest(tokenizer), model=model), verify)


def check_lengths(tokens: IndexedDataset, limit: int | None) -> None:
    """Raise ValueError for a sequence that is longer than the limit, `models.context_limit` of the model."""
    longest = int((tokens.sequences["prompt_length"] + tokens.sequences["completion_length"]).max())
    if limit is not None and longest > limit:
        raise ValueError(
            f"{tokens.folder}: found a sequence of {longest} tokens, expected at most {limit}, the model's limit; "
            "lower examples.max_length"
        )


def weights(config: Config, tokens: IndexedDataset) -> tuple[NDArray[np.float64], Rows, Manifest]:
    """(weights [examples], rows of the examples that are trained, manifest). Raises ValueError when they were made from
    another dataset or with other settings."""
    artifact = pipeline.weights(config, tokens.fingerprint)
    column, manifest = tokens.column(artifact, "weights", len(tokens))
    return column, np.flatnonzero(np.load(artifact.folder / "kept.npy")), manifest


def reference(config: Config, tokens: IndexedDataset, model: str) -> tuple[NDArray[np.float64], Manifest]:
    """(reference log-probabilities [sequences] in nats, manifest). Raises ValueError when they were computed with
    another model, dtype, version of torch, attention or type of device."""
    artifact = pipeline.reference(config, kernel(), model, tokens.fingerprint)
    return tokens.column(artifact, "logprobs", len(tokens.sequences))


def kernel() -> dict[str, str]:
    """What decides the rounding of a log-probability: the version of torch, and the type of device."""
    return {"torch": torch.__version__, "device": "cuda" if torch.cuda.is_available() else "cpu"}
