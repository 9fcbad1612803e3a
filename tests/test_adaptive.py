"""Adaptive sampling: a question's responses are the first ones of full sampling, also after interruptions."""

import itertools
import json
import subprocess
import sys

import numpy as np
import pytest

from east.run import config, files, pipeline
from east.run.config import Adaptive
from east.sampling import engines, stopping
from tests import conftest, drawing, stages, synthetic_study
from tests.conftest import ROOT, settings
from tests.stages import folder_of
from tests.test_sampling import contents

N = 9


@pytest.fixture(scope="module")
def full(model_folder, asked, tmp_path_factory):
    """Nine responses to each question, without adaptive sampling."""
    folder = tmp_path_factory.mktemp("full") / "samples"
    drawing.draw(folder, *asked, model_folder, drawing.settings(n=N))
    return list(drawing.read(folder))


def enough(row):
    """A stopping rule that reads only the responses so far, and is met at different numbers of them."""
    return sum(map(len, row["tokens"])) % 3 == 0


def settled(rows):
    return map(enough, rows)


def draw(folder, asked, model_folder, n=N, missing="cluster", **adaptive):
    chosen = Adaptive(**{"first": 2, "more": 3, **adaptive})
    values = drawing.settings(n=n, adaptive=chosen)
    return drawing.draw(folder, *asked, model_folder, values, settled, missing=missing)


def expected(row, n=N):
    """By the definition: the first of 2, 5, 8 and n responses at which the rule is met."""
    first = {key: row[key] for key in ("tokens", "text", "finish_reason", "sample")}
    for k in (2, 5, 8, n):
        cut = {**row, **{key: values[: min(k, n)] for key, values in first.items()}}
        if k >= n or enough(cut):
            return cut
    raise AssertionError


@pytest.fixture(scope="module")
def adaptive(model_folder, asked, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adaptive") / "samples"
    return folder, draw(folder, asked, model_folder)


def test_a_question_has_the_first_responses_of_full_sampling(adaptive, full):
    folder, _ = adaptive
    rows = list(drawing.read(folder))
    assert rows == [expected(row) for row in full]
    assert len({len(row["tokens"]) for row in rows}) >= 3  # questions stop at different numbers
    assert list(drawing.read(folder, 4)) == [expected(row, 4) for row in full]


def test_summary_has_the_share_of_responses_saved(adaptive):
    folder, manifest = adaptive
    numbers = [len(row["tokens"]) for row in drawing.read(folder)]
    assert manifest.summary["responses"] == sum(numbers) and manifest.summary["n"] == N
    assert manifest.summary["share_saved"] == pytest.approx(1 - sum(numbers) / (12 * N))
    assert manifest.summary["questions_with_responses"] == {str(n): numbers.count(n) for n in sorted(set(numbers))}


def test_one_engine_draws_all_passes_and_none_is_started_when_nothing_is_missing(
    adaptive, model_folder, asked, tmp_path, monkeypatch
):
    started, engine = [], engines.ENGINES["transformers"]
    monkeypatch.setitem(engines.ENGINES, "transformers", lambda *a: started.append(a) or engine(*a))
    draw(tmp_path / "s", asked, model_folder)
    assert len(started) == 1
    (tmp_path / "s" / "manifest.json").unlink()
    draw(tmp_path / "s", asked, model_folder)  # killed just before the manifest
    draw(tmp_path / "s", asked, model_folder)
    assert len(started) == 1 and contents(tmp_path / "s") == contents(adaptive[0])


@pytest.mark.parametrize("lines", [0, 1, 7, 12, 13, 17])
def test_sampling_resumes_after_a_kill_in_any_pass_with_the_same_files(
    adaptive, model_folder, asked, tmp_path, monkeypatch, lines
):
    """The engine stops after some lines, and the next line is incomplete; the second run ends with the files of an
    uninterrupted one."""
    whole, engine, counter = adaptive[0], engines.ENGINES["transformers"], itertools.count()
    assert (whole / "responses.jsonl").read_bytes().count(b"\n") > 17

    def interrupted(*arguments):
        def run(requests):
            for drawn in engine(*arguments)(requests):
                if next(counter) == lines:
                    raise KeyboardInterrupt
                yield drawn

        return run

    monkeypatch.setitem(engines.ENGINES, "transformers", interrupted)
    with pytest.raises(KeyboardInterrupt):
        draw(tmp_path / "s", asked, model_folder)
    monkeypatch.setitem(engines.ENGINES, "transformers", engine)
    with (tmp_path / "s" / "responses.jsonl").open("ab") as file:
        file.write(b'{"question": "arith')
    assert not (tmp_path / "s" / "manifest.json").exists()
    draw(tmp_path / "s", asked, model_folder)
    assert contents(tmp_path / "s") == contents(whole)


def test_raising_n_later_equals_the_larger_n_and_nothing_is_drawn_for_a_lower_n(model_folder, asked, full, tmp_path):
    """n = 6 is between two steps: questions with 6 responses continue to 8, where the rule is applied again."""
    draw(tmp_path / "s", asked, model_folder, n=6)
    assert list(drawing.read(tmp_path / "s")) == [expected(row, 6) for row in full]
    assert draw(tmp_path / "s", asked, model_folder).summary["n"] == N
    assert list(drawing.read(tmp_path / "s")) == [expected(row) for row in full]
    assert draw(tmp_path / "s", asked, model_folder, n=3).summary["n"] == N


def test_another_stopping_rule_is_an_error_and_does_not_change_the_folder(adaptive, asked, model_folder):
    folder, _ = adaptive
    before = contents(folder)
    for change in ({"tolerance": 0.5}, {"more": 4}, {"missing": "own"}):
        with pytest.raises(ValueError, match=r"made from something else: adaptive\.\w+"):
            draw(folder, asked, model_folder, **change)
    with pytest.raises(ValueError, match=r"made from something else: adaptive.first: found 2, expected null"):
        drawing.draw(folder, *asked, model_folder, drawing.settings(n=N))
    assert contents(folder) == before


def rows(answers):
    """Questions as `samples.read` yields them, whose responses are boxed answers (None: no answer)."""
    for i, of_question in enumerate(answers):
        text = ["so" if a is None else f"\\boxed{{{a}}}" for a in of_question]
        yield {"question": str(i), "gold": "7", "sample": [*range(len(text))], "text": text,
               "finish_reason": ["stop"] * len(text)}  # fmt: skip


def test_the_stopping_rule_grades_responses_and_compares_the_entropy_with_the_tolerance():
    """Twenty answers of equal value are settled at 0.04. Twenty different answers are not. Twenty responses without an
    answer are settled only where they count as one cluster."""
    answers = [["7"] * 20, ["7", "14/2"] * 10, [*map(str, range(20))], [None] * 20, ["7"] * 19 + ["8"]]
    changes = {"sampling": {"n": 32, "adaptive": {"tolerance": 0.04}}, "grading": {"workers": 1}}
    for missing, none in (("cluster", True), ("own", False), ("excluded", False)):
        changes["grading"]["missing"] = missing
        run = config.parse({"run": "r", "model": {"path": "m"}, **changes})
        rule = stopping.stopping_rule(0.04, run.grading)
        assert list(rule(rows(answers))) == [True, True, False, none, False]
        grading = pipeline.samples(run).settings["adaptive"]["grading"]
        assert grading["missing"] == missing and "workers" not in grading


def test_questions_with_different_numbers_of_responses_are_graded_and_weighed(tiny_model, tmp_path):
    """Right responses: 2 of 2, 1 of 4, 3 of 6, 1 of 8; all wrong answers differ. The mean accuracy is
    (1 + 1/4 + 1/2 + 1/8) / 4, not 7/20; h = 0, ln 4, (ln 2)/2 + 3 (ln 6)/6, ln 8, weights h / mean h."""
    conftest.write_responses(tmp_path / "responses.jsonl", questions=4, responses=8)
    lines = [json.loads(line) for line in (tmp_path / "responses.jsonl").open()]
    right = {row["question"]: row["response"] for row in lines}
    drawn = []
    for (question, solution), (good, n) in zip(right.items(), [(2, 2), (1, 4), (3, 6), (1, 8)], strict=True):
        start = solution.split("\\boxed")[0]
        drawn += [{"question": question, "response": f"{start}\\boxed{{{k - 99}}}"} for k in range(n - good)]
        drawn += [{"question": question, "response": solution}] * good
    (tmp_path / "responses.jsonl").write_text("".join(json.dumps(row) + "\n" for row in drawn))
    run = config.parse(settings(tmp_path, tiny_model, task={"train_rows": [0, 4]}))
    stages.run("grade", run)
    stages.run("index", run)
    stages.run("weigh", run)
    graded = list(files.read_jsonl(run.folder_of("graded") / "questions.jsonl"))
    assert [row["n"] for row in graded] == [2, 4, 6, 8]
    assert [row["accuracy"] for row in graded] == pytest.approx([1, 1 / 4, 1 / 2, 1 / 8])
    assert [row["rejection"] for row in graded] == pytest.approx([0, 1 / 4, 1 / 6, 1 / 8])
    summary = folder_of("graded", run.folder_of("graded")).open().summary
    assert summary["accuracy"] == pytest.approx((1 + 1 / 4 + 1 / 2 + 1 / 8) / 4) and summary["responses"] == 20
    h = np.array([0, np.log(4), 0.5 * np.log(2) + 0.5 * np.log(6), np.log(8)])
    column = np.load(run.folder_of("weights") / "weights.npy")
    assert column == pytest.approx(h / h.mean())


def test_the_benchmark_prints_a_table_and_one_json_line():
    command = [sys.executable, "benchmarks/adaptive.py", "--questions", "40", "--n", "32", "--tolerances", "0.03", "9"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=conftest.environment())
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    fixed = {(row["n"], row["estimator"]): row for row in result["fixed"]}
    assert fixed[32, "plugin"]["rmse"] < fixed[4, "plugin"]["rmse"] and fixed[4, "plugin"]["bias"] < 0
    assert fixed[4, "plugin"]["right_lost"] > fixed[32, "plugin"]["right_lost"] == 0
    fewest = next(row for row in result["adaptive"] if row["tolerance"] == 9)  # no question has more than the first 16
    assert fewest["saved"] == 0.5 and fewest["rmse"] == fixed[16, "plugin"]["rmse"]


def test_the_benchmark_on_a_graded_folder_by_hand(tmp_path):
    """Gold 5. Answers: eight times 5; four times 7 and then four times 5; 5 and 7 in turn; and a question without any
    answer, which is left out. h = 0, ln 2, ln 2, weights 0, 3/2, 3/2. The first four responses give h = 0, 0, ln 2 and
    weights 0, 0, 3: the bias is -(ln 2)/3, the mean error of a weight (0 + 3/2 + 3/2)/3 = 1, and one of three questions
    has lost its right answers."""
    answers = [["5"] * 8, ["7"] * 4 + ["5"] * 4, ["5", "7"] * 4, [None] * 8]
    graded = [synthetic_study.graded_row(f"q/{k}", row, "5") for k, row in enumerate(answers)]
    graded[3] |= {"cluster": [-1] * 8, "clusters": []}
    synthetic_study.write_round(tmp_path, graded, [["t"] * 8] * 4, ["?"] * 4)
    line = [sys.executable, "benchmarks/adaptive.py", "--graded", str(tmp_path / "graded"), "--first", "4"]
    done = subprocess.run([*line, "--tolerances", "9"], cwd=ROOT, capture_output=True, text=True,
                          env=conftest.environment())  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["questions"] == 3 and result["mean_entropy"] == pytest.approx(2 * np.log(2) / 3)
    few, all_ = (row for row in result["fixed"] if row["estimator"] == "plugin")
    assert (few["n"], all_["n"]) == (4, 8) and (all_["rmse"], all_["right_lost"]) == (0, 0)
    assert few["bias"] == pytest.approx(-np.log(2) / 3) and few["weight_error"] == pytest.approx(1)
    assert few["right_lost"] == pytest.approx(1 / 3)
    fewest = next(row for row in result["adaptive"] if row["plan"] == "adaptive")  # stops at the first four
    assert fewest["saved"] == 0.5 and fewest["weight_error"] == pytest.approx(1)


def test_the_benchmark_without_a_graded_folder_is_an_error(tmp_path):
    line = [sys.executable, "benchmarks/adaptive.py", "--graded", str(tmp_path)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, env=conftest.environment())
    assert done.returncode == 2 and "found no questions.jsonl; give a run's round_1/graded" in done.stderr
