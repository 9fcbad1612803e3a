"""Graded questions: clusters and verdicts, entropy, accuracy and rejection by hand, hostile answers, the report."""

import json
import math
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from east.grading import GradedQuestion, Grading, QuestionToGrade, Summary, grade, with_string_match
from east.grading.extraction import SOURCES
from tests.test_canonical import HOSTILE


def question(gold: str, answers: Sequence[str | None], /, **fields: Any) -> QuestionToGrade:
    texts = ["I do not know." if answer is None else f"\\boxed{{{answer}}}" for answer in answers]
    n = len(texts)
    row: QuestionToGrade = {
        "question": "q",
        "gold": gold,
        "sample": list(range(n)),
        "text": texts,
        "finish_reason": ["stop"] * n,
    }
    return {**row, **fields}  # type: ignore[typeddict-item]


def graded(gold: str, answers: Sequence[str | None], **changes: Any) -> GradedQuestion:
    (row,) = grade([question(gold, answers)], Grading(**changes))
    return row


def summarized(questions: list[QuestionToGrade], **changes: Any) -> tuple[list[GradedQuestion], Summary]:
    """The graded questions and their summary."""
    chosen = Grading(**changes)
    summary = Summary(chosen)
    return list(grade(questions, chosen, summary=summary)), summary


def test_entropy_accuracy_and_rejection_by_hand() -> None:
    """8 responses: four say 1/2 in three spellings, two say 1, one says 2, one nothing.

    p = 4/8, 2/8, 1/8, 1/8, so h = 1/2 ln 2 + 1/4 ln 4 + 2/8 ln 8 = (1/2 + 1/2 + 3/4) ln 2 = 1.75 ln 2;
    A = 1/2; R = 2/8, the share of the answer 1.
    """
    row = graded(r"\frac12", ["1/2", "0.5", r"\dfrac{1}{2}", "1/2", "1", "1.0", "2", None])
    assert row["entropy"] == pytest.approx(1.75 * math.log(2), abs=1e-15)
    assert (row["accuracy"], row["rejection"], row["k"], row["n"]) == (0.5, 0.25, 4, 8)
    assert row["cluster"] == [0, 0, 0, 0, 1, 1, row["cluster"][6], row["cluster"][7]]
    assert sorted(row["cluster"][6:]) == [2, 3]
    assert row["correct"] == [True] * 4 + [False] * 4
    assert row["clusters"][0] == {"answer": "1/2", "count": 4, "correct": True, "kind": "number"}
    assert row["clusters"][1] == {"answer": "1", "count": 2, "correct": False, "kind": "number"}
    assert row["source"] == ["boxed"] * 7 + ["none"]
    assert row["answer"][-1] is None


def test_all_right_and_all_wrong() -> None:
    right, wrong = graded("3", ["3", "3.0"]), graded("3", ["4", "4"])
    assert (right["entropy"], right["accuracy"], right["rejection"], right["k"]) == (0.0, 1.0, 0.0, 1)
    assert (wrong["entropy"], wrong["accuracy"], wrong["rejection"], wrong["k"]) == (0.0, 0.0, 1.0, 1)


def test_missing_answers_are_one_cluster_or_a_cluster_each_or_left_out() -> None:
    """Two right, two missing: p = 1/2, 1/2; or 1/2, 1/4, 1/4 (h = 1.5 ln 2); or only the right ones."""
    answers = ["5", None, "5", None]
    cluster, own, excluded = (graded("5", answers, missing=policy) for policy in ("cluster", "own", "excluded"))
    assert cluster["entropy"] == pytest.approx(math.log(2)) and cluster["rejection"] == 0.5
    assert own["entropy"] == pytest.approx(1.5 * math.log(2)) and own["rejection"] == 0.25 and own["k"] == 3
    assert excluded["entropy"] == 0.0 and excluded["accuracy"] == 1.0 and excluded["rejection"] == 0.0
    assert excluded["cluster"] == [0, -1, 0, -1] and excluded["correct"] == [True, False, True, False]
    nothing = graded("5", [None, None], missing="excluded")
    assert (nothing["k"], nothing["entropy"], nothing["accuracy"], nothing["clusters"]) == (0, 0.0, 0.0, [])


def test_a_missing_answer_never_matches_an_empty_gold() -> None:
    assert graded("", [None, "", "3"])["correct"] == [False, False, False]


def test_conventions_do_not_change_the_clusters_of_wrong_answers() -> None:
    """With gold answer 0.33, 33 % and 0.33 are right and 33 is wrong. With another one, 33 % and 33 are one cluster."""
    row = graded("0.33", ["33\\%", "0.33", "33"])
    assert row["correct"] == [True, True, False] and row["k"] == 2
    row = graded("5", ["33\\%", "0.33", "33"])
    assert row["correct"] == [False] * 3 and row["k"] == 2 and row["cluster"][0] == row["cluster"][2]


def test_no_tolerance_between_predictions() -> None:
    assert graded("10{,}000", ["9999", "9998.57", "9999.857", "10000"])["k"] == 4
    assert graded("1", ["0.3333333333333333", "1/3", "0.333333333333333"])["k"] == 3


def test_a_rounded_decimal_may_match_the_gold_answer() -> None:
    row = graded(r"\frac{\sqrt3}{2}", ["0.8660254037844386", r"\sqrt{3}/2", "0.866"])
    assert row["correct"] == [True, True, False] and row["reasons"]["rounded decimal"] == 1
    assert graded(r"\frac{\sqrt3}{2}", ["0.8660254037844386"], rounded_digits=0)["correct"] == [False]


@pytest.mark.parametrize(
    ("gold", "answer", "change"),
    [
        ("1, 2", "2, 1", {"list_order": "kept"}),
        ("0.25", "25\\%", {"percent": "sign"}),
        ("25", "25\\%", {"percent": "value"}),
        ("152A_{11}", "152A", {"base": "required"}),
        ("256", "2^8", {"unevaluated": "different"}),
        ("370", "220+150", {"unevaluated": "different"}),
        (r"\frac13", "0.3333333333", {"rounded_digits": 0}),
    ],
)
def test_each_convention_can_be_turned_off(gold: str, answer: str, change: dict[str, Any]) -> None:
    assert graded(gold, [answer, gold])["correct"] == [True, True]
    assert graded(gold, [answer, gold], **change)["correct"] == [False, True]


def test_units() -> None:
    assert graded(r"17\text{ meters}", ["17 feet", "17 m", "17", "18 m"])["correct"] == [False, True, True, False]
    assert graded(r"17\text{ meters}", ["17 feet"], units="ignored")["correct"] == [True]
    assert graded(r"\$2.50", [r"250\text{ cents}", r"2.5\text{ cents}"])["correct"] == [True, False]


NUMBERS = ["1", "1.0", "01", "2/2", "2", "0.5", r"\frac12", "0.50", "1,000", "1000", "11_2", "11", "-1", "one", "3 1/2"]
LISTS = ["1, 2", "2, 1", r"\{1, 2\}", "(1,2)", "[1,2]", "1 and 2", "x=1, x=2", r"1\text{ or }2", "x=1, y=2", "y=2, x=1"]
RADICALS = [
    r"\sqrt{2}", "√2", "2^{1/2}", r"\frac{2}{\sqrt2}", "1.4142135623730951", "sqrt(2)", r"\sqrt[3]{8}", r"2\pi", "2 pi",
    r"\pm 1", "-1, 1", r"1 \pm \sqrt{2}", r"1+\sqrt2, 1-\sqrt2", "i", r"\mathrm{i}", "e", r"3\text{i}", r"\sqrt{-9}",
]  # fmt: skip
UNITS = [
    "$1", "1 cm", "1 m", r"1\text{ m}", "1m", "1 m/s", "1 ft/s", r"1 \frac{\text{m}}{\text{s}}", "100 cents",
    "1 hours 30 minutes", "1 dozen", "1 thirds", r"1\text{ to }2", "1 or more", "50\\%", "50", "1 am",
    "1 dollar", "1 pm", "1:00 pm",
]  # fmt: skip
RELATIONS = [
    "x < 2", r"(-\infty,2)", "f(x)<2", "t<2", "2>x", "x<2 and x>1", "x<2 or x>1", "1<x<2", "(1,2)", r"x \le 2", "x=1",
    "y=1", "y=2x", "2x=y", "f(x)=2x", "2x", "x=y", "y=x", "f(1)<f(2)", "f(2)>f(1)",
]  # fmt: skip
WORDS = ["odd", r"\text{Odd}", "???", "The answer is 1", "The answer isn't 1", "x is greater than 1", "C", "C)", "(C)"]
answers = st.sampled_from(NUMBERS + LISTS + RADICALS + UNITS + RELATIONS + WORDS)


@settings(max_examples=60, deadline=None)
@given(answers, st.lists(st.none() | answers, min_size=1, max_size=10), st.randoms(use_true_random=False))
def test_clusters_are_a_partition(gold: str, drawn: list[str | None], random_: random.Random) -> None:
    """Equal answers share a cluster, a cluster has one verdict, A is one share, and nothing depends on the order."""
    n = len(drawn)
    order = list(range(n))
    random_.shuffle(order)
    row, again, gold_row = grade([question(gold, a) for a in (drawn, [drawn[i] for i in order], [gold])], Grading())
    assert sum(cluster["count"] for cluster in row["clusters"]) == n
    for index, cluster in enumerate(row["clusters"]):
        members = [i for i in range(n) if row["cluster"][i] == index]
        assert len(members) == cluster["count"] > 0
        assert {row["correct"][i] for i in members} == {cluster["correct"]}
    for i, one in enumerate(drawn):
        for j, other in enumerate(drawn):
            if one == other:
                assert row["cluster"][i] == row["cluster"][j]
    assert sum(cluster["correct"] for cluster in row["clusters"]) <= 1
    assert row["accuracy"] == sum(row["correct"]) / n
    assert (row["entropy"] == 0) == (row["k"] == 1)
    per_response = {"sample", "answer", "source", "truncated", "cluster", "correct"}
    assert {k: v for k, v in again.items() if k not in per_response} == {
        k: v for k, v in row.items() if k not in per_response
    }
    assert again["cluster"] == [row["cluster"][i] for i in order]
    assert gold_row["correct"] == [True], "the gold answer matches itself"


def test_symbolic_answers_of_one_value_are_one_cluster() -> None:
    row = graded("7", [r"2\sqrt{2}", r"\sqrt{8}", r"\frac{4}{\sqrt2}", "7", r"\sqrt{49}", r"\sqrt{7}"])
    assert row["cluster"] == [0, 0, 0, 1, 1, 2] and row["accuracy"] == pytest.approx(1 / 3)
    assert row["merged"] == 2


def test_questions_stream_in_order_and_in_bounded_batches() -> None:
    """When the first graded question is returned, only one batch has been read."""
    read: list[int] = []

    def questions() -> Any:
        for index in range(100):
            read.append(index)
            yield question("1", ["1"], question=str(index))

    stream = grade(questions(), Grading())
    assert next(stream)["question"] == "0" and len(read) <= 32
    assert [row["question"] for row in stream] == [str(index) for index in range(1, 100)]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"sample": [0]}, "question 'q' has lists of different lengths"),
        ({"gold": None}, "question 'q' has gold None"),
    ],
)
def test_a_broken_question_is_named(broken: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(grade([question("1", ["1", "2"], **broken)], Grading()))
    with pytest.raises(ValueError, match="question '\\?' has no question, gold"):
        list(grade([{"sample": [], "text": [], "finish_reason": []}], Grading()))  # type: ignore[typeddict-item]


def test_summary_counts_everything_once() -> None:
    questions = [
        question("5", ["5", "6", None, r"\sqrt{25}"], finish_reason=["stop", "stop", "length", "stop"]),
        question(r"\text{ellipse}", ["an ellipse", "circle"]),
    ]
    _, summary = summarized(questions, math_verify_sample=10)
    report = summary.report()
    assert (report["questions"], report["responses"], report["correct"]) == (2, 6, 3)
    assert report["accuracy"] == 0.5 and report["missing"] == 1 and report["truncated"] == 1
    assert report["sources"] == {source: 0 for source in SOURCES} | {"boxed": 5, "none": 1}
    assert report["timeouts"] == report["empty_gold"] == report["excluded"] == 0
    h = [-(0.5 * math.log(0.5) + 2 * 0.25 * math.log(0.25)), math.log(2)]
    assert report["mean_entropy"] == pytest.approx(sum(h) / 2)
    assert report["math_verify"]["compared"] == 6 and report["math_verify"]["failed"] == 0
    assert json.loads(json.dumps(report)) == report


def test_the_disagreement_sample_does_not_depend_on_order_and_is_bounded() -> None:
    questions = [question("5", ["5", "6", "7", "8"], question=str(index)) for index in range(20)]
    samples = []
    for order in (questions, questions[::-1]):
        _, summary = summarized(order, math_verify_sample=7)
        samples.append({(entry["question"], entry["answer"]) for entry in summary.sample.entries()})
    assert samples[0] == samples[1] and len(samples[0]) == 7


def test_disagreements_with_math_verify_are_listed_with_the_response() -> None:
    """Math-Verify does not read 4:30 p.m. as a time, and finds a 5 where the grader finds no answer."""
    silent = question("5", [None], text=["so it must be $5$ I guess"], question="silent")
    _, summary = summarized([question(r"\text{4:30 p.m.}", [r"4:30 \text{ p.m.}", "5"]), silent], math_verify_sample=5)
    listed = summary.report()["math_verify"]
    assert listed["disagree"] == 2 and listed["failed"] == 0
    listing = {entry["question"]: entry for entry in listed["disagreements"]}
    assert listing["q"]["answer"] == r"4:30 \text{ p.m.}" and listing["q"]["correct"]
    assert listing["silent"]["answer"] is None and not listing["silent"]["correct"]
    assert listing["silent"]["text"] == "so it must be $5$ I guess"


BINOMIAL = r"\binom{7999}{3999}"
DIVISOR = r"\frac{1}{3^{600000}}+\frac{1}{7^{300000}}"  # a greatest common divisor of a million bits: a second
SLOW = "(" + ",".join(f"{DIVISOR}+{n}" for n in range(35)) + ")"  # many seconds
HOSTILE_VALUES = {
    "exponential tower": r"e^{10^{10^{10}}}",
    "sine of a large number": r"\sin(10^{100000})",
    "large power": "(x+1)^{10000000}",
    "large factorial": "100000000!",
    "large binomial": r"\binom{2^{60}}{2^{59}}",
    "binomials in an inequality": "2x<" + "+".join([BINOMIAL] * 105),
    "binomials in a set": r"\{" + ",".join([BINOMIAL] * 100) + r"\}",
    "binomials behind a sign": r"\pm(" + "+".join([BINOMIAL] * 100) + ")",
    "factorials in a sum": "+".join(["799!"] * 300),
    "a product of matrices": r"\begin{pmatrix}1&x\\y&0\end{pmatrix}" * 50,
    "nested products of matrices": "(" * 20 + r"\begin{pmatrix}1&x\\y&0\end{pmatrix})" * 20,
    "nested sums": r"\sum_{a=1}^{99}\sum_{b=1}^{99}\sum_{c=1}^{99}\sum_{d=1}^{99}abcd",
    "nested determinants": r"\begin{vmatrix}1&2&3\\" * 20 + "1" + r"&5&6\\7&8&9\end{vmatrix}" * 20,
    "a sum of vectors": "+".join(["(1,x)(y,2)"] * 150),
    "a slow value": DIVISOR,
    "many slow values": SLOW,
}


@pytest.mark.parametrize("text", [*HOSTILE.values(), *HOSTILE_VALUES.values()], ids=[*HOSTILE, *HOSTILE_VALUES])
def test_a_hostile_answer_is_wrong_within_2_seconds_and_changes_no_other_verdict(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No code in an answer is executed. 2 s: the time of this process, and the child process's limit."""
    monkeypatch.chdir(tmp_path)
    seconds = 1.0
    worked = time.process_time()
    row = graded("3", ["3", text, r"\sqrt{9}"], workers=1, timeout_s=seconds)
    assert time.process_time() - worked + seconds < 2
    assert row["correct"] == [True, False, True]
    assert list(tmp_path.iterdir()) == []


def test_hostile_megabytes_stay_within_a_gigabyte() -> None:
    """The peak memory of a process that grades all hostile texts, and ten megabytes of braces."""
    code = (
        "import resource; from tests.test_grader import *\n"
        "texts = [*HOSTILE.values(), *HOSTILE_VALUES.values(), '{}' * 5_000_000, chr(92) + 'a' * 5_000_000]\n"
        "list(grade([question('3', texts)], Grading(workers=1)))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True
    )
    assert int(shown.stdout) < 1024


def test_a_value_that_takes_too_long_is_wrong_and_counted() -> None:
    """Its child process is killed at the deadline; the next value gets a new child process and is right."""
    start = time.perf_counter()
    answers = ["3", SLOW, r"\sqrt{9+0\pi}"]
    (row,), summary = summarized([question("3", answers)], timeout_s=2.0, workers=1, math_verify_sample=0)
    assert time.perf_counter() - start < 60
    assert row["correct"] == [True, False, True]
    assert row["timeouts"] == summary.report()["timeouts"] == 1


def test_answers_beyond_the_bounds_are_counted() -> None:
    beyond = ["(" * 60 + "3" + ")" * 60, "7" * 500, r"\sin(10^{100000})", "3+" * 3000]
    (row,), summary = summarized([question("3", [*beyond, "3", "no solution", None])], math_verify_sample=0)
    assert row["out_of_bounds"] == summary.report()["out_of_bounds"] == len(beyond)


def test_a_timeout_does_not_depend_on_the_order_of_answers() -> None:
    """One answer contains a slow value and a root, another the root alone, which has its value in either order."""
    for answers in ([f"({SLOW}, \\sqrt{{2}})", r"\sqrt{2}"], [r"\sqrt{2}", f"({SLOW}, \\sqrt{{2}})"]):
        row = graded(r"2^{1/2}", answers, timeout_s=1.0)
        assert dict(zip(answers, row["correct"], strict=True))[r"\sqrt{2}"] and row["timeouts"] == 1


def test_string_match_compares_normalised_strings() -> None:
    """1/2 and 0.5 have the value of the gold answer \\frac12, and only \\frac{1}{2} has its string."""
    row = with_string_match(graded(r"\frac12", [r"\frac{1}{2}", "0.5", "3", None]))
    assert row["string_match"] == [True, False, False, False] and row["correct"] == [True, True, False, False]


def test_importing_grading_imports_no_algebra_system_and_no_torch() -> None:
    heavy = "'sympy', 'math_verify', 'mpmath', 'torch'"
    code = f"import sys, east.grading; print([m for m in ({heavy}) if m in sys.modules])"
    shown = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True
    )
    assert shown.stdout.strip() == "[]"


def test_unknown_settings_and_values_out_of_range_are_refused() -> None:
    for change, message in (({"percents": "either"}, "percents"), ({"timeout_s": float("inf")}, "timeout_s")):
        with pytest.raises(ValueError, match=message):
            Grading(**change)


def test_a_thought_that_does_not_end_is_a_cut_response():
    """Counted as truncated, without an answer; with `thinking` the prompt has opened the thought."""
    texts = [r"<think>\boxed{7}", r"<think>8</think>\boxed{8}", r"\boxed{8}"]
    row = {"question": "q", "gold": "8", "sample": [0, 1, 2], "text": texts, "finish_reason": ["stop"] * 3}
    (graded,) = grade([row], Grading(workers=1))
    assert graded["truncated"] == [True, False, False] and graded["answer"] == [None, "8", "8"]
    (graded,) = grade([{**row, "thinking": True}], Grading(workers=1))
    assert graded["truncated"] == [True, False, True] and graded["answer"] == [None, "8", None]
