"""From questions with responses to graded questions: verdicts, clusters, entropy, accuracy and rejection.

`grade` streams: it holds one batch of questions at a time, and caches of bounded size. An answer that matches the
gold answer belongs to the gold answer's cluster, every other answer to the cluster of its own value. So the clusters
are a partition under any conventions, and no cluster contains both right and wrong responses.
"""

from collections import Counter
from collections.abc import Iterable, Iterator

from east.grading.extraction import Answer, extract
from east.grading.matching import match
from east.grading.mathematics.answer import Reading
from east.grading.mathematics.canonical import Key, answer_key, tree_key
from east.grading.mathematics.numeric import Request
from east.grading.mathematics.reading import cached_by_length, read
from east.grading.mathematics.tree import Tree, order
from east.grading.options import Grading
from east.grading.qwen_string import qwen_string, same_qwen_string
from east.grading.rows import Cluster, GradedQuestion, QuestionToGrade
from east.grading.summary import Summary
from east.grading.thoughts import answer_start
from east.grading.value_cache import Requests, ValueCache
from east.weighting import entropy

BATCH_QUESTIONS = 32  # a batch gives the child processes enough to do
BATCH_CHARACTERS = 64_000_000
GOLD: Key = ("gold",)
MISSING: Key = ("missing",)
_KINDS = {
    "number": "number", "big number": "number", "infinity": "number", "qualified": "number", "constant": "symbolic",
    "function": "symbolic", "expression": "symbolic", "seq": "tuple", "list": "list", "named": "list",
    "union": "interval", "intersection": "interval", "without": "interval",
    "named one": "list", "or": "list", "and": "relation",
    "equation": "relation", "<": "relation", "<=": "relation", "!=": "relation",
}  # fmt: skip


def grade(
    questions: Iterable[QuestionToGrade], settings: Grading, *, summary: Summary | None = None
) -> Iterator[GradedQuestion]:
    """Grade questions, in order. Each graded question is added to `summary`, if given.

    Clusters are sorted by size, then by key. Raises ValueError for a question with missing fields, with lists of
    different lengths or with a gold answer that is no string.
    """
    values = ValueCache(workers=settings.workers, timeout_s=settings.timeout_s, memory_mb=settings.memory_mb)
    try:
        for batch in _batches(questions):
            extracted = [_extract_all(question, settings) for question in batch]
            if settings.clusters == "value":
                golds = (question["gold"] for question in batch)
                texts = {answer.text for answers, _ in extracted for answer in answers if answer.text is not None}
                values.compute(requests_of(text) for text in texts.union(golds))
            for question, (answers, truncated) in zip(batch, extracted, strict=True):
                graded = _grade_question(question, answers, truncated, values, settings)
                if summary is not None:
                    summary.add(graded, question["text"])
                yield graded
            values.trim()
    finally:
        values.close()


def _batches(questions: Iterable[QuestionToGrade]) -> Iterator[list[QuestionToGrade]]:
    batch: list[QuestionToGrade] = []
    size = 0
    for question in questions:
        _check(question)
        batch.append(question)
        size += sum(map(len, question["text"]))
        if len(batch) == BATCH_QUESTIONS or size > BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _check(question: QuestionToGrade) -> None:
    name = question.get("question", "?")
    expected = [field for field in QuestionToGrade.__annotations__ if field in QuestionToGrade.__required_keys__]
    if absent := [field for field in expected if field not in question]:
        raise ValueError(f"question {name!r} has no {', '.join(absent)}; expected {', '.join(expected)}")
    sample, text, finish_reason = question["sample"], question["text"], question["finish_reason"]
    lengths = {"sample": len(sample), "text": len(text), "finish_reason": len(finish_reason)}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"question {name!r} has lists of different lengths {lengths}; expected an item per response")
    if not isinstance(question["gold"], str):
        raise ValueError(f"question {name!r} has gold {question['gold']!r}; expected a string")


def _extract_all(question: QuestionToGrade, settings: Grading) -> tuple[list[Answer], list[bool]]:
    """The answer of each response, and whether the response was cut: at the token limit, or within its thoughts."""
    thinking = question.get("thinking", False)
    truncated = [
        reason == "length" or answer_start(text, thinking) is None
        for text, reason in zip(question["text"], question["finish_reason"], strict=True)
    ]
    boxes = "last" if settings.clusters == "qwen-string" else settings.boxes
    answers = [
        extract(text, extraction=settings.extraction, boxes=boxes, truncated=cut, thinking=thinking)
        for text, cut in zip(question["text"], truncated, strict=True)
    ]
    return answers, truncated


Verdict = tuple[Key | None, str | None]  # the cluster's key (None: in no cluster), and why the answer is right if it is


def _grade_question(
    question: QuestionToGrade, answers: list[Answer], truncated: list[bool], values: ValueCache, settings: Grading
) -> GradedQuestion:
    distinct = dict.fromkeys(answer.text for answer in answers if answer.text is not None)
    verdict_of = _verdicts(question["gold"], distinct, values, settings)
    verdicts = [
        _without_answer(index, settings) if answer.text is None else verdict_of[answer.text]
        for index, answer in enumerate(answers)
    ]
    clusters = _clusters(verdicts, answers)
    ranked = sorted(clusters, key=lambda key: (-clusters[key].total(), order(key)))
    place = {key: position for position, key in enumerate(ranked)}
    right = {key for key, reason in verdicts if reason and key}
    total = sum(spellings.total() for spellings in clusters.values())
    shares = {key: clusters[key].total() / total for key in ranked}
    return {
        "question": question["question"],
        "gold": question["gold"],
        "n": len(answers),
        "sample": question["sample"],
        "answer": [answer.text for answer in answers],
        "source": [answer.source for answer in answers],
        "truncated": truncated,
        "cluster": [-1 if key is None else place[key] for key, _ in verdicts],
        "correct": [reason is not None for _, reason in verdicts],
        "clusters": [_describe(key, clusters[key], key in right, question["gold"]) for key in ranked],
        "entropy": entropy.plugin([clusters[key].total() for key in ranked]) if ranked else 0.0,
        "accuracy": sum(p for key, p in shares.items() if key in right),
        "rejection": max((p for key, p in shares.items() if key not in right), default=0.0),
        "k": len(ranked),
        "reasons": dict(sorted(Counter(reason for _, reason in verdicts if reason).items())),
        "timeouts": sum(is_lost(answer.text, values) for answer in answers),
        "out_of_bounds": sum(is_out_of_bounds(answer.text, values) for answer in answers),
        "conflicting_marks": sum(answer.conflict for answer in answers),
        "merged": _merged(verdict_of),
    }


def _verdicts(gold: str, answers: Iterable[str], values: ValueCache, settings: Grading) -> dict[str, Verdict]:
    """The verdict on each distinct answer."""
    if settings.clusters == "qwen-string":
        strings = {answer: qwen_string(answer) for answer in answers}
        same = {answer: same_qwen_string(qwen_string(gold), string) for answer, string in strings.items()}
        return {answer: (("string", strings[answer]), "same string" if same[answer] else None) for answer in strings}
    verdicts: dict[str, Verdict] = {}
    gold_reading = read_with_values(gold, values)
    for answer in answers:
        reading = read_with_values(answer, values)
        reason = match(gold_reading, reading, values.lookup, settings)
        verdicts[answer] = GOLD if reason else answer_key(reading, values.lookup), reason
    return verdicts


def _without_answer(index: int, settings: Grading) -> Verdict:
    """The verdict on a response without an answer: always wrong."""
    key = {"cluster": MISSING, "own": (*MISSING, index), "excluded": None}[settings.missing]
    return key, None


def _clusters(verdicts: list[Verdict], answers: list[Answer]) -> dict[Key, Counter[str | None]]:
    """The spellings in each cluster, counted."""
    clusters: dict[Key, Counter[str | None]] = {}
    for (key, _), answer in zip(verdicts, answers, strict=True):
        if key is not None:
            clusters.setdefault(key, Counter())[answer.text] += 1
    return clusters


def _describe(key: Key, spellings: Counter[str | None], right: bool, gold: str) -> Cluster:
    """A cluster, shown by its most frequent spelling (the first in order among equally frequent ones)."""
    answer = min(spellings, key=lambda text: (-spellings[text], text or ""))
    if key[0] == "string":
        return {"answer": key[1], "count": spellings.total(), "correct": right, "kind": "text"}
    kind: str = _key_and_requests(gold)[0][0] if key == GOLD else key[0]
    return {"answer": answer, "count": spellings.total(), "correct": right, "kind": _KINDS.get(kind, kind)}


def _merged(verdict_of: dict[str, Verdict]) -> int:
    """How many keys symbolic values and conventions merged with another."""
    clusters = {key for key, _ in verdict_of.values()}
    return max(0, len({_key_and_requests(text)[0] for text in verdict_of}) - len(clusters))


@cached_by_length
def _key_and_requests(answer: str) -> tuple[Key, Requests]:
    """The key of an answer without symbolic values, and the values to compute for its full key."""
    requests: set[Request] = set()
    reading = read(answer)

    def record(mode: str, tree: Tree) -> None:
        requests.add((mode, tree))

    key = answer_key(reading, record)
    for other in (reading, *reading.others):  # the gold answer is compared with each of them
        if other.tree is not None:
            tree_key(other.tree, record)
    return key, frozenset(requests)


def requests_of(answer: str) -> Requests:
    """The values to compute for the keys of an answer."""
    return _key_and_requests(answer)[1]


def read_with_values(text: str, values: ValueCache) -> Reading:
    """The reading of an answer; only its text if the computation of its values did not finish."""
    reading = read(text)
    return Reading(reading.plain) if is_lost(text, values) else reading


def is_lost(text: str | None, values: ValueCache) -> bool:
    """Whether the computation of an answer's values did not finish."""
    return text is not None and bool(values.lost) and requests_of(text) in values.lost


def is_out_of_bounds(text: str | None, values: ValueCache) -> bool:
    """Whether an answer is too long, too deep or too large to be read or computed."""
    if text is None:
        return False
    return read(text).out_of_bounds or bool(values.out_of_bounds and requests_of(text) & values.out_of_bounds)
