"""Reads a samples folder: questions with their responses, in the order of the questions.

questions.jsonl  an `AskedQuestion` per line
responses.jsonl  a `ResponseLine` per request to the engine, in the order of the questions

n is not part of the folder's settings: after n was raised the missing responses are drawn, and with a lower n the first
n of each question are read.
"""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any, NotRequired, TypedDict

from east.grading import in_thought
from east.run import files
from east.run.artifacts import Artifact


class AskedQuestion(TypedDict):
    """A line of questions.jsonl."""

    id: str
    question: str
    gold: str
    meta: dict[str, Any]  # level, type, subject
    prompt: str
    prompt_tokens: list[int]


class ResponseLine(TypedDict):
    """A line of responses.jsonl: samples [first, first + len(tokens)) of a question; the lists have one entry per
    sample."""

    question: str  # its id
    first: int
    tokens: list[list[int]]
    text: list[str]
    finish_reason: list[str]  # "stop" or "length"


class SampledQuestion(TypedDict):
    """A question with its responses; the lists have one entry per response."""

    question: str  # its id
    gold: str
    meta: dict[str, Any]
    prompt_tokens: list[int]
    sample: list[int]  # 0, 1, 2, ...
    tokens: list[list[int]]
    text: list[str]
    finish_reason: list[str]  # "stop" or "length"
    thinking: NotRequired[bool]  # the responses begin inside a thought, which the prompt opened


def read(artifact: Artifact, n: int | None = None) -> Iterator[SampledQuestion]:
    """Questions in order, each with its first n responses (None: the n of the folder), read one at a time.

    In imported and adaptive folders a question may have fewer. Raises ValueError when the folder is incomplete, was
    made from something else, or was drawn with a lower n.
    """
    drawn = artifact.open().summary["n"]
    n = n or drawn
    if n > drawn:
        raise ValueError(f"{artifact.folder}: found n={drawn}, expected {n}; draw the others with `{artifact.command}`")
    lines = files.read_jsonl(artifact.folder / "responses.jsonl")
    groups = itertools.groupby(lines, key=lambda line: line["question"])
    for question, (identity, parts) in zip(files.read_jsonl(artifact.folder / "questions.jsonl"), groups, strict=True):
        assert question["id"] == identity, (question["id"], identity)
        yield sampled_question(question, parts, n)


def sampled_question(question: AskedQuestion, lines: Iterable[ResponseLine], n: int) -> SampledQuestion:
    """The question with the first n responses of its lines."""
    tokens, text, reasons = list[list[int]](), list[str](), list[str]()
    for line in lines:
        tokens += line["tokens"]
        text += line["text"]
        reasons += line["finish_reason"]
    return {
        "question": question["id"],
        "gold": question["gold"],
        "meta": question["meta"],
        "prompt_tokens": question["prompt_tokens"],
        "sample": list(range(min(n, len(tokens)))),
        "tokens": tokens[:n],
        "text": text[:n],
        "finish_reason": reasons[:n],
        "thinking": opens_thought(question["prompt"], question["question"]),
    }


def opens_thought(prompt: str, question: str) -> bool:
    """Whether a prompt ends inside a thought: what stands behind the question, which may speak of such marks itself."""
    return in_thought(prompt.rpartition(question.strip())[2])


def response_line(
    question: str, first: int, tokens: list[list[int]], text: list[str], finish_reason: list[str]
) -> ResponseLine:
    """A line of responses.jsonl."""
    return {"question": question, "first": first, "tokens": tokens, "text": text, "finish_reason": finish_reason}
