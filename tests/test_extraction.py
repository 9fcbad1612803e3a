"""Extraction: which part of a response is its final answer."""

import gzip
import json
import time
from pathlib import Path

import pytest

from east.grading.extraction import MAX_ANSWER, extract, gold_answer
from east.grading.mathematics.reading import read
from east.grading.thoughts import in_thought

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
    ("text", "answer", "source"),
    [
        ("<answer>18</answer>", "18", "tag"),
        ("<answer>18", "18", "tag"),
        ("<answer>She makes 9 * 2 = 18 dollars.</answer>", "18 dollars", "tag"),
        ("<answer>your answer here</answer> <answer>18</answer>", "18", "tag"),
        (r"<answer>\boxed{18}</answer>", "18", "boxed"),
        ('{"reasoning": "9 * 2", "answer": "18"}', "18", "json"),
        ('```json\n{"Final_Answer": 18.5,\n}\n```\nDone.', "18.5", "json"),
        ("{'result': 'x = 3'}", "x = 3", "json"),
        ('{"answer": 7, "steps": [{"result": 3}]}', "7", "json"),
        ('{"answer": [1, "2"]}', "1, 2", "json"),
        ('{"reasoning": "a\nb", "answer": "18"', "18", "json"),
        (r'{"answer": "\frac{1}{2}"}', r"\frac{1}{2}", "json"),
        (r'{"answer": "\\frac{1}{2}"}', r"\frac{1}{2}", "json"),
        (r'{"answer": "\u00bd"}', "½", "json"),
        ("### Final Answer\n\n18", "18", "heading"),
        ("**Answer**\n**18**", "18", "heading"),
        ("## Answer:\n\n$$\n18\n$$", "18", "heading"),
        ("Final answer\n```\n18\n```", "18", "heading"),
        ("Answer: 18\n\nExplanation: 9 * 2", "18", "the answer is"),
        ("A: 18", "18", "the answer is"),
        ("Final Answer: She has **18** apples.", "18", "the answer is"),
        ("The answer is 18 (since 9*2=18).", "18", "the answer is"),
        ("The answer: D, it can't be A", "D", "the answer is"),
        ("So 18 is the final answer.", "18", "the answer is"),
        ("答案是 C。", "C", "the answer is"),
        ("Réponse : 220 $", "220 $", "the answer is"),
        ("She has **12 apples**.", "12 apples", "bold"),
        ("64 + 67 = **131**", "131", "bold"),
        ("هو **92**.", "92", "bold"),
        ("So, James runs 1080 meters a week.", "1080 meters a week", "last sentence"),
        ("The total for 3 boxes is $12.", "$12", "last sentence"),
        ("First compute 6*7.\n42", "42", "last sentence"),
        ("x = 3", "x = 3", "last sentence"),
        ("Hence\n\\[\nx = 5 \\cdot 3\n\\]", "x = 5 \\cdot 3", "last sentence"),
        ("So he pays $12. I hope this helps!", "$12", "last sentence"),
    ],
)
def test_the_formats_that_models_write(text: str, answer: str, source: str) -> None:
    assert extract(text) == (answer, source, False)
    found = (answer, source) if source == "boxed" else (None, "none")
    assert extract(text, extraction="boxed")[:2] == found


@pytest.mark.parametrize(
    "text",
    [
        "The answer is as follows:",
        "Final Answer: ```",
        "The answer is correct.",
        "Answer: }",
        "## Answer\n\nStep 1: add 4 and 5.",
        "A: There are 15 trees. Some are cut.",
        "A: 12\nB: 15",
        "<answer></answer>",
        '{"reasoning": "3 * 4 = 12", "answer": null}',
        '{"reasoning": "3 * 4 = 12", "answer": ""}',
        "It is between 9 and 10.",
        "x < 5",
        "Is it 5?",
        "Step 3",
        "He does not have 5 apples.",
        "There are at least 5 apples.",
        "Tom has 5 apples and Ann has 7 apples.",
        "Let x = 5.",
        "Now divide both sides by 3.",
        "This follows from Theorem 2.",
        "- Apples: 3\n- Pears: 4",
        "print(12)\n```",
        "The total is not **12**.",
        "**Step 3:** add",
    ],
)
def test_no_answer_is_read(text: str) -> None:
    assert extract(text) == (None, "none", False)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Answer: 12. I hope the answer is correct.", "12"),
        ("Answer: 12\n\nThe answer is found by adding.", "12"),
        ("<answer>12</answer> I use <answer>...</answer> tags.", "12"),
        ("The answer is as follows:\n\n12", "12"),
        ("**Answer**\n12\n\n**Answer**\n", "12"),
    ],
)
def test_a_mark_without_an_answer_leaves_the_one_before(text: str, answer: str) -> None:
    assert extract(text).text == answer


@pytest.mark.parametrize(
    ("text", "answer", "source"),
    [
        ("#### 12", None, "none"),
        ("#### 12\nNow", "12", "hash"),
        ("<answer>12", None, "none"),
        ("<answer>12</answer> and", "12", "tag"),
        ('{"answer": "12', None, "none"),
        ('{"answer": 12', None, "none"),
        ('{"answer": "12", "reas', "12", "json"),
        ("The answer is 12", None, "none"),
        ("The answer is 12.", None, "none"),
        ("The answer is 12. Let", "12", "the answer is"),
        ("### Answer\n12", None, "none"),
        ("### Answer\n12\n", "12", "heading"),
        ("She has **12 apples**.", None, "none"),
        ("She has 12 apples.", None, "none"),
        ("The answer is 12\n\nQuestion: What is", "12", "the answer is"),
    ],
)
def test_the_end_of_a_cut_response(text: str, answer: str | None, source: str) -> None:
    """12 may be the beginning of 123 or of 12.5 where the text ends."""
    assert extract(text, extraction="last number", truncated=True)[:2] == (answer, source)


@pytest.mark.parametrize(
    ("text", "answer", "conflict"),
    [
        (r"\boxed{9} was wrong, so \boxed{8}.", "8", True),
        (r"\boxed{8}, checked: \boxed{ 8 }.", "8", False),
        (r"$\boxed{8}$ and $\boxed{9}$", "8, 9", False),
        ("<answer>9</answer><answer>8</answer>", "8", True),
        ("The answer is $8$. So the answer is **8**.", "8", False),
        ("The answer is 9. No, the answer is 8.", "8", True),
        ('{"answer": "9"} {"answer": "8"}', "8", True),
        ("#### 9\n#### 8", "8", True),
        ("The answer is 9.\n#### 8", "8", False),
    ],
)
def test_marks_of_one_source_that_disagree(text: str, answer: str, conflict: bool) -> None:
    found = extract(text)
    assert (found.text, found.conflict) == (answer, conflict)


@pytest.mark.parametrize(
    "text",
    [
        "The answer is 8.\n\nQuestion: What is 3 * 4?\nAnswer: 12",
        "A: 8\n\nQ: What is 3 * 4?\nA: 12",
        "She has **8**.<|im_end|>\n<|im_start|>user\nThe answer is 12.",
        r"\boxed{8}" "\nHuman: and 3 * 4? \\boxed{12}",
        r"<think>\boxed{12}? No.</think> The total is **8**.",
        "Question: What is 4 + 4?\nAnswer: 8",
    ],
)
def test_thoughts_and_invented_turns_are_not_the_answer(text: str) -> None:
    assert extract(text).text == "8"


@pytest.mark.skipif(not DATA.is_dir(), reason=f"the data folder {DATA} is not here")
def test_real_responses_without_their_boxes_have_the_answers_of_the_boxes() -> None:
    """Of 800 real responses, the box around the answer removed, nine in ten are read, and one in a hundred wrongly."""
    with gzip.open(DATA / "qwen25math_cot_100x8.jsonl.gz", "rt", encoding="utf-8") as lines:
        texts = [text for line in lines for text in json.loads(line)["code"]]
    boxed = [extract(text) for text in texts]
    assert {answer.source for answer in boxed} == {"boxed"}
    pairs = [
        (answer.text or "", extract(text.replace(f"\\boxed{{{answer.text}}}", answer.text or "")).text)
        for text, answer in zip(texts, boxed, strict=True)
        if text.count("boxed") == 1
    ]
    read_ = [(box, text) for box, text in pairs if text is not None]
    wrong = [(box, text) for box, text in read_ if read(box).tree != read(text).tree]
    assert len(pairs) > 700 and len(read_) > 0.9 * len(pairs)
    assert len(wrong) < 0.01 * len(pairs), wrong


@pytest.mark.parametrize("length", [3_900, 100_000])
@pytest.mark.parametrize("before", ["", "The answer is ", "### Answer\n", "<answer>", '{"answer": "', "**"])
def test_hostile_texts_are_read_in_50_ms(before: str, length: int) -> None:
    pieces = (
        " ", "\t", "\n", "\r", "*", "{", "<", "`", "'", "$", "\\", "#", "a ", "5 ", "a", "1,", "= ", "<answer>", "####",
        '"answer":', "Answer:", "**1** ", "is the answer ", "### Answer\n", "\\[", "```\n", "if ", "because ", "答",
    )  # fmt: skip
    for piece in pieces:
        for behind in ("", "5", "x.", " 12 apples.\n"):
            text = before + piece * (length // len(piece)) + behind
            assert min(seconds(text) for _ in range(3)) < 0.05, (piece, behind)


def seconds(text: str) -> float:
    start = time.process_time()
    extract(text, extraction="last number")
    return time.process_time() - start


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


@pytest.mark.parametrize(
    ("text", "thinking", "expected"),
    [
        (r"<think>\boxed{7}?</think> It is \boxed{8}.", False, "8"),
        (r"\boxed{7}?</think> It is \boxed{8}.", True, "8"),
        (r"<think>\boxed{7}</think><think>\boxed{9}</think>\boxed{8}", False, "8"),
        (r"<think>\boxed{7}</think> That is all.", False, None),
        (r"<think>\boxed{7}", False, None),
        (r"so \boxed{7}", True, None),
        (r"so \boxed{7}", False, "7"),
        ("<think>a</think> \\boxed{7}\n<think> wait", False, None),
        (r"\boxed{7}, where <think> is a tag", False, "7"),
        (r"[THINK]\boxed{7}[/THINK]\boxed{8}", False, "8"),
        (r"<|begin_of_thought|>\boxed{7}<|end_of_thought|>\boxed{8}", False, "8"),
    ],
)
def test_an_answer_stands_behind_the_last_thought(text, thinking, expected):
    assert extract(text, thinking=thinking).text == expected


@pytest.mark.parametrize(
    ("prompt", "open_"),
    [
        ("<|assistant|>", False),
        ("<|assistant|><think>\n", True),
        ("assistant<think>", True),
        ("<think>\n\n</think>\n\n", False),
    ],
)
def test_prompts_that_end_inside_a_thought(prompt, open_):
    assert in_thought(prompt) is open_
