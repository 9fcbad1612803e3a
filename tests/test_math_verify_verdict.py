"""The cross-check with Math-Verify: what it finds, where it differs from the grader, and that no text can act."""

import re
from pathlib import Path
from typing import Any

import pytest
from math_verify import parser
from sympy.parsing import sympy_parser

from east.grading import Grading, QuestionToGrade, Summary, grade
from east.grading.workers import Workers

VERDICT = "east.grading.math_verify_verdict:verdict"


def report(*rows: tuple[str, str], **settings: Any) -> dict[str, Any]:
    """The comparison on questions with one response each: (gold answer, response)."""
    chosen = Grading(extraction="boxed", workers=1, **settings)
    questions: list[QuestionToGrade] = [
        {"question": str(k), "gold": gold, "sample": [0], "text": [text], "finish_reason": ["stop"]}
        for k, (gold, text) in enumerate(rows)
    ]
    summary = Summary(chosen)
    list(grade(questions, chosen, summary=summary))
    found: dict[str, Any] = summary.report()["math_verify"]
    return found


def test_an_answer_that_only_one_of_them_finds_is_a_difference() -> None:
    """Extraction from boxes only: of plain sentences Math-Verify finds the number, right or wrong, and the grader
    nothing. Math-Verify does not read a time. In the last response neither finds an answer.
    """
    found = report(
        ("5", r"\boxed{5}"),
        ("5", "So, James has 5 apples."),
        ("5", "So, James has 6 apples."),
        (r"\text{4:30 p.m.}", r"\boxed{4:30 \text{ p.m.}}"),
        ("5", "no idea"),
    )
    counts = {key: value for key, value in found.items() if key != "disagreements"}
    assert counts == {
        "compared": 5, "failed": 0, "found_nothing": 1, "disagree": 3,
        "other_verdict": 1, "only_grader": 0, "only_math_verify": 2,
    }  # fmt: skip
    rows = [(row["question"], row["answer"], row["correct"], row["math_verify"]) for row in found["disagreements"]]
    assert sorted(rows[:2]) == [("1", None, False, True), ("3", r"4:30 \text{ p.m.}", True, False)]
    assert rows[2] == ("2", None, False, False), "listed last: neither takes it to be right"


def test_an_answer_that_only_the_grader_finds_is_listed() -> None:
    found = report(("east", "#### east"), ("east", "#### west"))
    assert (found["found_nothing"], found["only_grader"], found["disagree"]) == (2, 2, 2)
    assert [(row["answer"], row["correct"], row["math_verify"]) for row in found["disagreements"]] == [
        ("east", True, None), ("west", False, None)
    ]  # fmt: skip
    assert len(report(("east", "#### east"), ("east", "#### west"), disagreements=1)["disagreements"]) == 1


def hostile(path: str) -> list[str]:
    """Responses that would write a file if the text in them were evaluated."""
    call = f"__import__('os').system('touch {path}')"
    forms = (
        "{}", "The final answer is {}. I hope it is correct.", "Answer: {}", "answer = 1+{}", "1+(2)*{}", "(1).{}",
        r"$\boxed{{{}}}$", r"\boxed{{{}}}", "${}$", r"$\text{{{}}}$", r"$\{{\text{{{}}}, 2\}}$", "$x_{{{}}}$",
        r"$\gcd(\text{{{}}}, 2)$", r"$f(\text{{{}}})$", r"$1$ and $\text{{{}}}$", r"\[{}\]", "$1 + {}$", "1*2\n+{}",
    )  # fmt: skip
    return [form.format(text) for form in forms for text in (call, f"exec({call!r})", f"[{call}][0]")]


def test_no_response_acts_and_each_is_wrong(tmp_path: Path) -> None:
    responses = hostile(str(tmp_path / "touched"))
    with Workers(VERDICT, count=1, timeout_s=20) as pool:
        outcomes = pool.map([("777", text) for text in responses])
    assert [outcome.value for outcome in outcomes if outcome.status == "ok"] and list(tmp_path.iterdir()) == []
    assert not any(outcome.value for outcome in outcomes)


def test_only_digits_and_operators_of_a_response_reach_sympys_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    """sympy parses texts of its own as well, such as the prefixes of its units: those are plain names."""
    reached = list[str]()
    for module in (parser, sympy_parser):
        original = module.parse_expr
        monkeypatch.setattr(
            module,
            "parse_expr",
            lambda text, *a, original=original, **k: reached.append(text) or original(text, *a, **k),
        )
    parser.parse_expr_cached.cache_clear()
    for text in [*hostile("x"), "so 3*(4+5)-1/2^2", "1e5+3", "1_0+2", "٣+4*(2)"]:
        parser.parse(text)
    assert "3*(4+5)-1/2**2" in reached
    assert [text for text in reached if not re.fullmatch(r"[\d.,\s+*/^()×÷-]+|[A-Za-z]+", text)] == []


@pytest.mark.parametrize(
    "text", ["9**9**9**9", "so 9^9^9^9^9", "((((" * 5000 + "1+2", "1+" * 20_000 + "1", "$9^{9^{9^9}}$"]
)
def test_an_expression_without_end_is_stopped_and_the_next_one_is_read(text: str) -> None:
    with Workers(VERDICT, count=1, timeout_s=2, memory_mb=1024) as pool:
        huge, small = pool.map([("5", text), ("5", "so 5")])
    assert small == ("ok", True) and huge.value is not True


def test_the_process_can_only_compute(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("as it was")
    with Workers("tests.hostile:after_math_verify", count=1, timeout_s=20) as pool:
        assert pool.map([str(tmp_path)]) == [("ok", ["as it was"])]
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
