"""The report on a grading: counts, responses without an answer, and answers on which Math-Verify disagrees."""

from collections import Counter
from typing import Any, TypedDict

from east.grading.extraction import SOURCES
from east.grading.not_found import Endings
from east.grading.options import Grading
from east.grading.rows import GradedQuestion
from east.grading.seeded_sample import SeededSample
from east.grading.workers import Outcome, Workers

MAX_TEXT = 20_000  # characters at the end of a response that Math-Verify reads
MAX_TAIL = 300  # of these, characters that the report lists
MATH_VERIFY_SECONDS = 2.0  # for one response
DIFFERENCES = ("other_verdict", "only_grader", "only_math_verify")
UNANSWERED = 20  # responses without an answer that the report lists


class _Sampled(TypedDict):
    """An answer that is graded by Math-Verify as well."""

    question: str
    sample: int
    gold: str
    answer: str | None
    correct: bool
    text: str  # the end of the response


class _Unanswered(TypedDict):
    """A response without an answer."""

    question: str
    sample: int
    truncated: bool  # cut at the token limit
    text: str  # the end of the response


class Summary:
    """Counts over graded questions, a sample of their answers for Math-Verify, and one of responses without answer."""

    def __init__(self, settings: Grading) -> None:
        self.settings = settings
        self.questions = self.responses = self.correct = self.truncated = 0
        self.timeouts = self.out_of_bounds = self.merged = self.empty_gold = self.excluded = self.conflicting_marks = 0
        self.accuracy = self.entropy = 0.0
        self.sources: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.endings = Endings(settings.extraction)
        self.sample = SeededSample[_Sampled](settings.math_verify_sample, settings.seed)
        self.unanswered = SeededSample[_Unanswered](UNANSWERED, settings.seed)

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
            self._offer_answers(graded, texts)
        self._count_unanswered(graded, texts)

    def _offer_answers(self, graded: GradedQuestion, texts: list[str]) -> None:
        """Offer the distinct answers. "No answer" is one of the answers of a question: Math-Verify may find one."""
        first: dict[str | None, int] = {}
        for index, answer in enumerate(graded["answer"]):
            first.setdefault(answer, index)
        for answer, index in first.items():
            entry: _Sampled = {
                "question": graded["question"], "sample": graded["sample"][index], "gold": graded["gold"],
                "answer": answer, "correct": graded["correct"][index],
                "text": texts[index][-MAX_TEXT:],
            }  # fmt: skip
            self.sample.offer(f"{graded['question']}/{answer}", entry)

    def _count_unanswered(self, graded: GradedQuestion, texts: list[str]) -> None:
        """Count the responses that ended, and offer those without an answer; of these, the cut ones are taken last."""
        for sample, answer, cut, text in zip(
            graded["sample"], graded["answer"], graded["truncated"], texts, strict=True
        ):
            if not cut:
                self.endings.add(text, found=answer is not None)
            if answer is None:
                entry: _Unanswered = {
                    "question": graded["question"], "sample": sample, "truncated": cut, "text": text[-MAX_TAIL:],
                }  # fmt: skip
                self.unanswered.offer(f"{graded['question']}/{sample}", entry, last=cut)

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
            "no_answer": {
                **self.endings.report(),
                "responses": self.unanswered.entries(),
            },
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
        """Math-Verify on the sampled answers: how often, and on which, it differs from the grader.

        They differ if only one of them finds an answer (`only_grader`, `only_math_verify`), or if both do and only one
        takes it to be right (`other_verdict`). Where one says right and the other does not, it is listed first.
        """
        compared = self.sample.entries()
        with Workers(
            "east.grading.math_verify_verdict:verdict",
            count=self.settings.workers,
            timeout_s=MATH_VERIFY_SECONDS,
            memory_mb=self.settings.memory_mb,
        ) as pool:
            outcomes = pool.map([(entry["gold"], entry["text"]) for entry in compared])
        kinds = Counter[str]()
        changed, others = list[dict[str, Any]](), list[dict[str, Any]]()
        for entry, outcome in zip(compared, outcomes, strict=True):
            kind = _difference(entry, outcome)
            kinds[kind] += 1
            if kind in DIFFERENCES:
                row = {**entry, "text": entry["text"][-MAX_TAIL:], "math_verify": outcome.value}
                (others if bool(outcome.value) == entry["correct"] else changed).append(row)
        return {
            "compared": len(compared),
            "failed": kinds["failed"],
            "found_nothing": kinds["neither"] + kinds["only_grader"],
            "disagree": len(changed) + len(others),
            **{kind: kinds[kind] for kind in DIFFERENCES},
            "disagreements": [*changed, *others][: self.settings.disagreements],
        }


def _difference(entry: _Sampled, outcome: Outcome) -> str:
    """How Math-Verify's outcome relates to the grader's: one of DIFFERENCES, "same", "neither" or "failed"."""
    if outcome.status != "ok":
        return "failed"
    if entry["answer"] is None:
        return "neither" if outcome.value is None else "only_math_verify"
    if outcome.value is None:
        return "only_grader"
    return "same" if outcome.value == entry["correct"] else "other_verdict"
