"""Table 1, curves and sentences from a made study, against what can be worked out from its verdicts."""

import json
import math

import numpy as np
import pytest

from east import comparison, report, statistics, study_sections
from tests import made_study
from tests.conftest import command


@pytest.fixture(scope="session")
def study(tmp_path_factory):
    """A made study with hostile texts, reported by the public command; (folder, what was printed)."""
    folder = made_study.write(tmp_path_factory.mktemp("made"), seeds=3, lift=0.25, hostile=True)
    done = command("python", "-m", "east", "report", "--study", folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, done.stdout


def rows_of(folder):
    return comparison.table1(comparison.read(folder), folder)


def test_table1_is_that_of_the_verdicts(study):
    """Means, differences and p from the folders' own numbers; Holm over the methods, not over the backbone."""
    folder, _ = study
    found = {(r.task, r.method): r for r in rows_of(folder)}
    assert [m for t, m in found if t == "easy"] == ["backbone", "vanilla", "LW(W)", "LW(P)", "EAST a = 1"]
    cells = [c for c in json.loads((folder / "study.json").read_text())["cells"] if "table1" in c["in"]]

    def right(method):
        chosen = [c for c in cells if (c["task"], c["method"]) == ("easy", method) and c["a"] in (None, 1.0)]
        tables = [comparison.verdicts(folder, c) for c in chosen]
        return np.array([[table[q] for q in tables[0]] for table in tables], dtype=float)

    gap = right("east") - right("vanilla")
    row = found["easy", "EAST a = 1"]
    assert row.accuracy == pytest.approx(statistics.mean_interval(right("east").mean(axis=1)))
    assert row.gap == pytest.approx(statistics.crossed(gap)) and row.gap.mean == pytest.approx(gap.mean())
    assert row.flips == 2 / 2**3 and row.seeds_compared == 3
    family = [r for r in found.values() if r.tested]
    assert len(family) == 6 and {r.method for r in family} == {"LW(W)", "LW(P)", "EAST a = 1"}
    assert [r.holm for r in family] == pytest.approx(statistics.holm([r.gap.p for r in family]))
    assert row.paper == 0.5 and found["hard", "EAST a = 1"].paper is None


def test_seeds_are_paired_by_number_not_by_place(study, tmp_path):
    """Cells in another order are the same study."""
    folder, _ = study
    read = comparison.read(folder)
    turned = {**read, "cells": read["cells"][::-1]}
    ours, theirs = ({(r.task, r.method): r for r in comparison.table1(s, folder)} for s in (read, turned))
    for key, row in ours.items():
        assert row.gap == (theirs[key].gap and pytest.approx(theirs[key].gap))


def test_a_seed_that_only_one_side_has_is_not_compared(study):
    folder, _ = study
    read = comparison.read(folder)
    read["cells"] = [c for c in read["cells"] if (c["method"], c["seed"]) != ("vanilla", 2)]
    east = next(r for r in comparison.table1(read, folder) if r.method == "EAST a = 1")
    assert (east.seeds_compared, len(east.accuracies)) == (2, 3)
    shown = study_sections.table1([east]).tables[0].rows[0]
    assert ", 2 seeds" in shown[6]


def test_one_seed_is_compared_over_questions_alone(study):
    """7 gained and 1 lost of 100: McNemar 18/256, no sign flips; Wilson's interval of 50 of 100 is 40.4 to 59.6 %."""
    theirs = {str(k): k < 44 for k in range(100)}
    ours = {str(k): 1 <= k < 51 for k in range(100)}
    gap, flips, seeds = comparison.compared({0: ours}, {0: theirs})
    assert (gap.mean, gap.p, seeds) == (pytest.approx(0.06), 18 / 256, 1) and math.isnan(flips)
    for tables in ([ours], [ours, ours]):  # a backbone that two seeds share is one model
        assert comparison.over_seeds(tables) == pytest.approx((0.5, 0.4038, 0.5962), abs=1e-4)
    assert comparison.over_seeds([ours, theirs]) == pytest.approx(statistics.mean_interval([0.5, 0.44]))


def test_other_questions_are_refused():
    tables = {0: {"a": True, "b": False}, 1: {"a": True, "c": False}}
    with pytest.raises(ValueError, match="different test questions"):
        comparison.compared(tables, tables)


def row_of(mean, holm):
    gap = statistics.Paired(mean, mean - 0.01, mean + 0.01, holm, 4)
    interval = statistics.Interval(0.5, 0.4, 0.6)
    return comparison.Row("easy", "tiny", "sft", "EAST", [0.5] * 5, interval, gap, 5, 0.0625, True, holm, None)


def test_sentences_say_no_more_than_the_numbers():
    words = {comparison.conclusion(row_of(mean, holm)) for mean, holm in ((0.3, 0.051), (-0.3, 0.05))}
    assert words == {"no difference shown"}
    assert comparison.conclusion(row_of(0.01, 0.04)) == "above vanilla"
    assert comparison.conclusion(row_of(-0.01, 0.04)) == "below vanilla"
    nothing = study_sections.summary({"cells": []}, [row_of(0.3, 0.2)]).text
    assert "0 of them show a difference" in nothing[0] and "not \"equal\"" in nothing[1]


def test_exponent_is_chosen_on_held_out_rows():
    """The test split's best (2) does not matter; among equals the one nearest to 0 is taken."""
    points = [statistics.Interval(v, math.nan, math.nan) for v in (0.4, 0.6, 0.6)]
    assert comparison.chosen(statistics.Series("held-out", [-1.0, 1.5, 1.0], points)) == 1.0


def test_curves_are_means_over_seeds():
    cells = [{"a": a, "accuracy": v, "s": "x"} for a, v in ((1.0, 0.4), (0.5, 0.7), (1.0, 0.6))]
    (line,) = comparison.series(cells, "a", lambda c: c["s"], start=statistics.Interval(0.1, 0.0, 0.2))
    assert (line.label, line.x, line.y[0].mean) == ("x", [0.0, 0.5, 1.0], 0.1)
    assert line.y[2] == pytest.approx(statistics.mean_interval([0.4, 0.6])) and math.isnan(line.y[1].low)


def test_report_has_every_table_and_figure(study):
    folder, printed = study
    text = (folder / "report.md").read_text()
    names = ["figure_3", "figure_4", "figure_5", "responses", "weights", "effective_sample_size"]
    for name in names:
        assert f"](figures/{name}.png)" in text
        assert (folder / "figures" / f"{name}.png").stat().st_size > 5000
        assert (folder / "figures" / f"{name}.svg").read_text().startswith("<?xml")
    for words in ("| easy | tiny | sft | EAST a = 1 | 3 |", "held-out rows", "a: auto", "1 failed, 1 waiting", "50.0%"):
        assert words in text, words
    assert "a < 0 leaves out 8 of 58 examples" in text
    assert "easy-s0-broken | out of <b>memory</b> \\| disk" in text
    assert "report.html" in printed and "responses are in this page" in printed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: "{", "not a study"),
        (lambda s: json.dumps({"cells": [{"id": "x"}]}), "cell 'x' has no 'task'"),
        (lambda s: s.replace("/eval/vanilla-uniform-None-16-1", "/eval/gone", 1), "which study.json calls done"),
        (lambda s: s.replace('"done"', '"waiting"'), "no cell is done"),
    ],
)
def test_broken_studies_end_in_one_line(study, tmp_path, change, message):
    folder, _ = study
    (tmp_path / "study.json").write_text(change((folder / "study.json").read_text()))
    if not (tmp_path / "cells").exists():
        (tmp_path / "cells").symlink_to(folder / "cells")
    with pytest.raises(ValueError, match=message) as error:
        report.run_study(tmp_path)
    assert "\n" not in str(error.value)


def test_a_study_that_has_only_begun_is_reported(study, tmp_path):
    """Backbones alone: no comparison, no figure, no page of questions, and the report says so."""
    folder, _ = study
    begun = json.loads((folder / "study.json").read_text())
    for cell in begun["cells"]:
        cell["status"] = "done" if cell["method"] == "backbone" else "waiting"
    (tmp_path / "study.json").write_text(json.dumps(begun))
    (tmp_path / "cells").symlink_to(folder / "cells")
    report.run_study(tmp_path)
    assert "Cells: 6 done" in (tmp_path / "report.md").read_text() and not (tmp_path / "figures").exists()
    assert 'id="questions" hidden' in (tmp_path / "report.html").read_text()


def test_no_study_and_no_config_say_what_to_give(tmp_path):
    with pytest.raises(ValueError, match="no such file; run `python -m east study"):
        report.run_study(tmp_path)
