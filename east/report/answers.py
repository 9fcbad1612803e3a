"""Where the answers of a run's responses were found, and responses to look at."""

from typing import Any

from east.grading import SOURCES, not_found_advice, printable
from east.report.document import Section, Table
from east.run.artifacts import Artifact


def sections(title: str, graded: Artifact) -> list[Section]:
    """The sources of the answers, responses without an answer, and disagreements with Math-Verify.

    [] for a folder that was graded before these were counted.
    """
    found = graded.open().summary
    if "no_answer" not in found:
        return []
    responses, no_answer = found["responses"], found["no_answer"]
    text = [f"{responses:,} responses, {found['correct']:,} right, {found['missing']:,} without an answer."]
    if found["conflicting_marks"]:
        text.append(f"In {found['conflicting_marks']:,} responses marks of one kind disagree; the last one is taken.")
    if advice := not_found_advice(no_answer):
        share = f"{no_answer['missing']:,} of {no_answer['ended']:,} responses that ended have no answer"
        text.append(f"{share}. {advice}.")
    counts = [(source, found["sources"][source]) for source in SOURCES]
    rows = [[source, f"{count:,}", f"{count / max(1, responses):.1%}"] for source, count in counts if count]
    tables = [Table(["answer found in", "responses", "share"], rows)]
    if no_answer["endings"]:
        rows = [[ending["text"], f"{ending['count']:,}"] for ending in no_answer["endings"]]
        tables.append(
            Table(
                ["last line", "responses"],
                rows,
                "The commonest last lines without an answer, counted by their first word.",
                texts=True,
            )
        )
    if no_answer["responses"]:
        tables.append(_unanswered(no_answer["responses"], found["missing"]))
    if found["math_verify"]["disagreements"]:
        tables.append(_disagreements(found["math_verify"]))
    return [Section(title, text, tables)]


def _unanswered(responses: list[dict[str, Any]], missing: int) -> Table:
    rows = [
        [r["question"], str(r["sample"]), "cut" if r["truncated"] else "ended", r["text"]] for r in responses
    ]  # fmt: skip
    note = f"A random {len(rows)} of {missing:,} responses without an answer, and how they end."
    return _texts(["question", "sample", "", "end of the response"], rows, note)


def _disagreements(found: dict[str, Any]) -> Table:
    """Answers on which the grader and Math-Verify differ."""
    verdicts = {True: "right", False: "wrong", None: "no answer"}
    rows = []
    for r in found["disagreements"]:
        ours = verdicts[None if r["answer"] is None else r["correct"]]
        answers = [r["gold"], r["answer"] or "", ours, verdicts[r["math_verify"]]]
        rows.append([r["question"], str(r["sample"]), *answers, r["text"]])
    note = (
        f"Math-Verify read {found['compared']:,} of the answers as well and differs on {found['disagree']:,}: another "
        f"verdict on {found['other_verdict']:,}, no answer where the grader found one on {found['only_grader']:,}, an "
        f"answer where the grader found none on {found['only_math_verify']:,}."
    )
    return _texts(["question", "sample", "gold", "answer", "grader", "Math-Verify", "end of the response"], rows, note)


def _texts(header: list[str], rows: list[list[str]], note: str) -> Table:
    return Table(header, [[printable(cell) for cell in row] for row in rows], note, texts=True)
