"""How fast responses are graded, against Math-Verify called naively on a sample of the same.

The load is made of real material: every question takes a real question's gold and draws its responses'
answers from what 44 models answered to it (GSM8K test, MATH level 5); the text before an answer is a real
response of a Qwen2.5-Math model. Extraction, verdicts, clusters and the written JSON lines are timed; making
the load is timed apart and subtracted.

    python benchmarks/grading.py --data ../shared/data                      # 7,500 questions x 128 responses
    python benchmarks/grading.py --data ../shared/data --questions 750      # a tenth of it

Ends with status 1 where grading is less than 50 times as fast (`--least`), or where the two agree on fewer than 90 %
of the sampled responses: a fast grader whose verdicts are others is no faster grader.
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

from east.grading.grader import Summary, grade

POOLS = ("zeroeval_gsm8k_test_pooled_answers.jsonl.gz", "zeroeval_math_l5_pooled_answers.jsonl.gz")
RESPONSES = "qwen25math_cot_100x8.jsonl.gz"
LEAST_EQUAL = 0.9  # share of verdicts that Math-Verify shares
SHARE_CUT = 0.02  # of responses that met the length limit


def rows(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def load(data: Path, questions: int, responses: int, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Questions with responses, made one at a time."""
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
    """(seconds a response, share of equal verdicts) of Math-Verify as its README calls it, one after another."""
    from math_verify import parse, verify

    questions = list(load(data, max(1, sample // 4), 4, seed=1))
    pairs = [(row["gold"], text) for row in questions for text in row["text"]]
    start = time.perf_counter()
    verdicts = [verify(parse(f"${gold}$"), parse(text)) for gold, text in pairs]
    seconds = time.perf_counter() - start
    ours = [correct for graded in grade(questions, math_verify_sample=0) for correct in graded["correct"]]
    equal = sum(one == other for one, other in zip(ours, verdicts, strict=True))
    return seconds / len(pairs), equal / len(pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--questions", type=int, default=7500)
    parser.add_argument("--responses", type=int, default=128)
    parser.add_argument("--naive", type=int, default=400, help="responses given to Math-Verify")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--least", type=float, default=50.0, help="the ratio below which this fails")
    arguments = parser.parse_args()

    shape = (arguments.data, arguments.questions, arguments.responses)
    start = time.perf_counter()
    lengths = [len(text) for question in load(*shape) for text in question["text"]]
    making = time.perf_counter() - start
    total, median = len(lengths), statistics.median(lengths)
    print(f"load: {total:,} responses, {sum(lengths) / 1e6:,.0f} MB of text, median {median:.0f} characters")

    summary = Summary(math_verify_sample=0)
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as out:
        start = time.perf_counter()
        for graded in grade(load(*shape), summary=summary, workers=arguments.workers):
            out.write(json.dumps(graded) + "\n")
        out.flush()
        seconds = time.perf_counter() - start
        size = Path(out.name).stat().st_size
    net = seconds - making
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"graded: {seconds:.1f} s in all, {net:.1f} s without making the load")
    print(f"rate: {total / net:,.0f} responses/s")
    print(f"written: {size / 1e6:,.0f} MB; peak memory of this process {memory:,.0f} MB")
    report = {key: value for key, value in summary.report().items() if key != "math_verify"}
    print(json.dumps(report))
    each, equal = naive(arguments.data, arguments.naive)
    ratio = total / net * each
    print(f"Math-Verify, naively, one core: {1 / each:,.1f} responses/s; equal verdicts: {equal:.1%}")
    print(f"ratio: {ratio:,.0f} times")
    if ratio < arguments.least or equal < LEAST_EQUAL:
        sys.exit(f"expected at least {arguments.least:g} times and {LEAST_EQUAL:.0%} equal verdicts")


if __name__ == "__main__":
    main()
