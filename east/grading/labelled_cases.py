"""Labelled cases: the grader tried on one answer at a time (`python -m east grade --cases FILE --out OUT`)."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from east.grading.extraction import extract
from east.grading.grader import is_lost, is_out_of_bounds, requests_of, valued
from east.grading.matching import match
from east.grading.options import Grading
from east.grading.value_cache import Values
from east.run import config, validation, yaml_file

FIELDS = {"id", "gold", "prediction", "form"}
OUTCOMES = ("right", "false equal", "false different")
Verdict = dict[str, Any]


def main(cases_path: str | Path, out_path: str | Path, overrides: list[str]) -> None:
    """Grade a file of cases under `grading.key=value` settings and print what became of the labelled ones.

    Raises ValueError for a setting outside the grading section, and as `run_cases` does.
    """
    values: dict[str, Any] = {"grading": {"extraction": "last number"}}
    for override in overrides:
        if not override.startswith("grading."):
            raise ValueError(f"found {override!r}, expected grading.key=value: --cases takes no other settings")
        yaml_file.apply(values, override)
    options = validation.validate(config.Grading, values["grading"], "grading").model_dump()
    print(run_cases(cases_path, out_path, **options))


def run_cases(cases_path: str | Path, out_path: str | Path, **options: Any) -> str:
    """Grade labelled cases: JSON lines with id, gold, prediction and form ("answer" or "response").

    Writes one JSON line each: id, verdict, seconds, reason. A response without a marked answer is graded by
    its last number unless `extraction` says otherwise: a case is judged alone, there is no cluster to
    protect. Returns a table of the cases with `expect` by `confidence`, and the wrong ones by `kind`. Raises
    ValueError for a file that cannot be read or written and, naming file and line, for a line that is no such case.
    """
    settings = Grading(**{"extraction": "last number", **options})
    tally = _Tally()
    try:
        with open(cases_path, encoding="utf-8") as cases, open(out_path, "w", encoding="utf-8") as out:
            _grade_all(cases, out, str(cases_path), settings, tally)
    except OSError as error:
        name = error.filename or out_path
        raise ValueError(f"{name}: {error.strerror}; give --cases a readable and --out a writable FILE") from None
    return tally.table()


def _grade_all(cases: TextIO, out: TextIO, name: str, settings: Grading, tally: "_Tally") -> None:
    values = Values(workers=1, timeout_s=settings.timeout_s, memory_mb=settings.memory_mb)
    try:
        for number, line in _lines(cases, name):
            if line.strip():
                values.start()  # a killed child is replaced between cases, not in the next one's time
                case = _read_case(line, f"{name}:{number}")
                verdict = _grade_case(case, values, settings)
                tally.add(case, verdict)
                print(json.dumps(verdict), file=out)
                values.forget()
    finally:
        values.close()


def _lines(cases: TextIO, name: str) -> Iterator[tuple[int, str]]:
    try:
        yield from enumerate(cases, 1)
    except UnicodeDecodeError as error:
        raise ValueError(f"{name}: not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from None


def _read_case(line: str, place: str) -> dict[str, Any]:
    try:
        case = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{place} is not JSON ({error}); expected id, gold, prediction, form") from None
    if not isinstance(case, dict) or (absent := FIELDS - case.keys()):
        raise ValueError(f"{place} lacks {sorted(absent) if isinstance(case, dict) else 'its fields'}")
    if case["form"] not in ("answer", "response"):
        raise ValueError(f"{place} has form {case['form']!r}; expected 'answer' or 'response'")
    return case


def _grade_case(case: dict[str, Any], values: Values, settings: Grading) -> Verdict:
    start = time.perf_counter()
    text, gold = case["prediction"], str(case["gold"])
    if case["form"] == "response":
        text = extract(str(text), extraction=settings.extraction, boxes=settings.boxes).text
    found, reason = None, "no answer"
    if text is not None:
        text = str(text)
        values.ask([requests_of(gold), requests_of(text)])
        found = match(valued(gold, values), valued(text, values), values.lookup, settings)
        beyond = is_lost(text, values) or is_out_of_bounds(text, values)
        reason = found or ("out of bounds" if beyond else "different")
    seconds = round(time.perf_counter() - start, 6)
    return {"id": case["id"], "verdict": found is not None, "seconds": seconds, "reason": reason}


class _Tally:
    """Cases counted by what was expected and found."""

    def __init__(self) -> None:
        self.cases = self.out_of_bounds = 0
        self.outcomes: Counter[tuple[str, str]] = Counter()  # (confidence, outcome)
        self.wrong: Counter[str] = Counter()  # kind

    def add(self, case: dict[str, Any], verdict: Verdict) -> None:
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
