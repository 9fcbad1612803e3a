"""Extraction: which part of a response is its final answer."""

import gzip
import json
import time
from pathlib import Path

import pytest

from east.grading.extraction import MAX_ANSWER, extract, gold_answer

DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so $\boxed{42}$.", "42"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\{1,2\}}", r"\{1,2\}"),
        (r"\fbox{7}", "7"),
        (r"\boxed 3", "3"),
        (r"\boxed{9} was wrong, so \boxed{8}.", "8"),
        (r"\boxed{8}. Check: 4 and 4 is 8, 9 is not.", "8"),
        (r"\boxed{\boxed{3}}", "3"),
        (r"\boxed{4}, then \boxed{}", "4"),
        (r"\boxed{\sqrt{2}", r"\sqrt{2}"),
    ],
)
def test_the_last_box_that_is_not_empty_is_the_answer(text: str, answer: str) -> None:
    assert extract(text)[:2] == (answer, "boxed")


def test_boxes_joined_by_connectives_are_one_list_or_the_last_of_them() -> None:
    text = r"So $x=\boxed{2}$ and $y=\boxed{3}$."
    assert extract(text).text == "2, 3"
    assert extract(text, boxes="last").text == "3"
    assert extract(r"\boxed{2} or rather \boxed{3}").text == "3"
    assert extract(r"\boxed{3.5} or \boxed{7/2}").text == "7/2", "or: one answer in two forms"
    assert extract(r"\boxed{7}\]" "\n\n" r"\[\boxed{7}").text == "7", "a repeated box is one answer"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("16-4 = <<16-4=12>>12\n#### 12", "12"),
        ("#### 1,200", "1,200"),
        ("#### $5", "$5"),
        ("#### 7<|eot_id|>", "7"),
        (r"so\n#### \frac{1}{2}", r"\frac{1}{2}"),
        ("#### C", "C"),
        ("#### $18/day", "$18/day"),
    ],
)
def test_gsm8k_marker(text: str, answer: str) -> None:
    assert extract(text)[:2] == (answer, "hash")


def test_a_markdown_heading_is_no_gsm8k_marker() -> None:
    assert extract("#### Step 1: add\nThe answer is 5.")[:2] == ("5", "the answer is")
    assert extract("#### 1. Add the numbers\nThe answer is 5.")[:2] == ("5", "the answer is")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Therefore, the answer is 42.", "42"),
        ("The final answer is $\\frac{1}{2}$. I hope it is correct.", "\\frac{1}{2}"),
        ("**Answer:** 42", "42"),
        ("Answer: 3 bolts", "3"),
        ("Answer \\[ 9 \\]", "9"),
        ("Final Answer: The largest $n$ is 34.", "34"),
        ("The answer is 18 dollars because 9 * 2 = 18.", "18"),
        ("The answer is (C).", "(C)"),
        ("The answer is 1. No, the answer is 2.", "2"),
        ("The answer is, 18.", "18"),
        ("The answers are 1 and 2.", "1 and 2"),
        ("The answer is $1$ and $2$.", "1 and 2"),
        ("The answer is sqrt(2).", "sqrt(2)"),
        ("The answer is between 9 and 10.", "between 9 and 10"),
        ("The answer is 2 hours 30 minutes.", "2 hours 30 minutes"),
        ("The answer is 18 dollars, and 3 are left.", "18"),
        ("The answer is therefore 18.", "18"),
        ("The answer isn't 5.", "n't 5"),
        ("The correct option is (C).", "(C)"),
    ],
)
def test_an_announced_answer(text: str, answer: str) -> None:
    assert extract(text)[:2] == (answer, "the answer is")
    assert extract(text, extraction="boxed")[:2] == (None, "none")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("the number is not 10 but 1,000.99€", "1,000.99"),
        ("we compute 10-4", "4"),
        ("It is $5 and then $6 more", "$6"),
        (r"so it is \frac{1}{2}.", r"\frac{1}{2}"),
        ("so it is x^2.", "x^2"),
    ],
)
def test_the_last_number_is_used_only_where_the_settings_say_so(text: str, answer: str) -> None:
    assert extract(text, extraction="last number")[:2] == (answer, "last number")
    assert extract(text)[:2] == (None, "none")


def test_an_unfinished_answer_of_a_truncated_response_is_not_used() -> None:
    """A response cut in the middle of 123 ends with \\boxed{12: neither this box nor the last number is its answer."""
    cut = r"we add 5 and get \boxed{12"
    assert extract(cut, extraction="last number", truncated=True)[:2] == (None, "none")
    assert extract(cut).text == "12"
    assert extract(r"\boxed{7}. Again: \boxed{12", truncated=True).text == "7"


def test_an_empty_box_means_no_answer() -> None:
    assert extract(r"we have 3 and 4: \boxed{}", extraction="last number")[:2] == (None, "none")


def test_gold_answers() -> None:
    assert gold_answer(r"first \boxed{1}, then \boxed{\frac{a}{b}}") == r"\frac{a}{b}"
    assert gold_answer("reasoning\n#### 1,234") == "1,234"
    assert gold_answer("no answer") is None


@pytest.mark.skipif(not DATA.is_dir(), reason=f"the data folder {DATA} is not here")
@pytest.mark.parametrize(
    ("name", "solution", "final"),
    [
        ("math_train", "solution", "answer"),
        ("math_test", "solution", "answer"),
        ("gsm8k_test", "answer", "final_answer"),
    ],
)
def test_gold_answers_of_the_real_sets(name: str, solution: str, final: str) -> None:
    with gzip.open(DATA / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    assert [gold_answer(row[solution]) or "" for row in rows] == [row[final].strip() for row in rows]


@pytest.mark.parametrize(
    "text",
    [
        r"\boxed{" * 100_000,
        r"\boxed{4} " * 100_000,
        r"\boxed{" + "7" * 3_000_000 + "}",
        r"\boxed{" + "{" * 1_000_000,
        r"\boxed{" * 12 + "{" * 1_000_000,
        r"\boxed{" + "{}" * 5_000_000 + "}",
        r"\boxed{" + r"\a" * 5_000_000 + "}",
        "the answer is " * 100_000,
        "#### " * 200_000,
        "$" * 1_000_000,
        r"\[ \( " * 200_000,
        "4 " * 1_000_000,
        "a" * 3_000_000,
        "answer to " * 100_000,
        "-" * 1_000_000,
    ],
    ids=lambda text: text[:12],
)
def test_megabytes_are_scanned_in_bounded_time(text: str) -> None:
    start = time.process_time()
    answer = extract(text, extraction="last number").text
    assert time.process_time() - start < 1
    assert answer is None or len(answer) < MAX_ANSWER + 100


def test_long_answers_are_cut_and_stay_distinct() -> None:
    one, other = (extract("\\boxed{" + "7" * 5_000 + end + "}").text for end in "12")
    assert one is not None and other is not None and one != other
    assert one[:MAX_ANSWER] == other[:MAX_ANSWER] == "7" * MAX_ANSWER


def test_lone_surrogates_are_replaced() -> None:
    answer = extract("\\boxed{\ud8003}").text
    assert answer == "\ufffd3" and answer.encode("utf-8")
