"""What a run trains on, and whether it belongs together: tokens, weights and reference log-probabilities."""

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
    """What is trained: the token store, and columns of it."""

    tokens: IndexedDataset
    weights: NDArray[np.float64]  # [examples], mean 1 over the kept ones
    kept: Rows  # rows of the examples that are trained
    reference: NDArray[np.float64] | None  # [sequences] log-probabilities; None where the loss needs none
    inputs: dict[str, str]  # fingerprints of all of these


def load(config: Config, tokenizer: Any, model: str) -> Data:
    """All that a run trains on; `model` is the digest of its starting model, `tokenizer` that model's.

    Raises ValueError when the parts, the run's settings and the model do not belong together, or when the content
    of a column is not what its manifest says.
    """
    tokens = dataset(config, tokenizer, model)
    column, kept, made = weights(config, tokens)
    inputs = {"dataset": tokens.fingerprint, "weights": made.fingerprint}
    if not LOSSES[config.loss.name].needs_reference:
        return Data(tokens, column, kept, None, inputs)
    scores, made = reference(config, tokens, model)
    return Data(tokens, column, kept, scores, {**inputs, "reference": made.fingerprint})


def dataset(config: Config, tokenizer: Any, model: str, verify: bool = False) -> IndexedDataset:
    """The run's token store. Raises ValueError when its settings, its tokenizer or the model that sampled differ."""
    return IndexedDataset(pipeline.dataset(config, models.tokenizer_digest(tokenizer), model=model), verify)


def weights(config: Config, tokens: IndexedDataset) -> tuple[NDArray[np.float64], Rows, Manifest]:
    """A weight per example, and the rows of the examples that are trained."""
    artifact = pipeline.weights(config, tokens.fingerprint)
    column, manifest = tokens.column(artifact, "weights", len(tokens))
    return column, np.flatnonzero(np.load(artifact.folder / "kept.npy")), manifest


def reference(config: Config, tokens: IndexedDataset, model: str) -> tuple[NDArray[np.float64], Manifest]:
    """A log-probability per sequence. Raises ValueError when another model, dtype or device computed them."""
    artifact = pipeline.reference(config, kernel(), model, tokens.fingerprint)
    return tokens.column(artifact, "logprobs", len(tokens.sequences))


def kernel() -> dict[str, str]:
    """What rounds a log-probability: the version of torch and the type of device."""
    return {"torch": torch.__version__, "device": "cuda" if torch.cuda.is_available() else "cpu"}
