"""From questions with responses to graded questions: cluster, label, entropy, accuracy and rejection.

`grade` streams: it looks at a few questions at a time and keeps nothing of them but bounded caches. An
answer's cluster is the gold's, if it matches the gold under the named conventions, and that of its own
value otherwise; so the clusters are a partition whatever the conventions, and no cluster holds both right
and wrong responses.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

from east.grading.canonical import Key, own_key
from east.grading.canonical import key as key_of
from east.grading.extraction import Answer, extract
from east.grading.matching import match
from east.grading.numeric import Request
from east.grading.options import Grading
from east.grading.qwen_string import qwen_string, same_qwen_string
from east.grading.reading import MAX_REMEMBERED, Reading, read
from east.grading.summary import Summary
from east.grading.tree import Tree, order
from east.grading.value_cache import Requests, Values

__all__ = ["Grading", "Summary", "grade"]

BATCH_QUESTIONS = 32  # looked at together, so that the children are busy
BATCH_CHARACTERS = 64_000_000
FIELDS = ("question", "gold", "sample", "text", "finish_reason")
GOLD: Key = ("gold",)
MISSING: Key = ("missing",)
_KINDS = {
    "number": "number", "big number": "number", "infinity": "number", "constant": "symbolic",
    "function": "symbolic", "expression": "symbolic", "seq": "tuple", "list": "list", "named": "list",
    "union": "interval", "equation": "relation", "<": "relation", "<=": "relation", "!=": "relation",
}  # fmt: skip


def grade(
    questions: Iterable[dict[str, Any]], *, summary: Summary | None = None, **options: Any
) -> Iterator[dict[str, Any]]:
    """Grade questions one after another; `options` are the fields of Grading.

    questions: {"question": id, "gold": final answer, "sample": [int], "text": [str], "finish_reason": [str]}.
    summary: accumulates counts and a sample over all questions, if given.
    Yields, in the same order, {"question", "gold", "n", "sample", "answer", "source", "truncated", "cluster",
    "correct", "clusters": [{"answer", "count", "correct", "kind"}], "entropy", "accuracy", "rejection", "k",
    "reasons", "timeouts", "out_of_bounds", "merged"}. cluster: index in clusters, -1 where missing="excluded" left the
    response out. entropy: -sum p ln p in nats over shares of the n responses. accuracy: the gold cluster's
    share.
    rejection: the largest wrong cluster's share. k: number of clusters. reasons: why right responses are
    right, counted. timeouts: responses whose value took a child too long or too much memory. out_of_bounds: responses
    that are too long, too deep or too large to be read or computed; both are compared as text. merged: exact keys
    that turned out to have equal values or to match the gold. Clusters are sorted by size, then key. Raises
    ValueError for a question with missing fields or lists of unequal length.
    """
    settings = Grading(**options)
    values = Values(workers=settings.workers, timeout_s=settings.timeout_s, memory_mb=settings.memory_mb)
    try:
        for batch in _batches(questions):
            extracted = [_extract_all(question, settings) for question in batch]
            if settings.clusters == "value":
                golds = (question["gold"] for question in batch)
                texts = {answer.text for answers, _ in extracted for answer in answers if answer.text is not None}
                values.ask(requests_of(text) for text in texts.union(golds))
            for question, (answers, truncated) in zip(batch, extracted, strict=True):
                graded = _grade_question(question, answers, truncated, values, settings)
                if summary is not None:
                    summary.add(graded, question["text"])
                yield graded
            values.forget()
    finally:
        values.close()


def _batches(questions: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Checked questions, a few at a time."""
    batch: list[dict[str, Any]] = []
    size = 0
    for question in questions:
        if absent := [field for field in FIELDS if field not in question]:
            name = question.get("question", "?")
            raise ValueError(f"question {name!r} has no {', '.join(absent)}; expected {', '.join(FIELDS)}")
        lengths = {field: len(question[field]) for field in FIELDS[2:]}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"question {question['question']!r} has lists of unequal length: {lengths}")
        if not isinstance(question["gold"], str):
            raise ValueError(f"question {question['question']!r} has gold {question['gold']!r}; expected a string")
        batch.append(question)
        size += sum(map(len, question["text"]))
        if len(batch) == BATCH_QUESTIONS or size > BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _extract_all(question: dict[str, Any], settings: Grading) -> tuple[list[Answer], list[bool]]:
    truncated = [reason == "length" for reason in question["finish_reason"]]
    boxes = "last" if settings.clusters == "qwen-string" else settings.boxes
    answers = [
        extract(text, extraction=settings.extraction, boxes=boxes, truncated=cut)
        for text, cut in zip(question["text"], truncated, strict=True)
    ]
    return answers, truncated


def _exact_key(answer: str) -> tuple[Key, Requests]:
    """(the key without symbolic values, what has to be evaluated for the full key)."""
    return _exact_key_short(answer) if len(answer) <= MAX_REMEMBERED else _exact_key_long(answer)


@lru_cache(maxsize=100_000)
def _exact_key_short(answer: str) -> tuple[Key, Requests]:
    return _exact_key_of(answer)


@lru_cache(maxsize=64)
def _exact_key_long(answer: str) -> tuple[Key, Requests]:
    return _exact_key_of(answer)


def _exact_key_of(answer: str) -> tuple[Key, Requests]:
    requests: set[Request] = set()
    reading = read(answer)

    def ask(mode: str, tree: Tree) -> None:
        requests.add((mode, tree))

    exact_key = own_key(reading, ask)
    for other in (reading, *reading.others):  # under which the gold may be met as well
        if other.tree is not None:
            key_of(other.tree, ask)
    return exact_key, frozenset(requests)


class _Verdict:
    """Clusters and verdicts of one question's distinct answers."""

    def __init__(self, gold: str, values: Values, settings: Grading) -> None:
        self.gold_text, self.gold = gold, valued(gold, values)
        self.values, self.settings = values, settings
        self.seen: dict[str, tuple[Key, str | None]] = {}

    def __call__(self, answer: str) -> tuple[Key, str | None]:
        """(cluster, why it is right or None)"""
        if answer not in self.seen:
            self.seen[answer] = self._judge(answer)
        return self.seen[answer]

    def _judge(self, answer: str) -> tuple[Key, str | None]:
        if self.settings.clusters == "qwen-string":
            text = qwen_string(answer)
            same = same_qwen_string(qwen_string(self.gold_text), text)
            return ("string", text), "same string" if same else None
        reading = valued(answer, self.values)
        reason = match(self.gold, reading, self.values.lookup, self.settings)
        return (GOLD if reason else own_key(reading, self.values.lookup)), reason

    def merged(self) -> int:
        """Exact keys that turned out to be the same cluster as another."""
        clusters = {key for key, _ in self.seen.values()}
        return max(0, len({_exact_key(text)[0] for text in self.seen}) - len(clusters))


def _grade_question(
    question: dict[str, Any], answers: list[Answer], truncated: list[bool], values: Values, settings: Grading
) -> dict[str, Any]:
    judge = _Verdict(question["gold"], values, settings)
    unanswered = {"cluster": (MISSING, None), "excluded": (None, None)}
    judged: list[tuple[Key | None, str | None]] = [
        judge(answer.text) if answer.text is not None else unanswered.get(settings.missing, ((*MISSING, index), None))
        for index, answer in enumerate(answers)
    ]
    clusters = _clusters(judged, answers)
    ranked = sorted(clusters, key=lambda key: (-clusters[key].total(), order(key)))
    place = {key: position for position, key in enumerate(ranked)}
    right = {key for key, reason in judged if reason and key}
    total = sum(found.total() for found in clusters.values())
    shares = {key: clusters[key].total() / total for key in ranked}
    return {
        "question": question["question"],
        "gold": question["gold"],
        "n": len(answers),
        "sample": question["sample"],
        "answer": [answer.text for answer in answers],
        "source": [answer.source for answer in answers],
        "truncated": truncated,
        "cluster": [-1 if key is None else place[key] for key, _ in judged],
        "correct": [reason is not None for _, reason in judged],
        "clusters": [_describe(key, clusters[key], key in right, question["gold"]) for key in ranked],
        "entropy": -sum(p * math.log(p) for p in shares.values()) + 0.0,
        "accuracy": sum(p for key, p in shares.items() if key in right),
        "rejection": max((p for key, p in shares.items() if key not in right), default=0.0),
        "k": len(ranked),
        "reasons": dict(sorted(Counter(reason for _, reason in judged if reason).items())),
        "timeouts": sum(is_lost(answer.text, values) for answer in answers),
        "out_of_bounds": sum(is_out_of_bounds(answer.text, values) for answer in answers),
        "merged": judge.merged(),
    }


def _clusters(judged: list[tuple[Key | None, str | None]], answers: list[Answer]) -> dict[Key, Counter[str | None]]:
    """The spellings in each cluster, counted."""
    clusters: dict[Key, Counter[str | None]] = {}
    for (key, _), answer in zip(judged, answers, strict=True):
        if key is not None:
            clusters.setdefault(key, Counter())[answer.text] += 1
    return clusters


def _describe(key: Key, spellings: Counter[str | None], right: bool, gold: str) -> dict[str, Any]:
    """One cluster; its answer is the spelling met most often (the first in order among equals)."""
    answer = min(spellings, key=lambda text: (-spellings[text], text or ""))
    if key[0] == "string":
        return {"answer": key[1], "count": spellings.total(), "correct": right, "kind": "text"}
    kind = _exact_key(gold)[0][0] if key == GOLD else key[0]
    return {"answer": answer, "count": spellings.total(), "correct": right, "kind": _KINDS.get(kind, kind)}


def requests_of(answer: str) -> Requests:
    """What has to be computed for the keys of an answer."""
    return _exact_key(answer)[1]


def valued(text: str, values: Values) -> Reading:
    """What an answer says; only its words where its value was lost."""
    reading = read(text)
    return Reading(reading.plain) if is_lost(text, values) else reading


def is_lost(text: str | None, values: Values) -> bool:
    return text is not None and bool(values.lost) and requests_of(text) in values.lost


def is_out_of_bounds(text: str | None, values: Values) -> bool:
    if text is None:
        return False
    return read(text).out_of_bounds or bool(values.out_of_bounds and requests_of(text) & values.out_of_bounds)
