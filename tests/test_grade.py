"""Graded questions: clusters are a partition around the gold, h, A and R by hand, hostile streams."""

import json
import math
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from east.grading.grade import Grading, Summary, grade
from tests.test_answer_keys import HOSTILE


def question(gold: str, answers: list[str | None], **fields: Any) -> dict[str, Any]:
    texts = ["I do not know." if answer is None else f"\\boxed{{{answer}}}" for answer in answers]
    n = len(texts)
    return {
        "question": "q",
        "gold": gold,
        "sample": list(range(n)),
        "text": texts,
        "finish_reason": ["stop"] * n,
    } | fields


def graded(gold: str, answers: list[str | None], **options: Any) -> dict[str, Any]:
    (found,) = grade([question(gold, answers)], **options)
    return found


def test_entropy_accuracy_and_rejection_by_hand() -> None:
    """8 responses: four say 1/2 in three spellings, two say 1, one says 2, one nothing.

    p = 4/8, 2/8, 1/8, 1/8, so h = 1/2 ln 2 + 1/4 ln 4 + 2/8 ln 8 = (1/2 + 1/2 + 3/4) ln 2 = 1.75 ln 2;
    A = 1/2; R = 2/8, the share of the answer 1.
    """
    found = graded(r"\frac12", ["1/2", "0.5", r"\dfrac{1}{2}", "1/2", "1", "1.0", "2", None])
    assert found["entropy"] == pytest.approx(1.75 * math.log(2), abs=1e-15)
    assert (found["accuracy"], found["rejection"], found["k"], found["n"]) == (0.5, 0.25, 4, 8)
    assert found["cluster"] == [0, 0, 0, 0, 1, 1, found["cluster"][6], found["cluster"][7]]
    assert sorted(found["cluster"][6:]) == [2, 3]
    assert found["correct"] == [True] * 4 + [False] * 4
    assert found["clusters"][0] == {"answer": "1/2", "count": 4, "correct": True, "kind": "number"}
    assert found["clusters"][1] == {"answer": "1", "count": 2, "correct": False, "kind": "number"}
    assert found["source"] == ["boxed"] * 7 + ["none"]
    assert found["answer"][-1] is None


def test_all_right_and_all_wrong() -> None:
    right, wrong = graded("3", ["3", "3.0"]), graded("3", ["4", "4"])
    assert (right["entropy"], right["accuracy"], right["rejection"], right["k"]) == (0.0, 1.0, 0.0, 1)
    assert (wrong["entropy"], wrong["accuracy"], wrong["rejection"], wrong["k"]) == (0.0, 0.0, 1.0, 1)


def test_missing_answers_are_one_cluster_or_each_its_own_or_left_out() -> None:
    """Two right, two missing: p = 1/2, 1/2; or 1/2, 1/4, 1/4 (h = 1.5 ln 2); or the right ones alone."""
    answers = ["5", None, "5", None]
    cluster, own, excluded = (
        graded("5", answers, missing=policy) for policy in ("cluster", "own", "excluded")
    )
    assert cluster["entropy"] == pytest.approx(math.log(2)) and cluster["rejection"] == 0.5
    assert own["entropy"] == pytest.approx(1.5 * math.log(2)) and own["rejection"] == 0.25 and own["k"] == 3
    assert excluded["entropy"] == 0.0 and excluded["accuracy"] == 1.0 and excluded["rejection"] == 0.0
    assert excluded["cluster"] == [0, -1, 0, -1] and excluded["correct"] == [True, False, True, False]
    nothing = graded("5", [None, None], missing="excluded")
    assert (nothing["k"], nothing["entropy"], nothing["accuracy"], nothing["clusters"]) == (0, 0.0, 0.0, [])


def test_a_missing_answer_never_matches_an_empty_gold() -> None:
    assert graded("", [None, "", "3"])["correct"] == [False, False, False]


def test_gold_conventions_never_pool_two_wrong_answers() -> None:
    """33 % is the gold 0.33, and so is 0.33; 33 alone is not, and stays outside the gold's cluster."""
    found = graded("0.33", ["33\\%", "0.33", "33"])
    assert found["correct"] == [True, True, False] and found["k"] == 2
    away = graded("5", ["33\\%", "0.33", "33"])
    assert away["correct"] == [False] * 3 and away["k"] == 2, "33 % and 33 are one spelling of one answer"


def test_no_tolerance_between_predictions() -> None:
    assert graded("10{,}000", ["9999", "9998.57", "9999.857", "10000"])["k"] == 4
    assert graded("1", ["0.3333333333333333", "1/3", "0.333333333333333"])["k"] == 3


def test_a_rounded_decimal_is_right_but_rounded_decimals_are_no_cluster() -> None:
    found = graded(r"\frac{\sqrt3}{2}", ["0.8660254037844386", r"\sqrt{3}/2", "0.866"])
    assert found["correct"] == [True, True, False] and found["reasons"]["rounded decimal"] == 1
    assert graded(r"\frac{\sqrt3}{2}", ["0.8660254037844386"], rounded_digits=0)["correct"] == [False]


@pytest.mark.parametrize(
    ("gold", "answer", "option"),
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
def test_each_convention_can_be_turned_off(gold: str, answer: str, option: dict[str, Any]) -> None:
    assert graded(gold, [answer, gold])["correct"] == [True, True]
    assert graded(gold, [answer, gold], **option)["correct"] == [False, True]


def test_units() -> None:
    assert graded(r"17\text{ meters}", ["17 feet", "17 m", "17", "18 m"])["correct"] == [
        False,
        True,
        True,
        False,
    ]
    assert graded(r"17\text{ meters}", ["17 feet"], units="ignored")["correct"] == [True]
    assert graded(r"\$2.50", [r"250\text{ cents}", r"2.5\text{ cents}"])["correct"] == [True, False]


answers = st.sampled_from(
    [
        "1",
        "1.0",
        "01",
        "2/2",
        "2",
        "0.5",
        r"\frac12",
        "50\\%",
        "1, 2",
        "2, 1",
        r"\{1, 2\}",
        "(1,2)",
        "[1,2]",
        "x=1",
    ]
    + [
        "odd",
        r"\text{Odd}",
        "$1",
        "1 cm",
        "x < 2",
        r"(-\infty,2)",
        "11_2",
        "11",
        "0.50",
        "???",
        "1,000",
        "1000",
    ]
)


@settings(max_examples=150, deadline=None)
@given(answers, st.lists(st.none() | answers, min_size=1, max_size=10), st.randoms(use_true_random=False))
def test_clusters_are_a_partition_around_the_gold(
    gold: str, drawn: list[str | None], random_: random.Random
) -> None:
    """Equal answers share a cluster, which has one verdict; A is one share; order changes nothing."""
    found = graded(gold, drawn)
    n = len(drawn)
    assert sum(cluster["count"] for cluster in found["clusters"]) == n
    for index, cluster in enumerate(found["clusters"]):
        members = [i for i in range(n) if found["cluster"][i] == index]
        assert len(members) == cluster["count"] > 0
        assert {found["correct"][i] for i in members} == {cluster["correct"]}
    for i, one in enumerate(drawn):
        for j, other in enumerate(drawn):
            if one == other:
                assert found["cluster"][i] == found["cluster"][j]
    assert sum(cluster["correct"] for cluster in found["clusters"]) <= 1
    assert found["accuracy"] == sum(found["correct"]) / n
    assert (found["entropy"] == 0) == (found["k"] == 1)
    order = list(range(n))
    random_.shuffle(order)
    again = graded(gold, [drawn[i] for i in order])
    for field in ("clusters", "entropy", "accuracy", "rejection", "k", "reasons"):
        assert again[field] == found[field]
    assert again["cluster"] == [found["cluster"][i] for i in order]
    assert graded(gold, [gold])["correct"] == [True], "the gold matches itself"


def test_symbolic_answers_of_one_value_are_one_cluster() -> None:
    found = graded("7", [r"2\sqrt{2}", r"\sqrt{8}", r"\frac{4}{\sqrt2}", "7", r"\sqrt{49}", r"\sqrt{7}"])
    assert found["cluster"] == [0, 0, 0, 1, 1, 2] and found["accuracy"] == pytest.approx(1 / 3)
    assert found["merged"] == 2


def test_questions_stream_in_order_and_in_bounded_batches() -> None:
    """After the first graded question only one batch has been read."""
    read: list[int] = []

    def questions() -> Any:
        for index in range(100):
            read.append(index)
            yield question("1", ["1"], question=str(index))

    stream = grade(questions())
    assert next(stream)["question"] == "0" and len(read) <= 32
    assert [found["question"] for found in stream] == [str(index) for index in range(1, 100)]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"sample": [0]}, "question 'q' has lists of unequal length"),
        ({"gold": None}, "question 'q' has gold None"),
    ],
)
def test_a_broken_question_is_named(broken: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(grade([question("1", ["1", "2"]) | broken]))
    with pytest.raises(ValueError, match="question '\\?' has no question, gold"):
        list(grade([{"sample": [], "text": [], "finish_reason": []}]))


def test_summary_counts_everything_once() -> None:
    summary = Summary(math_verify_sample=10)
    questions = [
        question("5", ["5", "6", None, r"\sqrt{25}"], finish_reason=["stop", "stop", "length", "stop"]),
        question(r"\text{ellipse}", ["an ellipse", "circle"]),
    ]
    list(grade(questions, summary=summary))
    report = summary.report()
    assert (report["questions"], report["responses"], report["correct"]) == (2, 6, 3)
    assert report["accuracy"] == 0.5 and report["missing"] == 1 and report["truncated"] == 1
    assert report["sources"] == {"boxed": 5, "hash": 0, "the answer is": 0, "last number": 0, "none": 1}
    assert report["timeouts"] == report["empty_gold"] == report["excluded"] == 0
    h = [-(0.5 * math.log(0.5) + 2 * 0.25 * math.log(0.25)), math.log(2)]
    assert report["mean_entropy"] == pytest.approx(sum(h) / 2)
    assert report["math_verify"]["compared"] == 5 and report["math_verify"]["failed"] == 0
    assert json.loads(json.dumps(report)) == report


def test_the_disagreement_sample_does_not_depend_on_order_and_is_bounded() -> None:
    questions = [question("5", ["5", "6", "7", "8"], question=str(index)) for index in range(20)]
    samples = []
    for order in (questions, questions[::-1]):
        summary = Summary(math_verify_sample=7)
        list(grade(order, summary=summary))
        samples.append({(entry["question"], entry["answer"]) for _, _, entry in summary.sample})
    assert samples[0] == samples[1] and len(samples[0]) == 7


def test_a_disagreement_with_math_verify_is_listed() -> None:
    """Math-Verify reads neither side of 4:30 p.m. as a time."""
    summary = Summary(math_verify_sample=5)
    list(grade([question(r"\text{4:30 p.m.}", [r"4:30 \text{ p.m.}", "5"])], summary=summary))
    listed = summary.report()["math_verify"]
    assert listed["disagree"] == 1
    assert (
        listed["disagreements"][0]["answer"] == r"4:30 \text{ p.m.}" and listed["disagreements"][0]["correct"]
    )


def test_hostile_answers_are_wrong_quickly_and_cost_only_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every hostile answer beside two good ones, in one stream; nothing is executed."""
    monkeypatch.chdir(tmp_path)
    extra = [
        r"e^{10^{10^{10}}}",
        r"\sin(10^{100000})",
        "(x+1)^{10000000}",
        "100000000!",
        r"\binom{2^{60}}{2^{59}}",
    ]
    hostile = [*HOSTILE.values(), *extra]
    start = time.perf_counter()
    found = list(grade([question("3", ["3", text, r"\sqrt{9}"], question=text[:20]) for text in hostile]))
    assert time.perf_counter() - start < 20
    for name, one in zip([*HOSTILE, *extra], found, strict=True):
        assert (name, one["correct"]) == (name, [True, False, True])
    assert list(tmp_path.iterdir()) == []


def test_a_value_that_takes_too_long_is_wrong_and_counted() -> None:
    """The greatest common divisor of two numbers of a million bits takes longer than 0.1 s."""
    summary = Summary(math_verify_sample=0)
    slow = r"\frac{1}{3^{600000}}+\frac{1}{7^{300000}}"
    (found,) = grade([question("3", ["3", slow, r"\sqrt{9+0\pi}"])], summary=summary, timeout_s=0.1)
    assert found["correct"] == [True, False, True]
    assert found["timeouts"] == summary.report()["timeouts"] == 1


def test_importing_the_grader_imports_no_algebra_system() -> None:
    heavy = "'sympy', 'math_verify', 'mpmath', 'torch'"
    code = f"import sys, east.grading.grade; print([m for m in ({heavy}) if m in sys.modules])"
    shown = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.strip() == "[]"


def test_options_are_refused_by_name() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'percents'"):
        list(grade([], percents="either"))
    assert Grading().missing == "cluster"
