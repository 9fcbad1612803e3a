"""Figures: curves with 95 % intervals and histograms, as PNG and SVG. The only module that imports matplotlib.

Colours are Okabe and Ito's, which colour-blind readers can distinguish; every series also has its own marker and dash,
so that a figure can be printed in grey.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter
from numpy.typing import NDArray

from east.evaluation.significance import Interval, Series

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS, DASHES = "os^Dvpx", ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)), (0, (3, 1, 1, 1)))
STYLE: Any = {
    "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25,
    "legend.frameon": False, "svg.hashsalt": "east", "figure.dpi": 150, "lines.markersize": 4.5, "axes.titlesize": 10,
    "text.parse_math": False,  # a title may be a path with dollars in it
}  # fmt: skip
WIDTH, HEIGHT, COLUMNS = 3.7, 3.2, 3  # inches of a panel; panels in a row
MOST = 5.0  # right end of a histogram of weights, whose mean is 1: one long tail would squeeze all others


class Panel(NamedTuple):
    """One pair of axes. levels: horizontal bands (label, Interval); marks: vertical lines (label, x)."""

    title: str
    x: str
    y: str
    series: list[Series]
    levels: Sequence[tuple[str, Interval]] = ()
    marks: Sequence[tuple[str, float]] = ()
    log2: bool = False


class Histogram(NamedTuple):
    """One pair of axes of a histogram: values by label."""

    title: str
    x: str
    values: dict[str, NDArray[Any]]


def curves(panels: Sequence[Panel], path: Path) -> None:
    """Write path.png and path.svg: a grid of panels with curves."""
    with rc_context(STYLE):
        figure, axes = _grid(len(panels))
        for panel, ax in zip(panels, axes, strict=True):
            _curves(panel, ax)
        _save(figure, path)


def histograms(panels: Sequence[Histogram], path: Path) -> None:
    """Write path.png and path.svg: outlines of each label's histogram, on shared bins; a share of all examples."""
    with rc_context(STYLE):
        figure, axes = _grid(len(panels))
        for panel, ax in zip(panels, axes, strict=True):
            top = max(float(np.quantile(v, 0.995)) for v in panel.values.values())
            count = min(30, max(10, math.isqrt(max(map(len, panel.values.values())))))
            bins = np.linspace(0, min(max(top, 2.0), MOST), count + 1)
            for k, (label, values) in enumerate(panel.values.items()):
                clipped = np.minimum(values, bins[-1])  # the last bin counts the tail
                share = np.full(len(clipped), 1 / len(clipped))
                style = {"color": _of(COLOURS, k), "linestyle": _of(DASHES, k), "linewidth": 1.4}
                ax.hist(clipped, bins, weights=share, histtype="step", label=label, **style)
            ax.axvline(1, color="0.6", linewidth=0.8)
            ax.set(title=panel.title, xlabel=panel.x, ylabel="share of examples")
            ax.yaxis.set_major_formatter(PercentFormatter(1))
            _legend(ax)
        _save(figure, path)


def _of(cycle: Sequence[Any], k: int) -> Any:
    return cycle[k % len(cycle)]


def _grid(count: int) -> tuple[Figure, list[Any]]:
    columns = min(COLUMNS, count)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(max(4.6, WIDTH * columns), HEIGHT * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for spare in axes.flat[count:]:
        spare.set_visible(False)
    return figure, list(axes.flat[:count])


def _curves(panel: Panel, ax: Any) -> None:
    for k, (label, level) in enumerate(panel.levels):
        ax.axhline(level.mean, color="0.45", linewidth=1, linestyle=_of(DASHES, k + 1), label=label)
        if not math.isnan(level.low):
            ax.axhspan(level.low, level.high, color="0.5", alpha=0.12, linewidth=0)
    for k, line in enumerate(panel.series):
        y = np.array(line.y, dtype=float)
        style = {"color": _of(COLOURS, k), "linestyle": _of(DASHES, k), "linewidth": 1.4, "label": line.label}
        if line.marked:
            bars = np.nan_to_num([y[:, 0] - y[:, 1], y[:, 2] - y[:, 0]])
            style |= {"elinewidth": 0.9, "capsize": 2, "marker": _of(MARKERS, k)}
            ax.errorbar(_beside(panel, k), y[:, 0], bars, **style)
        else:
            ax.plot(line.x, y[:, 0], **style)
            ax.fill_between(line.x, y[:, 1], y[:, 2], color=style["color"], alpha=0.13, linewidth=0)
    for k, (label, x) in enumerate(panel.marks):
        ax.axvline(x, color=_of(COLOURS, k + 3), linestyle=_of(DASHES, k + 2), linewidth=1.3, label=label)
    if panel.log2:
        ax.set_xscale("log", base=2)
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    xs = sorted({x for line in panel.series for x in line.x})
    if len(xs) <= 6:
        ax.set_xticks(xs)
        ax.minorticks_off()
    ax.set(title=panel.title, xlabel=panel.x, ylabel=panel.y)
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    _legend(ax)


def _beside(panel: Panel, k: int) -> list[float]:
    """x of a series, moved a little so that its intervals do not cover those of the others."""
    xs = [math.log2(x) if panel.log2 else x for line in panel.series for x in line.x]
    step = 0.012 * (max(xs) - min(xs)) * (k - (len(panel.series) - 1) / 2)
    return [x * 2**step if panel.log2 else x + step for x in panel.series[k].x]


def _legend(ax: Any) -> None:
    """Below the axes, where it covers nothing."""
    ax.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.17), ncol=3, columnspacing=1.0, handlelength=1.6)


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
    figure.savefig(path.with_suffix(".png"))
