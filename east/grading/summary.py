"""What a user should see before trusting the grader: counts, and answers on which Math-Verify disagrees."""

import hashlib
import heapq
from collections import Counter
from typing import Any

from east.grading.extraction import SOURCES
from east.grading.options import Grading
from east.grading.workers import Workers

MAX_TEXT = 20_000  # characters of a response, from its end, that Math-Verify is shown
MAX_TAIL = 300  # characters of it that the report lists
MATH_VERIFY_SECONDS = 2.0  # for one response


class Summary:
    """Accumulates graded questions; `report` gives the counts.

    options: the fields of Grading; `math_verify_sample`, `disagreements`, `seed`, `workers` count here.
    """

    def __init__(self, **options: Any) -> None:
        self.settings = Grading(**options)
        self.questions = self.responses = self.correct = self.truncated = 0
        self.timeouts = self.out_of_bounds = self.merged = self.empty_gold = self.excluded = 0
        self.accuracy = self.entropy = 0.0
        self.sources: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.sample: list[tuple[int, int, dict[str, Any]]] = []  # a heap of the smallest hashes, negated

    def add(self, graded: dict[str, Any], texts: list[str]) -> None:
        """Count one graded question; texts: its responses, in the order of the graded lists."""
        self.questions += 1
        self.responses += graded["n"]
        self.correct += sum(graded["correct"])
        self.truncated += sum(graded["truncated"])
        self.timeouts += graded["timeouts"]
        self.out_of_bounds += graded["out_of_bounds"]
        self.merged += graded["merged"]
        self.empty_gold += not graded["gold"].strip()
        self.excluded += graded["cluster"].count(-1)
        self.accuracy += sum(graded["correct"]) / max(1, graded["n"])
        self.entropy += graded["entropy"]
        self.sources.update(graded["source"])
        self.reasons.update(graded["reasons"])
        if self.settings.math_verify_sample:
            self._offer(graded, texts)

    def _offer(self, graded: dict[str, Any], texts: list[str]) -> None:
        """Keep the distinct answers with the smallest seeded hashes: a sample that no order can change.

        The responses without an answer are one of them: Math-Verify may find what was not found here.
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
            entry = {
                "question": graded["question"], "sample": graded["sample"][index], "gold": graded["gold"],
                "answer": answer, "correct": graded["correct"][index],
                "text": texts[index][-MAX_TEXT:],
            }  # fmt: skip
            (heapq.heapreplace if full else heapq.heappush)(self.sample, (rank, self.responses + index, entry))

    def report(self) -> dict[str, Any]:
        """The counts, and a bounded list of sampled responses on which naive Math-Verify disagrees."""
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
            "questions": self.questions,
            "responses": self.responses,
            "correct": self.correct,
            # every question counts alike, however many responses it has (adaptive sampling asks the hard ones more)
            "accuracy": self.accuracy / self.questions if self.questions else 0.0,
            "mean_entropy": self.entropy / self.questions if self.questions else 0.0,
            "sources": {source: self.sources[source] for source in SOURCES},
            "missing": self.sources["none"],
            "excluded": self.excluded,
            "truncated": self.truncated,
            "timeouts": self.timeouts,
            "out_of_bounds": self.out_of_bounds,
            "merged": self.merged,
            "empty_gold": self.empty_gold,
            "reasons": dict(self.reasons.most_common()),
            "math_verify": {
                "compared": len(compared),
                "failed": sum(outcome.status != "ok" for outcome in outcomes),
                "found_nothing": sum(outcome.status == "ok" and outcome.value is None for outcome in outcomes),
                "disagree": len(differing),
                "disagreements": differing[: self.settings.disagreements],
            },
        }
