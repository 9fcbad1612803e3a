"""What a stage says when it has ended: the folder and a few lines that matter. All counts are in its manifest."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from east.grading import DIFFERENCES, not_found_notice

Summary = dict[str, Any]


def show(kind: str, folder: Path, summary: Summary) -> None:
    """Print the lines of a folder's summary; counts of zero are left out."""
    print(f"{kind}: {folder}")
    for line in LINES[kind](summary):
        print(f"    {line}")


def _samples(s: Summary) -> Iterator[str]:
    yield f"{s['questions']:,} questions, {s['responses']:,} responses, {s['tokens']:,} tokens"
    if drawn := s.get("drawn_by"):
        speed = f", {s['tokens_per_second']:,.0f} tokens/s" if s["tokens_per_second"] else ""
        yield f"drawn by {drawn['engine']} on {drawn['device']}{speed}"
    if "share_saved" in s:
        numbers = ", ".join(f"{n}: {count:,}" for n, count in s["questions_with_responses"].items())
        yield f"adaptive: {s['share_saved']:.0%} of the responses saved; questions by number of responses: {numbers}"
    yield from _counts({"cut by max_tokens": s["truncated"], "end assumed": s.get("finish_reason_assumed_stop", 0)})
    yield from _left_out(s)


def _graded(s: Summary) -> Iterator[str]:
    entropy = f", mean entropy {s['mean_entropy']:.3f} nats" if s["responses"] > s["questions"] else ""
    yield f"{s['questions']:,} questions, {s['responses']:,} responses: accuracy {s['accuracy']:.1%}{entropy}"
    yield from _counts(s["sources"], "answers from: ")
    names = ("missing", "excluded", "truncated", "timeouts", "out_of_bounds", "merged", "empty_gold")
    yield from _counts({name.replace("_", " "): s[name] for name in names})
    if line := not_found_notice(s["no_answer"]):
        yield line
    if disagree := s["math_verify"]["disagree"]:
        kinds = ", ".join(_counts({kind.replace("_", " "): s["math_verify"][kind] for kind in DIFFERENCES}))
        yield f"Math-Verify differs on {disagree} of {s['math_verify']['compared']} ({kinds}): report.json"


def _dataset(s: Summary) -> Iterator[str]:
    yield f"{s['examples']:,} examples of {s['questions']:,} questions"
    yield from _left_out(s)


def _weights(s: Summary) -> Iterator[str]:
    a = f"a = {s['a']:.4g}, " if "a" in s else ""
    size = f"effective sample size {s['effective_sample_size']:,.0f} ({s['effective_share']:.0%})"
    yield f"{s['examples']:,} examples, {a}weights from {s['min']:.3g} to {s['max']:.3g}, {size}"
    if s["share_zero"]:
        yield f"weight zero: {s['share_zero']:.1%} of them"
    if s["left_out"]:
        yield f"left out: {s['left_out']:,} whose value is 0"


def _reference(s: Summary) -> Iterator[str]:
    yield f"{s['sequences']:,} sequences, mean log-probability per token {s['mean_logprob_per_token']:.4f}"


def _left_out(s: Summary) -> Iterator[str]:
    for name in ("questions_left_out", "responses_left_out", "questions_dropped"):
        yield from _counts(s.get(name, {}), name.replace("_", " ") + ": ")


def _counts(counts: dict[str, int], title: str = "") -> Iterator[str]:
    if any(counts.values()):
        yield title + ", ".join(f"{name} {count:,}" for name, count in counts.items() if count)


LINES = {
    "samples": _samples,
    "graded": _graded,
    "dataset": _dataset,
    "weights": _weights,
    "reference": _reference,
}
