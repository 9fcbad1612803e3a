"""The weight of each question under each weighting, from the folders of weights/."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from east.data.indexed_dataset import IndexedDataset
from east.run import config, files, pipeline
from east.weighting import weights
from east.weighting.weights import COMPARED, Graded, Strategy

ALL = "all questions"  # where nothing is indexed yet
PER_RESPONSE = {"sample", "answer", "source", "truncated", "cluster", "correct", "string_match"}


class Column(NamedTuple):
    """Weights by question id; questions without a trained example are absent. source: where they are from."""

    label: str
    dataset: str
    strategy: str
    a: float | None  # exponent of the power mapping, None for other mappings
    weights: dict[str, float]
    source: str


def dataset_of(folder: Path) -> IndexedDataset:
    """The dataset that a weights folder (<round>/weights/<dataset>/<weighting>) belongs to."""
    return IndexedDataset(pipeline.at("dataset", folder.parents[2] / "dataset" / folder.parent.name))


def read(folder: Path) -> Column:
    """A weights folder by question. Raises ValueError when it or its dataset is missing or does not fit."""
    dataset = dataset_of(folder)
    values, manifest = dataset.column(pipeline.at("weights", folder), "weights", len(dataset))
    kept = np.load(folder / "kept.npy")
    settings = manifest.config
    power = settings.get("mapping") == "power" and settings["strategy"] != "uniform"
    auto = power and settings["a"] == "auto"
    a = (manifest.summary["a"] if auto else settings["a"]) if power else None
    label = f"{folder.parent.name}: {described(settings)}" + (f" ({a:.3g})" if auto else "")
    weights_of = by_question(dataset.question_ids(), dataset.examples["question"], values, kept)
    return Column(label, folder.parent.name, settings["strategy"], a, weights_of, str(folder))


def described(settings: dict[str, Any]) -> str:
    """A weighting in words: `vanilla`, `entropy a = 1`, `entropy (chao_shen) a = auto`, `accuracy mean`."""
    if settings["strategy"] == "uniform":
        return "vanilla"
    named = settings["strategy"] == "entropy" and settings["entropy"] != "plugin"
    estimator = f" ({settings['entropy']})" if named else ""
    ess = "" if settings["min_ess"] == config.Weighting().min_ess else f", min_ess = {settings['min_ess']:g}"
    a = f"a = {settings['a']:g}" if isinstance(settings["a"], int | float) else f"a = auto{ess}"
    mapping = {"power": a, "linear": f"linear R = {settings['spread']}"}.get(settings["mapping"], settings["mapping"])
    return f"{settings['strategy']}{estimator} {mapping}"


def by_question(
    ids: list[str], question: NDArray[Any], values: NDArray[Any], kept: NDArray[np.bool_]
) -> dict[str, float]:
    """Question id to weight. ids: of the dataset; question, values, kept: [N] per example, equal within a question."""
    first, rows = np.unique(question, return_index=True)
    return {ids[q]: float(values[row]) for q, row in zip(first, rows, strict=True) if kept[row]}


def computed(strategy: Strategy, a: float, graded: dict[str, Graded], dataset: IndexedDataset | None) -> Column:
    """What the power mapping of a strategy would give on a dataset's examples (None: one example a question)."""
    values, ids, question = example_values(strategy, graded, dataset)
    name, source = dataset.folder.name if dataset else ALL, "computed for this page"
    weights_of: dict[str, float] = {}
    if values.any():
        weights_of = by_question(ids, question, *power_weights(values, a))
    else:
        source += "; every value is 0, so there are no weights"
    return Column(f"{name}: {strategy} a = {a:g} ({source})", name, strategy, a, weights_of, source)


def power_weights(values: weights.Array, a: float) -> tuple[weights.Array, NDArray[np.bool_]]:
    """(weights, kept) of the power mapping over examples' values; for a < 0 those whose value is 0 are left out."""
    return weights.example_weights(values, strategy="entropy", mapping="power", a=a, spread=None, zero="drop")


def example_values(
    strategy: Strategy, graded: dict[str, Graded], dataset: IndexedDataset | None
) -> tuple[weights.Array, list[str], NDArray[Any]]:
    """(values [N], question ids, example's position in them [N]) of a dataset's examples; graded: rows by id."""
    ids = dataset.question_ids() if dataset else list(graded)
    question = np.asarray(dataset.examples["question"]) if dataset else np.arange(len(ids))
    return weights.question_values(strategy, [graded[i] for i in ids])[question], ids, question


def effective_shares(values: weights.Array, exponents: list[float]) -> list[float]:
    """(sum w)^2 / sum w^2 over N at each exponent of the power mapping; examples whose value is 0 are left out
    for a < 0 and count in N. nan where no example has a value above 0.
    """
    shares = []
    for a in exponents:
        if a != 0 and not values.any():
            shares.append(float("nan"))
            continue
        shares.append(weights.summary(*power_weights(values, a))["effective_sample_size"] / values.size)
    return shares


def graded_rows(folder: Path) -> dict[str, Graded]:
    """Rows of a graded folder by question id, without the keys that have a value per response."""
    pipeline.at("graded", folder).open()
    rows = files.read_jsonl(folder / "questions.jsonl")
    return {row["question"]: {k: v for k, v in row.items() if k not in PER_RESPONSE} for row in rows}


def with_pair(folders: list[Path], graded: dict[str, Graded]) -> tuple[list[Column], tuple[int, int]]:
    """Columns of weights folders, and the positions of the entropy and the accuracy column to be compared.

    Compared are two of one dataset with the same exponent, the nearest to 1. Where there is no such pair, those of
    the three strategies that are missing are computed at the exponent of the entropy column nearest to 1.
    """
    columns = [read(folder) for folder in folders]
    entropy = sorted((c for c in columns if c.strategy == "entropy" and c.a is not None), key=_from_one)
    keys = [(c.dataset, c.a) for c in entropy]
    paired = [k for k in keys if any((c.dataset, c.a, c.strategy) == (*k, "accuracy") for c in columns)]
    if keys:
        name, a = (paired or keys)[0]
    else:
        name, a = (columns[0].dataset if columns else ALL), 1.0
    assert a is not None
    dataset = next((dataset_of(folder) for folder in folders if folder.parent.name == name), None)
    for strategy in COMPARED:
        if not any((c.dataset, c.a, c.strategy) == (name, a, strategy) for c in columns):
            columns.append(computed(strategy, a, graded, dataset))
    places = {c.strategy: k for k, c in reversed(list(enumerate(columns))) if (c.dataset, c.a) == (name, a)}
    return columns, (places["entropy"], places["accuracy"])


def _from_one(column: Column) -> float:
    assert column.a is not None
    return abs(column.a - 1)
