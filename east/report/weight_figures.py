"""Figures of weights: histograms, and the effective sample size against the exponent."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from east.evaluation import significance
from east.evaluation.significance import Series
from east.report import figures, weights_by_question
from east.report.document import Section
from east.report.figures import Histogram, Panel
from east.run import pipeline
from east.weighting.weights import COMPARED, Strategy

EXPONENTS = [k / 4 for k in range(-12, 13)]


def sections(groups: dict[str, list[tuple[list[Path], Path]]], plots: Path) -> list[Section]:
    """Histograms of the first seed's weights and the effective sample size against a.

    groups: by title, for each seed its weights folders, the main ones first, and the graded folder that they are from.
    """
    histograms, panels = [], []
    for title, seeds in groups.items():
        for strategy in COMPARED:
            shown = histogram(strategy, seeds[0][0])
            if shown:
                histograms.append(Histogram(f"{title}: {strategy}", "weight", shown))
        panels.append(Panel(title, "exponent a", "effective sample size / N", effective(seeds)))
    parts = []
    if histograms:
        figures.histograms(histograms, plots / "weights")
        caption = "Weights of the first seed's examples. Their mean is 1; the last bin also counts all larger weights."
        parts.append(Section("Weights", [], [], plots / "weights", caption))
    if not panels:
        return []
    figures.curves(panels, plots / "effective_sample_size")
    caption = (
        "Effective sample size (sum w)^2 / sum w^2 of the power mapping, divided by N. For a < 0 examples whose value "
        "is 0 are left out, but counted in N."
    )
    return [*parts, Section("Effective sample size", [], [], plots / "effective_sample_size", caption)]


def histogram(strategy: str, folders: list[Path], most: int = 6) -> dict[str, NDArray[Any]]:
    """Example weights of a strategy by label, of the first dataset's folders.

    At most as many as a reader can distinguish: the strategy's first folder, a = 1, and an even choice of the others.
    """
    of_one = [folder for folder in folders if folder.parent.name == folders[0].parent.name]
    settings = {folder: pipeline.at("weights", folder).open().config for folder in of_one}
    shown = [folder for folder in of_one if settings[folder]["strategy"] == strategy]
    always = {*shown[:1], *(folder for folder in shown if settings[folder]["a"] == 1)}
    shown.sort(key=lambda folder: (isinstance(settings[folder]["a"], str), settings[folder]["a"]))
    if len(shown) > most:
        step = math.ceil(len(shown) / (most - len(always)))
        shown = [folder for k, folder in enumerate(shown) if k % step == 0 or folder in always]
    return {
        weights_by_question.described(settings[f]): np.load(f / "weights.npy")[np.load(f / "kept.npy")] for f in shown
    }


def effective(seeds: list[tuple[list[Path], Path]]) -> list[Series]:
    """Effective shares of the three strategies over EXPONENTS, mean and interval over seeds."""
    shares: dict[Strategy, list[list[float]]] = {strategy: [] for strategy in COMPARED}
    for folders, graded in seeds:
        rows = weights_by_question.graded_rows(graded)
        dataset = weights_by_question.dataset_of(folders[0]) if folders else None
        for strategy, by_seed in shares.items():
            values, _, _ = weights_by_question.example_values(strategy, rows, dataset)
            by_seed.append(weights_by_question.effective_shares(values, EXPONENTS))
    return [
        Series(
            strategy, EXPONENTS, [significance.mean_interval(column) for column in zip(*by_seed, strict=True)], False
        )
        for strategy, by_seed in shares.items()
    ]
