"""The rows that grading reads and writes."""

from typing import NotRequired, TypedDict

from east.grading.extraction import Source


class QuestionToGrade(TypedDict):
    """A question and its responses. The three lists have one item per response."""

    question: str  # id
    gold: str  # the gold answer
    sample: list[int]  # number of the response
    text: list[str]  # the response
    finish_reason: list[str]  # "length": the response was cut at the token limit
    thinking: NotRequired[bool]  # the responses begin inside a thought: the prompt ends with <think>


class Cluster(TypedDict):
    """Responses with the same answer."""

    answer: str | None  # the most frequent spelling; None: responses without an answer
    count: int  # responses
    correct: bool  # is it the gold answer's cluster?
    kind: str  # number, symbolic, tuple, list, interval, relation, text, missing, ...


class GradedQuestion(TypedDict):
    """A graded question: one line of graded/questions.jsonl. Shares p are shares of the responses in clusters."""

    question: str  # id
    gold: str  # the gold answer
    n: int  # responses
    # One item per response:
    sample: list[int]  # number of the response
    answer: list[str | None]  # the extracted answer; None where there is none
    source: list[Source]  # where the answer was found
    truncated: list[bool]  # was the response cut at the token limit, or within its thoughts?
    cluster: list[int]  # index in `clusters`; -1: no answer, and left out by grading.missing=excluded
    correct: list[bool]  # does the answer match the gold answer?
    # Of the question:
    clusters: list[Cluster]  # largest first
    entropy: float  # h = -sum p ln p over the clusters, in nats
    accuracy: float  # A: share of the gold answer's cluster
    rejection: float  # R: share of the largest wrong cluster
    k: int  # clusters
    reasons: dict[str, int]  # why right responses are right, counted
    timeouts: int  # responses whose value took too much time or memory; compared as text
    out_of_bounds: int  # responses too long, too deep or too large to be read or computed; compared as text
    conflicting_marks: int  # responses with two marks of one source that disagree; the last one counts
    merged: int  # keys that turned out to be equal once symbolic values and conventions were applied
    string_match: NotRequired[list[bool]]  # per response, by `with_string_match`: is it the gold answer's string?
