"""The text of a study's report: the summary, Table 1, Figures 3 to 5 and n, written from the numbers."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path

from east.evaluation import significance
from east.evaluation.significance import Interval
from east.report import figures
from east.report.document import Section, Table
from east.report.figures import Panel
from east.study import results
from east.study.results import Row
from east.study.rows import StudyFile, StudyRow, value

Columns = Mapping[str, Callable[[StudyRow], object]]
LEVEL = 0.05
PANEL = ("task", "model", "loss", "n")
SWEEP = (*PANEL, "strategy")
SHOWN = ("table1", "fig3", "fig4", "fig5", "n")  # experiments that have a section here
SEEDS_NOTE = "Points and bars: mean over seeds and its 95 % t interval, for other seeds on the same questions."


def percent(interval: Interval, sign: str = "") -> str:
    """52.3% (50.1% to 54.5%)"""
    if math.isnan(interval.low):
        return f"{interval.mean:{sign}.1%}"
    return f"{interval.mean:{sign}.1%} ({interval.low:{sign}.1%} to {interval.high:{sign}.1%})"


def summary(study: StudyFile, rows: list[Row]) -> Section:
    """What the comparisons show, and which cells are missing."""
    tested = [row for row in rows if row.tested]
    shown = [row for row in tested if row.holm < LEVEL]
    text = []
    if tested:
        text.append(
            f"{len(tested)} comparisons with vanilla self-training; {len(shown)} of them show a difference at "
            f"{LEVEL:.0%} after Holm's correction for all of them."
        )
    for row in shown:
        assert row.gap is not None
        gap = percent(Interval(*row.gap[:3]), "+")
        words = results.conclusion(row, LEVEL)
        text.append(f"{row.task}, {row.model}, {row.loss}: {row.method} is {words} by {gap}, Holm p = {row.holm:.2g}.")
    if len(shown) < len(tested):
        text.append(
            '"No difference shown" does not mean "equal": the interval gives the differences that remain possible.'
        )
    others = dict.fromkeys(name for c in study["cells"] for name in c["in"] if name not in SHOWN)
    if others:
        text.append(
            f"There is no section for {', '.join(others)}: the report has sections for experiments named "
            f"{', '.join(SHOWN)}. The results of other experiments are in the cells' folders."
        )
    states = results.groups(study["cells"], "status")
    text.append("Cells: " + ", ".join(f"{len(cells)} {state}" for (state,), cells in states.items()) + ".")
    failed = [[c["id"], str(c.get("error") or "")] for c in states.get(("failed",), [])]
    return Section("Summary", text, [Table(["failed cell", "error"], failed)] if failed else [])


def table1(rows: list[Row]) -> Section:
    """Table 1 with intervals, paired tests and, where the study states them, the paper's numbers."""
    paper = any(row.paper is not None for row in rows)
    header = ["task", "model", "loss", "method", "seeds", "accuracy (95 %)", "against vanilla (95 %)", "p", "Holm p"]
    header += ["sign-flip p", "conclusion"] + ["paper", "study - paper"] * paper
    lines = []
    for row in rows:
        gap = percent(Interval(*row.gap[:3]), "+") if row.gap else ""
        if row.gap and row.seeds_compared < len(row.accuracies):
            gap += f", {row.seeds_compared} seeds"
        tests = [f"{row.gap.p:.2g}", f"{row.holm:.2g}"] if row.gap and row.tested else ["", ""]
        tests.append(f"{row.flips:.2g}" if row.tested and not math.isnan(row.flips) else "")
        known = bool(row.accuracies)
        accuracy = percent(row.accuracy) if known else ""
        cells = [row.task, row.model, row.loss, row.method, str(len(row.accuracies)), accuracy, gap]
        cells += [*tests, results.conclusion(row, LEVEL)]
        if paper:
            cells.append("" if row.paper is None else f"{row.paper:.1%}")
            cells.append("" if row.paper is None or not known else f"{row.accuracy.mean - row.paper:+.1%}")
        lines.append(cells)
    note = (
        "Accuracy: mean over seeds with its 95 % t interval, for other seeds on the same questions; where there is "
        "only one model, such as a backbone that all seeds share, with Wilson's interval, for other questions. "
        "Difference and p: for other seeds and other questions (two-way table of paired verdicts, Hillis 2007). All "
        "seeds answer the same questions, so a test of the pooled verdicts would count each question once per seed. "
        "With one seed p is McNemar's exact p, for other questions only. Sign-flip p: exact, over seeds only; with S "
        "seeds it is at least 2 / 2^S. Holm p: corrected over all rows that have a p. The backbone is not tested; "
        "where all seeds share it, the results say nothing about other backbones."
    )
    return Section("Table 1", [], [Table(header, lines, note)])


def curves(cells: list[StudyRow], folder: Path) -> list[Section]:
    """Figures 3, 4, 5 and the sweep of n: those that have finished cells. folder: the study's."""
    plots = folder / "figures"
    sections = (make(cells, plots, folder) for make in (figure3, figure4, figure5, figure_n))
    return [section for section in sections if section]


def panels_of(cells: list[StudyRow], keys: tuple[str, ...] = PANEL) -> dict[str, list[StudyRow]]:
    """The cells of each panel of a figure, by the panel's title."""
    return {panel(group[0], keys): group for group in results.groups(cells, *keys).values()}


def panel(cell: StudyRow, keys: tuple[str, ...] = PANEL) -> str:
    """The title of a cell's panel: `easy, tiny, sft, n = 128`; the strategy is left out where it is entropy."""
    values = {key: value(cell, key) for key in keys if (key, value(cell, key)) != ("strategy", "entropy")}
    return ", ".join(f"n = {v}" if key == "n" else str(v) for key, v in values.items())


def tested(
    columns: Columns,
    shown: list[StudyRow],
    others: list[StudyRow],
    folder: Path,
    against: str = "vanilla",
    keys: tuple[str, ...] = results.SETTING,
) -> Table:
    """A row per setting of a sweep: its accuracy, and its difference from those of `others` with the same `keys`.

    columns: the values that name a setting, by header. against: the name of `others`.
    """
    rows = []
    for point in results.points(shown, others, keys, folder):
        gap = percent(Interval(*point.gap[:3]), "+") if point.gap else ""
        p = [f"{point.gap.p:.2g}", f"{point.holm:.2g}"] if point.gap and not math.isnan(point.holm) else ["", ""]
        rows.append([*(str(of(point.cell)) for of in columns.values()), percent(point.accuracy), gap, *p])
    note = (
        f"Accuracy, difference and p as in Table 1. The difference is from {against} with the same "
        f"{', '.join(keys[2:])}. Holm p: corrected over the rows of this table."
    )
    return Table([*columns, "accuracy (95 %)", f"against {against} (95 %)", "p", "Holm p"], rows, note)


def vanilla(cells: list[StudyRow]) -> list[StudyRow]:
    """Done cells without weights."""
    return [c for c in results.done(cells) if c["method"] == "vanilla"]


def baseline(cells: list[StudyRow], one: StudyRow) -> list[tuple[str, Interval]]:
    """The level of vanilla self-training, a line in a panel."""
    same_setting = results.matching(results.done(cells, "table1"), one, PANEL)
    value = results.level(c for c in same_setting if c["method"] == "vanilla")
    return [("vanilla", value)] if value else []


def swept(cells: list[StudyRow], kind: str) -> list[StudyRow]:
    """Done cells of a sweep over exponents."""
    return [c for c in results.done(cells, kind) if c["strategy"] != "uniform" and isinstance(c["a"], int | float)]


def figure3(cells: list[StudyRow], plots: Path, folder: Path) -> Section | None:
    """Accuracy against the exponent on test and held-out rows; the exponent that the held-out rows choose."""
    panels, rows, shown = [], [], list[StudyRow]()
    text = ["The exponent is chosen on held-out rows of the train split, not on the test curve."]
    for title, group in panels_of(swept(cells, "fig3"), SWEEP).items():
        text += left_out(title, group)
        test = results.series(group, "a", lambda c: "test")
        held_out = results.series(group, "a", lambda c: "held-out", "selected")
        marks = []
        if held_out:
            best = results.chosen(held_out[0])
            marks.append((f"chosen: a = {best:g}", best))
            picked = dict(zip(test[0].x, test[0].y, strict=True))[best]
            rows.append([title, "held-out rows", f"{best:g}", percent(picked)])
        same_setting = results.matching(results.done(cells, "fig3"), group[0], SWEEP)
        auto = [c for c in same_setting if c["a"] == "auto" and c["a_found"] is not None]
        shown += [*sorted(group, key=lambda c: float(c["a"] or 0)), *auto]
        if auto:
            exponent = sum(c["a_found"] or 0.0 for c in auto) / len(auto)
            marks.append((f"a: auto = {exponent:.2g}", exponent))
            scored = significance.mean_interval([c["accuracy"] for c in auto])
            rows.append([title, "a: auto (mean over seeds)", f"{exponent:.2g}", percent(scored)])
        panels.append(Panel(title, "exponent a", "accuracy", test + held_out, baseline(cells, group[0]), marks))
    if not panels:
        return None
    figures.curves(panels, plots / "figure_3")
    tables = [Table(["panel", "chosen by", "a", "test accuracy (95 %)"], rows)] if rows else []
    columns = {"panel": lambda c: panel(c, SWEEP), "a": results.exponent}
    tables.append(tested(columns, shown, vanilla(cells), folder))
    caption = f"Accuracy against the exponent. {SEEDS_NOTE}"
    return Section("Figure 3: the exponent", text, tables, plots / "figure_3", caption)


def left_out(title: str, group: list[StudyRow]) -> list[str]:
    """A sentence on the examples that a < 0 leaves out, where the cells say how many."""
    negative = [c for c in group if float(c["a"] or 0) < 0 and c.get("examples_left_out") is not None]
    if not negative:
        return []
    kept, lost = (sum(value(c, k) for c in negative) / len(negative) for k in ("examples", "examples_left_out"))
    return [
        f"{title}: a < 0 leaves out {lost:,.0f} of {kept + lost:,.0f} examples (mean over cells): their value is 0."
    ]


def figure4(cells: list[StudyRow], plots: Path, folder: Path) -> Section | None:
    """Accuracy over rounds; round 0 is the backbone."""
    panels, shown = [], list[StudyRow]()
    for title, group in panels_of([c for c in results.done(cells, "fig4") if c["loss"]]).items():
        shown += sorted(group, key=lambda c: c["round"])
        known = {c["seed"] for c in group}
        of_task = results.matching(results.done(cells), group[0], ("task", "model"))
        backbones = [c for c in of_task if c["method"] == "backbone"]
        copies = results.by_seed([c for c in backbones if c["seed"] in known], folder)
        start = results.over_seeds(list(copies.values())) if copies else None
        lines = results.series(group, "round", results.name_of, start=start)
        panels.append(Panel(title, "round", "accuracy", lines))
    if not panels:
        return None
    figures.curves(panels, plots / "figure_4")
    caption = (
        f"Accuracy after each round of n responses per question; round 0 is the backbone. {SEEDS_NOTE} A backbone that "
        "all seeds share is one model: its bar is Wilson's interval, for other questions."
    )
    columns = {"panel": panel, "round": lambda c: c["round"], "method": results.name_of}
    table = tested(columns, shown, vanilla(cells), folder)
    return Section("Figure 4: rounds", [], [table], plots / "figure_4", caption)


def figure5(cells: list[StudyRow], plots: Path, folder: Path) -> Section | None:
    """Entropy, accuracy and rejection weights at several exponents, as a figure and a table."""
    panels, shown = [], list[StudyRow]()
    for title, group in panels_of(swept(cells, "fig5")).items():
        shown += sorted(group, key=lambda c: float(c["a"] or 0))
        lines = results.series(group, "a", lambda c: c["strategy"])
        panels.append(Panel(title, "exponent a", "accuracy", lines, baseline(cells, group[0])))
    if not panels:
        return None
    figures.curves(panels, plots / "figure_5")
    columns = {"panel": panel, "weights by": lambda c: c["strategy"], "a": results.exponent}
    entropy = [c for c in shown if c["strategy"] == "entropy"]
    others = [c for c in shown if c["strategy"] != "entropy"]
    tables = [tested(columns, shown, vanilla(cells), folder)]
    if entropy and others:
        tables.append(tested(columns, others, entropy, folder, "entropy", (*results.SETTING, "a")))
    caption = f"Accuracy by strategy and exponent. {SEEDS_NOTE}"
    return Section("Figure 5: entropy, accuracy, rejection", [], tables, plots / "figure_5", caption)


def figure_n(cells: list[StudyRow], plots: Path, folder: Path) -> Section | None:
    """Accuracy against the number of responses per question, with the number of trained examples."""
    panels, shown, keys = [], list[StudyRow](), PANEL[:-1]
    for title, group in panels_of([c for c in results.done(cells, "n") if c["loss"]], keys).items():
        shown += sorted(group, key=lambda c: c["n"])
        lines = results.series(group, "n", results.name_of)
        panels.append(Panel(title, "responses per question n", "accuracy", lines, log2=True))
    if not panels:
        return None
    figures.curves(panels, plots / "responses")

    def trained(cell: StudyRow) -> str:
        members = results.matching(shown, cell, (*keys, "method", "a", "n"))
        counts = [count for c in members if (count := c.get("examples")) is not None]
        return f"{sum(counts) / len(counts):,.0f}" if counts else ""

    columns = {"panel": lambda c: panel(c, keys), "n": lambda c: c["n"], "method": results.name_of}
    table = tested({**columns, "trained examples (mean over seeds)": trained}, shown, vanilla(cells), folder)
    caption = (
        f"Accuracy against n. {SEEDS_NOTE} A question is trained on only if one of its n responses is right, so "
        "the number of trained questions differs with n (see the table), and a curve shows more than the effect of "
        "better weights. At each n vanilla and EAST train on the same questions."
    )
    return Section("Responses per question", [], [table], plots / "responses", caption)
