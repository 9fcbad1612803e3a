"""Table 1, curves and sentences of a synthetic study, compared with values computed from its verdicts."""

import json
import math

import numpy as np
import pytest
from markupsafe import escape

from east.evaluation import significance
from east.report import compose, figures, study_text, weights_by_question
from east.run import config
from east.study import plan, results, study_file
from east.study.ledger import Ledger
from tests import synthetic_study
from tests.conftest import ROOT, command


@pytest.fixture(scope="session")
def study(tmp_path_factory):
    """A synthetic study with hostile texts, after `east report`: (folder, printed text)."""
    folder = synthetic_study.write(tmp_path_factory.mktemp("synthetic"), seeds=3, lift=0.25, hostile=True)
    done = command("python", "-m", "east", "report", "--study", folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, done.stdout


def rows_of(folder):
    return results.table1(results.read(folder), folder)


def test_table1_is_that_of_the_verdicts(study):
    """Means, differences and p from the folders' own numbers; Holm over the methods, not over the backbone."""
    folder, _ = study
    rows = {(r.task, r.method): r for r in rows_of(folder)}
    assert [m for t, m in rows if t == "easy"] == ["backbone", "vanilla", "LW(W)", "LW(P)", "EAST a = 1"]
    cells = [c for c in json.loads((folder / "study.json").read_text())["cells"] if "table1" in c["in"]]

    def right(method):
        chosen = [c for c in cells if (c["task"], c["method"]) == ("easy", method) and c["a"] in (None, 1.0)]
        tables = [results.verdicts(folder, c) for c in chosen]
        return np.array([[table[q] for q in tables[0]] for table in tables], dtype=float)

    gap = right("east") - right("vanilla")
    row = rows["easy", "EAST a = 1"]
    assert row.accuracy == pytest.approx(significance.mean_interval(right("east").mean(axis=1)))
    assert row.gap == pytest.approx(significance.crossed(gap)) and row.gap.mean == pytest.approx(gap.mean())
    assert row.flips == 2 / 2**3 and row.seeds_compared == 3
    family = [r for r in rows.values() if r.tested]
    assert len(family) == 6 and {r.method for r in family} == {"LW(W)", "LW(P)", "EAST a = 1"}
    assert [r.holm for r in family] == pytest.approx(significance.holm([r.gap.p for r in family]))
    assert row.paper == 0.5 and rows["hard", "EAST a = 1"].paper is None


def test_seeds_are_paired_by_number_not_by_position(study, tmp_path):
    """Cells in another order are the same study."""
    folder, _ = study
    read = results.read(folder)
    reversed_study = {**read, "cells": read["cells"][::-1]}
    rows, reversed_rows = ({(r.task, r.method): r for r in results.table1(s, folder)} for s in (read, reversed_study))
    for key, row in rows.items():
        assert row.gap == (reversed_rows[key].gap and pytest.approx(reversed_rows[key].gap))


def test_a_seed_that_only_one_side_has_is_not_compared(study):
    folder, _ = study
    read = results.read(folder)
    read["cells"] = [c for c in read["cells"] if (c["method"], c["seed"]) != ("vanilla", 2)]
    east = next(r for r in results.table1(read, folder) if r.method == "EAST a = 1")
    assert (east.seeds_compared, len(east.accuracies)) == (2, 3)
    shown = study_text.table1([east]).tables[0].rows[0]
    assert ", 2 seeds" in shown[6]


def test_one_seed_is_compared_over_questions_alone(study):
    """7 gained and 1 lost of 100: McNemar 18/256, no sign flips; Wilson's interval of 50 of 100 is 40.4 to 59.6 %."""
    baseline = {str(k): k < 44 for k in range(100)}
    verdicts = {str(k): 1 <= k < 51 for k in range(100)}
    gap, flips, seeds = results.compared({0: verdicts}, {0: baseline})
    assert (gap.mean, gap.p, seeds) == (pytest.approx(0.06), 18 / 256, 1) and math.isnan(flips)
    for tables in ([verdicts], [verdicts, verdicts]):  # a backbone that two seeds share is one model
        assert results.over_seeds(tables) == pytest.approx((0.5, 0.4038, 0.5962), abs=1e-4)
    assert results.over_seeds([verdicts, baseline]) == pytest.approx(significance.mean_interval([0.5, 0.44]))


def test_other_questions_are_refused():
    tables = {0: {"a": True, "b": False}, 1: {"a": True, "c": False}}
    with pytest.raises(ValueError, match="different test questions"):
        results.compared(tables, tables)


def row_of(mean, holm):
    gap = significance.Paired(mean, mean - 0.01, mean + 0.01, holm, 4)
    interval = significance.Interval(0.5, 0.4, 0.6)
    return results.Row("easy", "tiny", "sft", "EAST", [0.5] * 5, interval, gap, 5, 0.0625, True, holm, None)


def test_conclusions_need_a_corrected_p_below_5_percent():
    words = {results.conclusion(row_of(mean, holm)) for mean, holm in ((0.3, 0.051), (-0.3, 0.05))}
    assert words == {"no difference shown"}
    assert results.conclusion(row_of(0.01, 0.04)) == "above vanilla"
    assert results.conclusion(row_of(-0.01, 0.04)) == "below vanilla"
    nothing = study_text.summary({"cells": []}, [row_of(0.3, 0.2)]).text
    assert "0 of them show a difference" in nothing[0] and 'not mean "equal"' in nothing[1]


def test_different_weightings_have_different_names():
    cell = {"method": "east", "strategy": "entropy", "a": 0.5}
    changes = ({}, {"a": "auto"}, {"strategy": "accuracy"}, {"method": "lw_p", "a": None})
    names = [results.name_of({**cell, **change}) for change in changes]
    assert names == ["EAST a = 0.5", "EAST a = auto", "EAST (accuracy) a = 0.5", "LW(P)"]
    settings = [config.Weighting(**w).model_dump() for w in (
        {"strategy": "uniform"}, {"a": 1.0}, {"entropy": "chao_shen"}, {"a": "auto"}, {"a": "auto", "min_ess": 0.8},
        {"strategy": "accuracy", "entropy": "chao_shen", "mapping": "mean"}, {"mapping": "linear", "spread": 1.5},
    )]  # fmt: skip
    assert [weights_by_question.described(each) for each in settings] == [
        "vanilla", "entropy a = 1", "entropy (chao_shen) a = 1", "entropy a = auto", "entropy a = auto, min_ess = 0.8",
        "accuracy mean", "entropy linear R = 1.5",
    ]  # fmt: skip


def test_a_sweep_of_one_models_copies_has_wilsons_interval(tmp_path):
    """Seeds that share every verdict are one model: its interval is of other questions, as in Table 1."""
    cells = [{"id": str(s), "task": "t", "model": "m", "loss": "sft", "n": 4, "round": 1, "method": "vanilla",
              "strategy": "uniform", "a": None, "seed": s, "status": "done", "eval": f"eval/{s}"}
             for s in (0, 1)]  # fmt: skip
    for cell in cells:
        synthetic_study.write_eval(tmp_path / cell["eval"], np.array([True, True, False]), "test")
    (point,) = results.points(cells, cells, results.SETTING, tmp_path)
    assert point.accuracy == pytest.approx((2 / 3, *significance.wilson(2, 3))) and point.gap is None


def test_exponent_is_chosen_on_held_out_rows():
    """Of exponents with equal means the one nearest to 0 is chosen."""
    points = [significance.Interval(v, math.nan, math.nan) for v in (0.4, 0.6, 0.6)]
    assert results.chosen(significance.Series("held-out", [-1.0, 1.5, 1.0], points)) == 1.0


def test_curves_are_means_over_seeds():
    points = ((1.0, 0, 0.4), (0.5, 0, 0.7), (1.0, 1, 0.6))
    cells = [{"id": f"{a} {seed}", "a": a, "seed": seed, "accuracy": v, "s": "x"} for a, seed, v in points]
    (line,) = results.series(cells, "a", lambda c: c["s"], start=significance.Interval(0.1, 0.0, 0.2))
    assert (line.label, line.x, line.y[0].mean) == ("x", [0.0, 0.5, 1.0], 0.1)
    assert line.y[2] == pytest.approx(significance.mean_interval([0.4, 0.6])) and math.isnan(line.y[1].low)
    with pytest.raises(ValueError, match="'0.5 0' and '0.5 0' are both x at a = 0.5 of seed 0 in one figure"):
        results.series([*cells, cells[1]], "a", lambda c: c["s"])


@pytest.fixture(scope="module")
def panels(study):
    """What `east report` draws of the synthetic study: panels by figure and title, histograms too, and its sections."""
    drawn = {}
    with pytest.MonkeyPatch.context() as patch:
        for kind in ("curves", "histograms"):
            patch.setattr(figures, kind, lambda panels, path: drawn.update({path.name: {p.title: p for p in panels}}))
        patch.setattr(compose, "write", lambda title, sections, sets, folder: drawn.update(sections=sections))
        compose.report_study(study[0])
    return drawn


def by_hand(study, kind, key="eval", **wanted):
    """Mean and t interval over seeds of the accuracies in the folders of an experiment's cells with these values."""
    rows = json.loads((study[0] / "study.json").read_text())["cells"]
    rows = [c for c in rows if c["status"] == "done" and kind in c["in"] and wanted.items() <= c.items()]
    assert len(rows) == 3, wanted
    accuracies = [json.loads((study[0] / c[key] / "results.json").read_text())["accuracy"] for c in rows]
    return pytest.approx(significance.mean_interval(accuracies))


def test_figure_3_chooses_on_held_out_rows_and_shows_both_curves(study, panels):
    """Held-out rows choose 2, the test split would choose 1; auto is the mean over the three seeds' 1.3, 1.5,
    1.7. The band is vanilla's and not LW(W)'s."""
    for task in ("easy", "hard"):
        panel = panels["figure_3"][f"{task}, tiny, sft, n = 16"]
        test, held_out = panel.series
        assert (test.label, held_out.label) == ("test", "held-out")
        assert test.x == held_out.x == [-1.0, 0.5, 1.0, 2.0]
        for line, key in ((test, "eval"), (held_out, "eval_select")):
            for a, y in zip(line.x, line.y, strict=True):
                assert y == by_hand(study, "fig3", key, task=task, a=a)
        assert test.x[np.argmax([y.mean for y in test.y])] == 1.0
        assert panel.marks == [("chosen: a = 2", 2.0), ("a: auto = 1.5", pytest.approx(1.5))]
        ((label, band),) = panel.levels
        assert label == "vanilla" and band == by_hand(study, "table1", task=task, method="vanilla")
        assert band != by_hand(study, "table1", task=task, method="lw_w")
    (section,) = [s for s in panels["sections"] if s.title.startswith("Figure 3")]
    auto = results.level(c for c in results.read(study[0])["cells"] if (c["task"], c["a"]) == ("easy", "auto"))
    assert ["easy, tiny, sft, n = 16", "a: auto (mean over seeds)", "1.5", study_text.percent(auto)] in (
        section.tables[0].rows
    )


def test_figure_4_starts_at_the_backbone(study, panels):
    """Round 0 is one model for all seeds: Wilson's interval. The other rounds are means over seeds, at n = 8."""
    for task in ("easy", "hard"):
        lines = {line.label: line for line in panels["figure_4"][f"{task}, tiny, sft, n = 8"].series}
        assert list(lines) == ["vanilla", "EAST a = 1"]
        cells = json.loads((study[0] / "study.json").read_text())["cells"]
        backbone = next(c for c in cells if (c["task"], c["method"]) == (task, "backbone"))
        result = json.loads((study[0] / backbone["eval"] / "results.json").read_text())
        for line, method in zip(lines.values(), ("vanilla", "east"), strict=True):
            assert line.x == [0.0, 1.0, 2.0, 3.0]
            assert line.y[0] == pytest.approx((result["accuracy"], *result["wilson_95"]))
            for number, y in zip(line.x[1:], line.y[1:], strict=True):
                assert y == by_hand(study, "fig4", task=task, method=method, round=number)


def test_figure_5_has_a_line_per_strategy(study, panels):
    panel = panels["figure_5"]["easy, tiny, sft, n = 16"]
    assert [line.label for line in panel.series] == ["entropy", "accuracy", "rejection"]
    for line in panel.series:
        assert line.x == [0.5, 1.0]
        for a, y in zip(line.x, line.y, strict=True):
            assert y == by_hand(study, "fig5", task="easy", strategy=line.label, a=a)
    assert panel.levels[0][1] == by_hand(study, "table1", task="easy", method="vanilla")


def test_figure_of_n_has_vanilla_and_east_and_counts_trained_examples(study, panels):
    """The synthetic cells train on 34 + n examples."""
    panel = panels["responses"]["hard, tiny, sft"]
    assert [line.label for line in panel.series] == ["vanilla", "EAST a = 1"]
    for line, method in zip(panel.series, ("vanilla", "east"), strict=True):
        assert line.x == [4.0, 8.0, 16.0]
        for n, y in zip(line.x, line.y, strict=True):
            assert y == by_hand(study, "n", task="hard", method=method, n=n)
    (section,) = [s for s in panels["sections"] if s.title == "Responses per question"]
    rows = [row[:4] for row in section.tables[0].rows if row[0] == "hard, tiny, sft"]
    assert rows == [["hard, tiny, sft", n, m, c] for n, c in (("4", "38"), ("8", "42"), ("16", "50"))
                    for m in ("vanilla", "EAST a = 1")]  # fmt: skip
    assert "the number of trained questions differs with n" in section.caption


def test_every_sweep_is_compared_with_vanilla_of_its_own_n_and_round(study, panels):
    """Each row's difference is that of the two methods' verdicts; Holm's p is over the rows of one table."""
    cells = results.read(study[0])["cells"]
    shown = {s.title[:8]: s.tables for s in panels["sections"] if s.title.startswith(("Figure", "Responses"))}
    tables = {title: of_section[title == "Figure 3"] for title, of_section in shown.items()}
    order = {"Figure 3": ["-1", "0.5", "1", "2", "auto"], "Figure 4": ["1", "1", "2", "2", "3", "3"],
             "Figure 5": ["0.5"] * 3 + ["1"] * 3, "Response": ["4", "4", "8", "8", "16", "16"]}  # fmt: skip
    for title, wanted in order.items():
        place = 2 if title == "Figure 5" else 1
        for task in ("easy", "hard"):
            assert [r[place] for r in tables[title].rows if r[0].startswith(task)] == wanted, title
        printed = [(float(row[-2]), float(row[-1])) for row in tables[title].rows if row[-2]]
        assert [p for _, p in printed] == pytest.approx(significance.holm([p for p, _ in printed]), rel=0.05)

    def verdicts(**wanted):
        chosen = [c for c in cells if c["status"] == "done" and wanted.items() <= c.items()]
        assert [c["seed"] for c in chosen] == [0, 1, 2]
        return np.array([list(results.verdicts(study[0], c).values()) for c in chosen], dtype=float)

    east, vanilla = (verdicts(task="hard", method=m, n=8, round=2, loss="sft") for m in ("east", "vanilla"))
    gap = significance.crossed(east - vanilla)
    (row,) = [r for r in tables["Figure 4"].rows if r[:3] == ["hard, tiny, sft, n = 8", "2", "EAST a = 1"]]
    assert row[3:6] == [study_text.percent(significance.mean_interval(east.mean(axis=1))),
                        study_text.percent(significance.Interval(*gap[:3]), "+"), f"{gap.p:.2g}"]  # fmt: skip
    assert all(row[-3:] == ["", "", ""] for row in tables["Figure 4"].rows if row[2] == "vanilla")
    rejection, entropy = (verdicts(task="easy", strategy=s, a=0.5, n=16, round=1) for s in ("rejection", "entropy"))
    gap = significance.crossed(rejection - entropy)
    of_entropy = {tuple(r[1:3]): r for r in shown["Figure 5"][1].rows if r[0].startswith("easy")}
    assert list(of_entropy) == [(s, a) for a in ("0.5", "1") for s in ("accuracy", "rejection")]
    row = of_entropy["rejection", "0.5"]
    assert row[4:6] == [study_text.percent(significance.Interval(*gap[:3]), "+"), f"{gap.p:.2g}"]


def test_effective_sample_sizes_are_each_strategys_own(study, panels):
    lines = {line.label: line for line in panels["effective_sample_size"]["easy, tiny"].series}
    assert list(lines) == ["entropy", "accuracy", "rejection"]
    runs = [study[0] / "cells" / f"easy-{seed}" / "round_1" for seed in range(3)]
    for strategy, line in lines.items():
        shares = []
        for run in runs:
            rows = weights_by_question.graded_rows(run / "graded")
            dataset = weights_by_question.dataset_of(run / "weights" / "sft" / "uniform")
            values, _, _ = weights_by_question.example_values(strategy, rows, dataset)
            shares.append(weights_by_question.effective_shares(values, [2.0])[0])
        assert line.y[line.x.index(2.0)] == pytest.approx(significance.mean_interval(shares))
    assert len({round(line.y[-1].mean, 6) for line in lines.values()}) == 3


def test_histograms_hold_the_main_exponent(panels):
    shown = list(panels["weights"]["easy, tiny: entropy"].values)
    assert shown == [f"entropy a = {a}" for a in ("-1", "0.5", "1", "2")]


def test_the_page_holds_every_table_and_figure(study, panels):
    """Every cell of every table as text, and an SVG for every figure."""
    page = (study[0] / "report.html").read_text()
    titles = [section.title for section in panels["sections"]]
    expected = ["Summary", "Table 1", "Figure 3: the exponent", "Figure 4: rounds",
                "Figure 5: entropy, accuracy, rejection", "Responses per question", "Weights",
                "Effective sample size"]  # fmt: skip
    assert titles == expected
    for section in panels["sections"]:
        assert f"<h2>{escape(section.title)}</h2>" in page
        for table in section.tables:
            for row in table.rows:
                assert "".join(f"<td>{escape(cell)}</td>" for cell in row) in page
        assert section.figure is None or f"<figcaption>{escape(section.caption)}</figcaption>" in page
    assert page.count('src="data:image/svg+xml;base64,') == 6 == sum(s.figure is not None for s in panels["sections"])


def test_cells_at_another_n_have_a_panel_of_their_own_and_a_seed_twice_is_refused(study, tmp_path):
    """n = 16 and n = 128 of one sweep are not one point; two cells of one seed at one point are an error."""
    folder, _ = study
    read = results.read(folder)
    sweep = [c for c in read["cells"] if "fig5" in c["in"] and c["task"] == "easy"]
    other = [{**c, "id": c["id"] + "-128", "n": 128} for c in sweep]
    titles = study_text.panels_of(sweep + other)
    assert list(titles) == ["easy, tiny, sft, n = 16", "easy, tiny, sft, n = 128"]
    assert [len(group) for group in titles.values()] == [len(sweep)] * 2
    with pytest.raises(ValueError, match="in one figure; give them experiments of their own"):
        study_text.figure5([*sweep, {**sweep[0], "id": "other"}], tmp_path, study[0])


def test_experiments_without_a_section_are_named(study):
    read = results.read(study[0])
    assert not any("There is no section for" in line for line in study_text.summary(read, []).text)
    read["cells"][0]["in"] = ["table1", "ablation"]
    assert any("There is no section for ablation: the report has sections for experiments named table1, fig3" in line
               for line in study_text.summary(read, []).text)  # fmt: skip


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
    ],
)
def test_broken_studies_end_in_one_line(study, tmp_path, change, message):
    folder, _ = study
    (tmp_path / "study.json").write_text(change((folder / "study.json").read_text()))
    if not (tmp_path / "cells").exists():
        (tmp_path / "cells").symlink_to(folder / "cells")
    with pytest.raises(ValueError, match=message) as error:
        compose.report_study(tmp_path)
    assert "\n" not in str(error.value)


def test_a_study_that_has_just_started_is_reported(study, tmp_path):
    """Only backbones are done: no comparison, no figure, no explorer, and the report says so."""
    folder, _ = study
    begun = json.loads((folder / "study.json").read_text())
    for cell in begun["cells"]:
        cell["status"] = "done" if cell["method"] == "backbone" else "waiting"
    (tmp_path / "study.json").write_text(json.dumps(begun))
    (tmp_path / "cells").symlink_to(folder / "cells")
    compose.report_study(tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "Cells: 6 done" in text and not (tmp_path / "figures").exists()
    assert "| easy | tiny | sft | EAST a = 1 | 0 |  |  |  |  |  |  | 50.0% |  |" in text
    assert 'id="questions" hidden' in (tmp_path / "report.html").read_text()


def test_before_the_first_cell_the_papers_numbers_are_next_to_an_empty_column(tmp_path):
    """study_llama.yaml: two models, two tasks, and for each of three losses a backbone, vanilla, LW(W), LW(P) and EAST:
    60 rows. The authors print 2 x 2 backbones (each listed under three losses) and 2 x 2 x 3 x 2 others."""
    study = study_file.load(str(ROOT / "configs" / "study_llama.yaml"), [f"folder={tmp_path}"])
    Ledger(study, plan.expand(study))
    compose.report_study(tmp_path)
    rows = results.table1(results.read(tmp_path), tmp_path)
    assert len(rows) == 2 * 2 * 3 * 5 and all(row.accuracies == [] for row in rows)
    assert sum(row.paper is not None for row in rows) == 2 * 2 * 3 * 3
    shown = study_text.table1(rows).tables[0].rows
    assert {tuple(row[4:11]) for row in shown} == {("0", "", "", "", "", "", "")}
    by_row = {tuple(row[:4]): row[-2:] for row in shown}
    assert by_row["gsm8k", "llama-1b", "dpo", "EAST a = 1.5"] == ["51.9%", ""]
    assert by_row["math", "llama-8b", "kto", "backbone"] == ["50.4%", ""]
    assert by_row["math", "llama-8b", "kto", "vanilla"] == ["48.9%", ""]
    assert by_row["gsm8k", "llama-8b", "sft", "LW(P)"] == ["", ""]
    assert "| gsm8k | llama-1b | sft | EAST a = 1.5 | 0 |" in (tmp_path / "report.md").read_text()


def test_names_with_dollars_and_underscores_are_drawn_as_they_are(tmp_path):
    """matplotlib reads text between two dollars as mathematics: $x_{$ would end the report."""
    line = significance.Series("$x_{$", [1.0, 2.0], [significance.Interval(0.5, 0.4, 0.6)] * 2)
    figures.curves([figures.Panel("runs/$a_b$/$x_{$", "$^$", "accuracy", [line], log2=True)], tmp_path / "curves")
    figures.histograms([figures.Histogram("$x_{$", "weight", {"$y_{$": np.ones(9)})], tmp_path / "histograms")
    assert "runs/$a_b$/$x_{$" in (tmp_path / "curves.svg").read_text()


def test_no_study_and_no_config_say_what_to_give(tmp_path):
    with pytest.raises(ValueError, match="no such file; run `python -m east study"):
        compose.report_study(tmp_path)
