"""Labelled cases: grading one answer at a time, compared with the verdicts that are expected."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NotRequired, TextIO, TypedDict

from east.grading.extraction import extract
from east.grading.grader import is_lost, is_out_of_bounds, read_with_values, requests_of
from east.grading.matching import match
from east.grading.options import Grading
from east.grading.value_cache import ValueCache

OUTCOMES = ("right", "false equal", "false different")


class Case(TypedDict):
    """A labelled case: one line of the file of cases."""

    id: Any  # copied to the verdict
    gold: Any  # the gold answer, text or number
    prediction: Any  # the answer, or a response; text, a number or, for an answer, null
    form: Literal["answer", "response"]
    expect: NotRequired[bool]  # the right verdict; cases without it are graded and not counted
    confidence: NotRequired[str]  # cases are counted by it
    kind: NotRequired[str]  # wrong cases are counted by it


class CaseVerdict(TypedDict):
    """One line of the written file."""

    id: Any
    verdict: bool
    seconds: float
    reason: str  # why the answer is right; "different", "out of bounds" or "no answer"


def run_cases(cases_path: str | Path, out_path: str | Path, settings: Grading) -> str:
    """Grade a file of cases (JSON lines), and write a JSON line with the verdict on each.

    Returns a table of the cases that have `expect`: right and wrong ones by `confidence`, and the wrong ones by `kind`.
    Raises ValueError for a file that cannot be read or written, and for a line that is not a case.
    """
    tally = _Tally()
    try:
        with open(cases_path, encoding="utf-8") as cases, open(out_path, "w", encoding="utf-8") as out:
            _grade_all(cases, out, str(cases_path), settings, tally)
    except OSError as error:
        name = error.filename or out_path
        raise ValueError(f"{name}: {error.strerror}; give --cases a readable and --out a writable FILE") from None
    return tally.table()


def _grade_all(cases: TextIO, out: TextIO, name: str, settings: Grading, tally: "_Tally") -> None:
    values = ValueCache(workers=1, timeout_s=settings.timeout_s, memory_mb=settings.memory_mb)
    try:
        for number, line in _lines(cases, name):
            if line.strip():
                values.start()  # a child process that was killed is replaced before the next case's time starts
                case = _read_case(line, f"{name}:{number}")
                verdict = _grade_case(case, values, settings)
                tally.add(case, verdict)
                print(json.dumps(verdict), file=out)
                values.trim()
    finally:
        values.close()


def _lines(cases: TextIO, name: str) -> Iterator[tuple[int, str]]:
    try:
        yield from enumerate(cases, 1)
    except UnicodeDecodeError as error:
        raise ValueError(f"{name}: not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from None


def _read_case(line: str, place: str) -> Case:
    try:
        case: Case = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{place} is not JSON ({error}); expected id, gold, prediction, form") from None
    if not isinstance(case, dict):
        raise ValueError(f"{place} is not an object; expected id, gold, prediction, form")
    if absent := sorted(Case.__required_keys__ - case.keys()):
        raise ValueError(f"{place} has no {', '.join(absent)}; expected id, gold, prediction, form")
    if case["form"] not in ("answer", "response"):
        raise ValueError(f"{place} has form {case['form']!r}; expected 'answer' or 'response'")
    return case


def _grade_case(case: Case, values: ValueCache, settings: Grading) -> CaseVerdict:
    start = time.perf_counter()
    text, gold = case["prediction"], str(case["gold"])
    if case["form"] == "response":
        text = extract(str(text), extraction=settings.extraction, boxes=settings.boxes).text
    right, reason = False, "no answer"
    if text is not None:
        text = str(text)
        values.compute([requests_of(gold), requests_of(text)])
        match_reason = match(read_with_values(gold, values), read_with_values(text, values), values.lookup, settings)
        beyond = is_lost(text, values) or is_out_of_bounds(text, values)
        right, reason = match_reason is not None, match_reason or ("out of bounds" if beyond else "different")
    seconds = round(time.perf_counter() - start, 6)
    return {"id": case["id"], "verdict": right, "seconds": seconds, "reason": reason}


class _Tally:
    """Counts of cases by outcome."""

    def __init__(self) -> None:
        self.cases = self.out_of_bounds = 0
        self.outcomes: Counter[tuple[str, str]] = Counter()  # (confidence, outcome)
        self.wrong: Counter[str] = Counter()  # kind

    def add(self, case: Case, verdict: CaseVerdict) -> None:
        self.cases += 1
        self.out_of_bounds += verdict["reason"] == "out of bounds"
        if "expect" not in case:
            return
        wrong = "false equal" if verdict["verdict"] else "false different"
        outcome = "right" if verdict["verdict"] == case["expect"] else wrong
        self.outcomes[str(case.get("confidence", "labelled")), outcome] += 1
        if outcome != "right":
            self.wrong[str(case.get("kind", "no kind"))] += 1

    def table(self) -> str:
        lines = [f"cases: {self.cases}, out of bounds: {self.out_of_bounds}"]
        for confidence in sorted({name for name, _ in self.outcomes}):
            counts = [self.outcomes[confidence, outcome] for outcome in OUTCOMES]
            shown = ", ".join(f"{count} {outcome}" for count, outcome in zip(counts, OUTCOMES, strict=True))
            lines.append(f"{confidence}: {sum(counts)} cases, {shown}")
        if self.wrong:
            lines.append("wrong by kind: " + ", ".join(f"{kind} {count}" for kind, count in self.wrong.most_common(20)))
        return "\n".join(lines)
