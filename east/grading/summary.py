"""The report on a grading: counts, and answers on which Math-Verify disagrees."""

import hashlib
import heapq
from collections import Counter
from typing import Any, TypedDict

from east.grading.extraction import SOURCES
from east.grading.options import Grading
from east.grading.rows import GradedQuestion
from east.grading.workers import Workers

MAX_TEXT = 20_000  # characters at the end of a response that Math-Verify reads
MAX_TAIL = 300  # of these, characters that the report lists
MATH_VERIFY_SECONDS = 2.0  # for one response


class _Sampled(TypedDict):
    """An answer that is graded by Math-Verify as well."""

    question: str
    sample: int
    gold: str
    answer: str | None
    correct: bool
    text: str  # the end of the response


class Summary:
    """Counts over graded questions, and a sample of their answers for Math-Verify."""

    def __init__(self, settings: Grading) -> None:
        self.settings = settings
        self.questions = self.responses = self.correct = self.truncated = 0
        self.timeouts = self.out_of_bounds = self.merged = self.empty_gold = self.excluded = self.conflicting_marks = 0
        self.accuracy = self.entropy = 0.0
        self.sources: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.sample: list[tuple[int, int, _Sampled]] = []  # a heap of (negated hash, number of the response, answer)

    def add(self, graded: GradedQuestion, texts: list[str]) -> None:
        """Count a graded question. texts: its responses, in the order of its lists."""
        self.questions += 1
        self.responses += graded["n"]
        self.correct += sum(graded["correct"])
        self.truncated += sum(graded["truncated"])
        self.timeouts += graded["timeouts"]
        self.out_of_bounds += graded["out_of_bounds"]
        self.conflicting_marks += graded["conflicting_marks"]
        self.merged += graded["merged"]
        self.empty_gold += not graded["gold"].strip()
        self.excluded += graded["cluster"].count(-1)
        self.accuracy += sum(graded["correct"]) / max(1, graded["n"])
        self.entropy += graded["entropy"]
        self.sources.update(graded["source"])
        self.reasons.update(graded["reasons"])
        if self.settings.math_verify_sample:
            self._offer(graded, texts)

    def _offer(self, graded: GradedQuestion, texts: list[str]) -> None:
        """Keep the distinct answers with the smallest seeded hashes: a sample that does not depend on their order.

        "No answer" is one of the answers of a question: Math-Verify may find one.
        """
        first: dict[str | None, int] = {}
        for index, answer in enumerate(graded["answer"]):
            first.setdefault(answer, index)
        for answer, index in first.items():
            name = f"{self.settings.seed}/{graded['question']}/{answer}"
            rank = -int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")
            full = len(self.sample) >= self.settings.math_verify_sample
            if full and rank <= self.sample[0][0]:
                continue
            entry: _Sampled = {
                "question": graded["question"], "sample": graded["sample"][index], "gold": graded["gold"],
                "answer": answer, "correct": graded["correct"][index],
                "text": texts[index][-MAX_TEXT:],
            }  # fmt: skip
            (heapq.heapreplace if full else heapq.heappush)(self.sample, (rank, self.responses + index, entry))

    def report(self) -> dict[str, Any]:
        """The counts, and the comparison with Math-Verify, which is run on the sampled answers."""
        return {
            "questions": self.questions,
            "responses": self.responses,
            "correct": self.correct,
            # the mean over questions, not responses: adaptive sampling draws more responses to hard questions
            "accuracy": self.accuracy / self.questions if self.questions else 0.0,
            "mean_entropy": self.entropy / self.questions if self.questions else 0.0,
            "sources": {source: self.sources[source] for source in SOURCES},
            "missing": self.sources["none"],
            "excluded": self.excluded,
            "truncated": self.truncated,
            "timeouts": self.timeouts,
            "out_of_bounds": self.out_of_bounds,
            "conflicting_marks": self.conflicting_marks,
            "merged": self.merged,
            "empty_gold": self.empty_gold,
            "reasons": dict(self.reasons.most_common()),
            "math_verify": self._math_verify(),
        }

    def _math_verify(self) -> dict[str, Any]:
        """Math-Verify's verdicts on the sampled answers: how often, and on which, they differ from the grader's."""
        compared = [entry for _, _, entry in sorted(self.sample, reverse=True)]
        with Workers(
            "east.grading.math_verify_verdict:verdict",
            count=self.settings.workers,
            timeout_s=MATH_VERIFY_SECONDS,
            memory_mb=self.settings.memory_mb,
        ) as pool:
            outcomes = pool.map([(entry["gold"], entry["text"]) for entry in compared])
        differing = [
            {**entry, "text": entry["text"][-MAX_TAIL:], "math_verify": outcome.value}
            for entry, outcome in zip(compared, outcomes, strict=True)
            if outcome.value is not None and outcome.value != entry["correct"]
        ]
        return {
            "compared": len(compared),
            "failed": sum(outcome.status != "ok" for outcome in outcomes),
            "found_nothing": sum(outcome.status == "ok" and outcome.value is None for outcome in outcomes),
            "disagree": len(differing),
            "disagreements": differing[: self.settings.disagreements],
        }
