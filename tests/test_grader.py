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

from east.grading.grader import Grading, Summary, grade
from tests.test_canonical import HOSTILE


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
    cluster, own, excluded = (graded("5", answers, missing=policy) for policy in ("cluster", "own", "excluded"))
    assert cluster["entropy"] == pytest.approx(math.log(2)) and cluster["rejection"] == 0.5
    assert own["entropy"] == pytest.approx(1.5 * math.log(2)) and own["rejection"] == 0.25 and own["k"] == 3
    assert excluded["entropy"] == 0.0 and excluded["accuracy"] == 1.0 and excluded["rejection"] == 0.0
    assert excluded["cluster"] == [0, -1, 0, -1] and excluded["correct"] == [True, False, True, False]
    nothing = graded("5", [None, None], missing="excluded")
    assert (nothing["k"], nothing["entropy"], nothing["accuracy"], nothing["clusters"]) == (0, 0.0, 0.0, [])


def test_a_missing_answer_never_matches_an_empty_gold() -> None:
    assert graded("", [None, "", "3"])["correct"] == [False, False, False]


def test_gold_conventions_never_pool_two_wrong_answers() -> None:
    """33 % is the gold 0.33, and so is 0.33; 33 alone is not, and stays outside the gold's cluster.

    With another gold 33 % and 33 are one spelling of one answer: a convention moves answers into the gold's cluster
    and never two wrong ones together.
    """
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
def test_clusters_are_a_partition_around_the_gold(gold: str, drawn: list[str | None], random_: random.Random) -> None:
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
    assert report["math_verify"]["compared"] == 6 and report["math_verify"]["failed"] == 0
    assert json.loads(json.dumps(report)) == report


def test_the_disagreement_sample_does_not_depend_on_order_and_is_bounded() -> None:
    questions = [question("5", ["5", "6", "7", "8"], question=str(index)) for index in range(20)]
    samples = []
    for order in (questions, questions[::-1]):
        summary = Summary(math_verify_sample=7)
        list(grade(order, summary=summary))
        samples.append({(entry["question"], entry["answer"]) for _, _, entry in summary.sample})
    assert samples[0] == samples[1] and len(samples[0]) == 7


def test_disagreements_with_math_verify_are_listed_with_the_response() -> None:
    """Math-Verify reads neither side of 4:30 p.m. as a time, and takes 5 from a response without an answer here."""
    summary = Summary(math_verify_sample=5)
    silent = question("5", [None], text=["so it must be $5$ I guess"], question="silent")
    list(grade([question(r"\text{4:30 p.m.}", [r"4:30 \text{ p.m.}", "5"]), silent], summary=summary))
    listed = summary.report()["math_verify"]
    assert listed["disagree"] == 2 and listed["failed"] == 0
    found = {entry["question"]: entry for entry in listed["disagreements"]}
    assert found["q"]["answer"] == r"4:30 \text{ p.m.}" and found["q"]["correct"]
    assert found["silent"]["answer"] is None and not found["silent"]["correct"]
    assert found["silent"]["text"] == "so it must be $5$ I guess"


BINOMIAL = r"\binom{7999}{3999}"
SLOW = "+".join(f"{49_999 - n}!" for n in range(250))  # 250 factorials of 200,000 digits: many seconds
DIVISOR = r"\frac{1}{3^{600000}}+\frac{1}{7^{300000}}"  # a greatest common divisor of a million bits: a second
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
    "a slow value": SLOW,
    "many slow values": "(" + ",".join(f"{DIVISOR}+{n}" for n in range(35)) + ")",
}


@pytest.mark.parametrize("text", [*HOSTILE.values(), *HOSTILE_VALUES.values()], ids=[*HOSTILE, *HOSTILE_VALUES])
def test_a_hostile_answer_is_wrong_within_2_seconds_and_costs_only_itself(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside two good answers; nothing is executed. 2 s: what this process computes and what the child may take."""
    monkeypatch.chdir(tmp_path)
    seconds = 1.0
    worked = time.process_time()
    found = graded("3", ["3", text, r"\sqrt{9}"], workers=1, timeout_s=seconds)
    assert time.process_time() - worked + seconds < 2
    assert found["correct"] == [True, False, True]
    assert list(tmp_path.iterdir()) == []


def test_hostile_megabytes_stay_within_a_gigabyte() -> None:
    """The peak of a process that reads every hostile text, ten megabytes of braces among them."""
    code = (
        "import resource; from tests.test_grader import *\n"
        "texts = [*HOSTILE.values(), *HOSTILE_VALUES.values(), '{}' * 5_000_000, chr(92) + 'a' * 5_000_000]\n"
        "list(grade([question('3', texts)], workers=1))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True
    )
    assert int(shown.stdout) < 1024


def test_a_value_that_takes_too_long_is_wrong_and_counted() -> None:
    """Its child is killed at the deadline; the next value gets a fresh child and is right."""
    summary = Summary(math_verify_sample=0)
    start = time.perf_counter()
    (found,) = grade([question("3", ["3", SLOW, r"\sqrt{9+0\pi}"])], summary=summary, timeout_s=2.0, workers=1)
    assert time.perf_counter() - start < 60
    assert found["correct"] == [True, False, True]
    assert found["timeouts"] == summary.report()["timeouts"] == 1


def test_answers_beyond_the_bounds_are_counted() -> None:
    summary = Summary(math_verify_sample=0)
    beyond = ["(" * 60 + "3" + ")" * 60, "7" * 500, r"\sin(10^{100000})", "3+" * 3000]
    (found,) = grade([question("3", [*beyond, "3", "no solution", None])], summary=summary)
    assert found["out_of_bounds"] == summary.report()["out_of_bounds"] == len(beyond)


def test_what_was_lost_does_not_depend_on_who_asked_first() -> None:
    """One answer holds a slow value and a root; another only the root, which keeps its value in either order."""
    for answers in ([f"({SLOW}, \\sqrt{{2}})", r"\sqrt{2}"], [r"\sqrt{2}", f"({SLOW}, \\sqrt{{2}})"]):
        found = graded(r"2^{1/2}", answers, timeout_s=1.0)
        assert dict(zip(answers, found["correct"], strict=True))[r"\sqrt{2}"] and found["timeouts"] == 1


def test_importing_the_grader_imports_no_algebra_system() -> None:
    heavy = "'sympy', 'math_verify', 'mpmath', 'torch'"
    code = f"import sys, east.grading.grader; print([m for m in ({heavy}) if m in sys.modules])"
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
