"""The results of a study: Table 1 and the curves of Figures 3 to 5, from study.json and the folders it names."""

import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from east.evaluation import significance
from east.evaluation.significance import Interval, Paired, Series
from east.run import files
from east.study.rows import StudyFile, StudyRow, value
from east.study.study_file import BACKBONE, METHODS

Verdicts = dict[str, bool]  # question id to right or wrong
FILE = "study.json"
SETTING = ("task", "model", "loss", "n", "round")  # keys in which two compared cells are equal
FIELDS = ("id", "task", "model", "seed", "loss", "method", "strategy", "a", "n", "round", "in", "status", "eval")


class Row(NamedTuple):
    """One line of Table 1. accuracies: empty where no cell is done; accuracy: nan then. gap: this method minus vanilla
    (None for vanilla itself and where there is nothing to compare). paper: the paper's accuracy.
    """

    task: str
    model: str
    loss: str
    method: str
    accuracies: list[float]  # by seed
    accuracy: Interval
    gap: Paired | None
    seeds_compared: int
    flips: float  # sign-flip p over seeds, nan for one seed
    tested: bool  # belongs to the family that Holm's correction covers
    holm: float
    paper: float | None


class Point(NamedTuple):
    """One setting of a sweep, over seeds. gap: this setting minus its baseline, None where there is none. holm: Holm's
    p over the points of the same sweep, nan where nothing was tested.
    """

    cell: StudyRow  # the first seed's
    accuracy: Interval
    gap: Paired | None
    holm: float


Compared = TypeVar("Compared", Row, Point)


def read(folder: Path) -> StudyFile:
    """study.json, each done cell with its `accuracy` (and `selected`, on held-out rows, where it has one).

    Raises ValueError for a missing or broken file, a cell without a field, or a missing result.
    """
    path = folder / FILE
    if not path.exists():
        raise ValueError(f"{path}: no such file; run `python -m east study --config X` first, or correct --study")
    try:
        study: StudyFile = json.loads(path.read_text(encoding="utf-8"))
        cells = study["cells"]
        lacking = [(c.get("id"), f) for c in cells for f in FIELDS if f not in c]
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not a study ({error}); run `python -m east study` again") from None
    if lacking:
        raise ValueError(f"{path}: cell {lacking[0][0]!r} has no {lacking[0][1]!r}; run `python -m east study` again")
    for cell in done(cells):
        cell["accuracy"] = accuracy_of(folder, cell, cell["eval"])
        cell.setdefault("a_found", None)
        if held_out := cell.get("eval_select"):
            cell["selected"] = accuracy_of(folder, cell, held_out)
    return study


def accuracy_of(folder: Path, cell: StudyRow, evaluation: str) -> float:
    """The accuracy in an evaluation folder of a cell. Raises ValueError when it is missing."""
    path = folder / evaluation / "results.json"
    try:
        return float(json.loads(path.read_text(encoding="utf-8"))["accuracy"])
    except (OSError, json.JSONDecodeError, KeyError, TypeError):
        message = f"{path}: no accuracy of cell {cell['id']!r}, which study.json calls done; run the study again"
        raise ValueError(message) from None


def verdicts(folder: Path, cell: StudyRow) -> Verdicts:
    """The verdicts of a cell's greedy answers."""
    path = folder / cell["eval"] / "graded" / "questions.jsonl"
    return {row["question"]: bool(row["correct"][0]) for row in files.read_jsonl(path)}


def done(cells: Iterable[StudyRow], kind: str | None = None) -> list[StudyRow]:
    """Finished cells, of one table or figure if `kind` is given."""
    return [c for c in cells if c["status"] == "done" and (kind is None or kind in c["in"])]


def groups(cells: Iterable[StudyRow], *keys: str) -> dict[tuple[Any, ...], list[StudyRow]]:
    """Cells by the values of some keys, in order of first appearance."""
    by_values: dict[tuple[Any, ...], list[StudyRow]] = {}
    for cell in cells:
        by_values.setdefault(tuple(value(cell, key) for key in keys), []).append(cell)
    return by_values


def matching(cells: Iterable[StudyRow], one: StudyRow, keys: tuple[str, ...]) -> list[StudyRow]:
    """The cells that have the same values of some keys as one cell."""
    return [c for c in cells if all(value(c, key) == value(one, key) for key in keys)]


def name_of(cell: StudyRow) -> str:
    """LW(W), EAST a = 1, EAST (accuracy) a = 1, ..."""
    name = METHODS[cell["method"]].title if cell["method"] in METHODS else cell["method"]
    if cell["method"] != "east":
        return name
    strategy = "" if cell["strategy"] == "entropy" else f" ({cell['strategy']})"
    return f"{name}{strategy}" + ("" if cell["a"] is None else f" a = {exponent(cell)}")


def exponent(cell: StudyRow) -> str:
    """0.5, 1, auto"""
    return f"{cell['a']:g}" if isinstance(cell["a"], int | float) else str(cell["a"])


def table1(study: StudyFile, folder: Path) -> list[Row]:
    """Every method of every task, model and loss, each compared with vanilla seed by seed, with Holm's p over all.

    A method without a finished cell has a row, too, with the paper's result alone. Raises ValueError where seeds
    answered different questions, or a method has two cells of one seed.
    """
    cells = [c for c in study["cells"] if "table1" in c["in"]]
    backbones = groups([c for c in cells if c["loss"] is None], "task", "model")
    rows: list[Row] = []
    for (task, model, loss), group in groups([c for c in cells if c["loss"]], "task", "model", "loss").items():
        known = {c["seed"] for c in group}
        methods: dict[str, list[StudyRow]] = {}
        for cell in [*(c for c in backbones.get((task, model), []) if c["seed"] in known), *group]:
            methods.setdefault(name_of(cell), []).append(cell)
        vanilla = by_seed(methods.get(METHODS["vanilla"].title, []), folder)
        for method, members in methods.items():
            results = by_seed(members, folder)
            is_vanilla = method == METHODS["vanilla"].title
            gap, flips, shared = (None, math.nan, 0) if is_vanilla else compared(results, vanilla)
            tested = gap is not None and method != BACKBONE and not math.isnan(gap.p)
            paper = paper_accuracy(study, members[0], task, model, loss)
            values = [c["accuracy"] for c in done(members)]
            accuracy = over_seeds(list(results.values())) if results else Interval(math.nan, math.nan, math.nan)
            rows.append(Row(task, model, loss, method, values, accuracy, gap, shared, flips, tested, math.nan, paper))
    return corrected(rows, [row.tested for row in rows])


def points(shown: list[StudyRow], others: list[StudyRow], keys: tuple[str, ...], folder: Path) -> list[Point]:
    """The settings of a sweep's finished cells, in order of first appearance of their `keys`, with Holm's p over all.

    others: finished cells to compare with, matched on `keys` (SETTING and maybe more); a cell is never compared with
    itself. Raises ValueError as `table1` does.
    """
    sweep = []
    for compared_cells in groups(shown, *keys).values():
        baselines = matching(others, compared_cells[0], keys)
        baseline = by_seed(baselines, folder)
        for group in groups(compared_cells, "method", "strategy", "a").values():
            results = by_seed(group, folder)
            gap = None if group[0] in baselines else compared(results, baseline)[0]
            sweep.append(Point(group[0], over_seeds(list(results.values())), gap, math.nan))
    return corrected(sweep, [point.gap is not None and not math.isnan(point.gap.p) for point in sweep])


def corrected(rows: list[Compared], tested: list[bool]) -> list[Compared]:
    """The rows with Holm's p over those that are tested."""
    family = [k for k, is_tested in enumerate(tested) if is_tested]
    for k, p in zip(family, significance.holm([g.p for k in family if (g := rows[k].gap)]), strict=True):
        rows[k] = rows[k]._replace(holm=p)
    return rows


def by_seed(cells: list[StudyRow], folder: Path) -> dict[int, Verdicts]:
    """Verdicts of finished cells by seed. Raises ValueError when two cells of one method have the same seed."""
    tables: dict[int, Verdicts] = {}
    for cell in done(cells):
        if cell["seed"] in tables:
            raise ValueError(f"study.json: {name_of(cell)} of {cell['id']!r} has seed {cell['seed']} twice; keep one")
        tables[cell["seed"]] = verdicts(folder, cell)
    return tables


def over_seeds(tables: list[Verdicts]) -> Interval:
    """Mean accuracy with its interval for other seeds on the same questions; where there is only one model (one seed,
    or a backbone that all seeds share) with Wilson's interval, for other questions.
    """
    if any(table != tables[0] for table in tables):
        return significance.mean_interval([sum(table.values()) / len(table) for table in tables])
    correct, n = sum(tables[0].values()), len(tables[0])
    return Interval(correct / n, *significance.wilson(correct, n))


def compared(results: dict[int, Verdicts], baseline: dict[int, Verdicts]) -> tuple[Paired | None, float, int]:
    """(difference, sign-flip p, seeds) over the seeds that both have: with crossed seeds and questions, or for one seed
    with McNemar's test and the bootstrap's interval, which let only the questions vary.
    """
    seeds = [seed for seed in results if seed in baseline]
    if not seeds:
        return None, math.nan, 0
    questions = list(results[seeds[0]])
    for table in (*(results[s] for s in seeds), *(baseline[s] for s in seeds)):
        if table.keys() != results[seeds[0]].keys():
            raise ValueError(
                f"seeds answered different test questions ({len(questions)} and {len(table)}); a paired test needs "
                "the same rows for every seed: evaluate all on the same task.test_rows"
            )
    d = np.array([[float(results[s][q]) - baseline[s][q] for q in questions] for s in seeds])
    if len(seeds) > 1:
        few = len(seeds) <= significance.MOST_FLIPPED
        return significance.crossed(d), significance.sign_flip(d.mean(axis=1).tolist()) if few else math.nan, len(seeds)
    low, high = significance.paired_bootstrap(d[0] > 0, d[0] < 0)
    p = significance.mcnemar(int((d > 0).sum()), int((d < 0).sum()))
    return Paired(float(d.mean()), low, high, p, math.inf), math.nan, 1


def paper_accuracy(study: StudyFile, cell: StudyRow, task: str, model: str, loss: str) -> float | None:
    """The paper's accuracy of a row, where the study file states it."""
    for row in study.get("paper") or []:
        same = (row.get("task"), row.get("model"), row.get("method")) == (task, model, cell["method"])
        if same and (row.get("loss") == loss or cell["method"] == BACKBONE):
            return float(row["accuracy"])
    return None


def conclusion(row: Row, level: float = 0.05) -> str:
    """What a comparison with vanilla shows, in words."""
    if not row.tested:
        return ""
    assert row.gap is not None
    if row.holm >= level:
        return "no difference shown"
    return "above vanilla" if row.gap.mean > 0 else "below vanilla"


def series(
    cells: Iterable[StudyRow],
    x: str,
    label: Callable[[StudyRow], str],
    y: str = "accuracy",
    start: Interval | None = None,
) -> list[Series]:
    """A line per label: mean over seeds and 95 % t interval of y at each x (start: the value at x = 0).

    Raises ValueError where two cells of one seed belong to one point: a seed counts once.
    """
    lines: dict[str, dict[float, dict[int, StudyRow]]] = {}
    for cell in cells:
        if value(cell, y) is None:
            continue
        point = lines.setdefault(label(cell), {}).setdefault(float(value(cell, x)), {})
        if other := point.get(cell["seed"]):
            raise ValueError(
                f"study.json: {other['id']!r} and {cell['id']!r} are both {label(cell)} at {x} = {value(cell, x)} of "
                f"seed {cell['seed']} in one figure; give them experiments of their own"
            )
        point[cell["seed"]] = cell
    drawn = []
    for name, points in lines.items():
        curve = {0.0: start} if start else {}
        curve |= {k: significance.mean_interval([value(c, y) for c in points[k].values()]) for k in sorted(points)}
        drawn.append(Series(name, list(curve), list(curve.values())))
    return drawn


def level(cells: Iterable[StudyRow], y: str = "accuracy") -> Interval | None:
    """Mean over cells and its interval, if there are any."""
    values = [value(c, y) for c in cells if value(c, y) is not None]
    return significance.mean_interval(values) if values else None


def chosen(held_out: Series) -> float:
    """The exponent with the highest mean on held-out rows; among equals the one nearest to 0."""
    best = max(y.mean for y in held_out.y)
    return min((x for x, y in zip(held_out.x, held_out.y, strict=True) if y.mean == best), key=abs)
