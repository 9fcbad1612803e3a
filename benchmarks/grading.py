"""How fast responses are graded, compared with Math-Verify called on one response after another.

The questions are real: each has a real gold answer, and its responses are drawn from the answers of 44 models to that
question (GSM8K test, MATH level 5). The text before an answer is a real response of a Qwen2.5-Math model. Extraction,
verdicts, clusters and writing the JSON lines are timed; the time to build the responses is measured first and
subtracted.

    python benchmarks/grading.py --data ../shared/data                      # 7,500 questions x 128 responses
    python benchmarks/grading.py --data ../shared/data --questions 750      # a tenth of it

Exit status 1 if grading is less than 50 times as fast (`--least`), or if fewer than 90 % of the verdicts on a sample of
responses are equal to Math-Verify's: a speed-up counts only with the same verdicts.
"""

import argparse
import gzip
import json
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from east.grading import Grading, QuestionToGrade, Summary, grade
from east.grading.grader import requests_of
from east.grading.value_cache import ValueCache

POOLS = ("zeroeval_gsm8k_test_pooled_answers.jsonl.gz", "zeroeval_math_l5_pooled_answers.jsonl.gz")
RESPONSES = "qwen25math_cot_100x8.jsonl.gz"
LEAST_EQUAL = 0.9  # share of verdicts equal to Math-Verify's
SHARE_CUT = 0.02  # of responses, cut at the token limit


def rows(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def load(data: Path, questions: int, responses: int, seed: int = 0) -> Iterator[QuestionToGrade]:
    """Questions with responses, built one at a time."""
    random_ = random.Random(seed)
    pools = [(row["gold"], list(row["answers"].values())) for name in POOLS for row in rows(data / name)]
    bodies = [text.rsplit("\\boxed", 1)[0] for row in rows(data / RESPONSES) for text in row["code"]]
    for index in range(questions):
        gold, answers = pools[index % len(pools)]
        drawn = random_.choices(answers, k=responses)
        texts = [_response(random_.choice(bodies), answer) for answer in drawn]
        cut = ["length" if random_.random() < SHARE_CUT else "stop" for _ in texts]
        yield {
            "question": str(index), "gold": gold, "sample": list(range(responses)), "text": texts,
            "finish_reason": cut,
        }  # fmt: skip


def _response(body: str, answer: str | None) -> str:
    return body if answer is None else f"{body}\\boxed{{{answer}}}$."


def naive(data: Path, sample: int) -> tuple[float, float]:
    """(seconds per response, share of verdicts equal to the grader's) of Math-Verify, called as in its README."""
    from math_verify import parse, verify

    questions = list(load(data, max(1, sample // 4), 4, seed=1))
    pairs = [(row["gold"], text) for row in questions for text in row["text"]]
    start = time.perf_counter()
    verdicts = [verify(parse(f"${gold}$"), parse(text)) for gold, text in pairs]
    seconds = time.perf_counter() - start
    graded = [correct for row in grade(questions, Grading()) for correct in row["correct"]]
    equal = sum(one == other for one, other in zip(graded, verdicts, strict=True))
    return seconds / len(pairs), equal / len(pairs)


def irrational(count: int, workers: int) -> float:
    """Values per second of distinct answers that are not rational: surds, logarithms, functions, inequalities."""
    forms = (
        r"%d\sqrt{%d}+\frac{%d\pi}{%d}", r"\frac{%d+\sqrt[3]{%d}}{%d+\sqrt{%d}}", r"\sqrt{%d+%d\sqrt{%d}}+%d",
        r"\arctan\frac{%d}{%d}+\ln(%d+\sqrt{%d})", r"\frac{x^2+%dx+\sqrt{%d}}{y-%d}+%d", r"e^{%dx+%d}\sin(%d x)+%d",
        "y=%dx^3+%dx^2+%dx+%d", "%dx^2+%dy^2<%dx+%d",
    )  # fmt: skip
    numbers = random.Random(0)
    answers = {forms[n % len(forms)] % tuple(numbers.randint(2, 999) for _ in range(4)) for n in range(count)}
    requests = [requests_of(answer) for answer in answers]
    values = ValueCache(workers=workers)
    values.start()
    start = time.perf_counter()
    values.compute(requests)
    seconds = time.perf_counter() - start
    values.close()
    return len(answers) / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--questions", type=int, default=7500)
    parser.add_argument("--responses", type=int, default=128)
    parser.add_argument("--naive", type=int, default=400, help="responses graded by Math-Verify")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--least", type=float, default=50.0, help="smallest speed-up that passes")
    arguments = parser.parse_args()

    shape = (arguments.data, arguments.questions, arguments.responses)
    start = time.perf_counter()
    lengths = [len(text) for question in load(*shape) for text in question["text"]]
    building = time.perf_counter() - start
    total, median = len(lengths), statistics.median(lengths)
    print(f"responses: {total:,}, {sum(lengths) / 1e6:,.0f} MB of text, median {median:.0f} characters")

    settings = Grading(math_verify_sample=0, workers=arguments.workers)
    summary = Summary(settings)
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as out:
        start = time.perf_counter()
        for graded in grade(load(*shape), settings, summary=summary):
            out.write(json.dumps(graded) + "\n")
        out.flush()
        seconds = time.perf_counter() - start
        size = Path(out.name).stat().st_size
    net = seconds - building
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"graded: {seconds:.1f} s in all, {net:.1f} s without building the responses")
    print(f"rate: {total / net:,.0f} responses/s")
    print(f"distinct irrational answers: {irrational(5_000, arguments.workers):,.0f}/s")
    print(f"written: {size / 1e6:,.0f} MB; peak memory of this process {memory:,.0f} MB")
    report = {key: value for key, value in summary.report().items() if key != "math_verify"}
    print(json.dumps(report))
    each, equal = naive(arguments.data, arguments.naive)
    ratio = total / net * each
    print(
        f"Math-Verify, one response after another on one core: {1 / each:,.1f} responses/s; equal verdicts: {equal:.1%}"
    )
    print(f"speed-up: {ratio:,.0f} times")
    if ratio < arguments.least or equal < LEAST_EQUAL:
        sys.exit(f"expected at least {arguments.least:g} times and {LEAST_EQUAL:.0%} equal verdicts")


if __name__ == "__main__":
    main()
