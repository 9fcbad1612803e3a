"""Statistics of stored responses: whether wrong answers agree, and whether right answers have right steps.

For the arithmetic task, whose steps are calculations such as 3*8=24. A verdict depends on the final answer only; where
steps are wrong, the answer is right by chance, and training on the response teaches wrong steps.

    python benchmarks/responses.py runs/x/round_1 [more rounds, of other seeds]

Of the questions with ten or more wrong responses, it prints the share of stubborn ones (one answer has two thirds or
more of the wrong responses) and of scattered ones (no answer has more than a third). Of the questions with a right
response, it prints the mean share of valid solutions among the right responses, by entropy and under the weights h^a.
"""

import argparse
import json
import re
from pathlib import Path

import numpy as np

from east.report import weights_by_question
from east.run import files, pipeline
from east.sampling import samples

STEP = re.compile(r"(\d+)([-+*/])(\d+)=(-?\d+)")
BINS = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0)  # lower edges, nats
EXPONENTS = [-1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0]


def valid(text: str) -> bool:
    """Whether every line with an equals sign is a right calculation of two numbers."""
    return all(is_right(line) for line in text.split("\n") if "=" in line)


def is_right(step: str) -> bool:
    """Whether the step has the form `a op b=c` and is right."""
    if not (match := STEP.fullmatch(step)):
        return False
    x, sign, y, result = int(match[1]), match[2], int(match[3]), int(match[4])
    if sign == "/":
        return y != 0 and x == y * result
    return {"+": x + y, "-": x - y, "*": x * y}[sign] == result


def valid_shares(round_folder: Path) -> list[tuple[float, float]]:
    """(entropy in nats, share of valid solutions among right responses) of each question with a right response."""
    shares = []
    graded = files.read_jsonl(round_folder / "graded" / "questions.jsonl")
    for verdicts, row in zip(graded, samples.read(pipeline.at("samples", round_folder / "samples")), strict=True):
        assert verdicts["question"] == row["question"]
        right = [text for text, correct in zip(row["text"], verdicts["correct"], strict=True) if correct]
        if right:
            shares.append((verdicts["entropy"], float(np.mean([valid(text) for text in right]))))
    return shares


def agreement(round_folder: Path, least: int = 10) -> list[float]:
    """For each question with at least `least` wrong responses, the share of them in the largest wrong cluster."""
    shares = []
    for row in files.read_jsonl(round_folder / "graded" / "questions.jsonl"):
        wrong = [cluster["count"] for cluster in row["clusters"] if not cluster["correct"]]
        if sum(wrong) >= least:
            shares.append(max(wrong) / sum(wrong))
    return shares


def by_entropy(h: np.ndarray, share: np.ndarray) -> list[dict[str, float]]:
    """Number of questions and mean share of valid solutions in each of BINS that has questions."""
    index = np.digitize(h, BINS) - 1
    groups = ((BINS[k], share[index == k]) for k in np.unique(index))
    return [{"from": low, "questions": group.size, "valid": float(group.mean())} for low, group in groups]


def by_weight(h: np.ndarray, share: np.ndarray) -> list[dict[str, float]]:
    """Share of valid solutions with the weights h^a, one example per question, and effective sample size over N."""
    rows = []
    for a, ess in zip(EXPONENTS, weights_by_question.effective_shares(h, EXPONENTS), strict=True):
        w, _ = weights_by_question.power_weights(h, a)
        rows.append({"a": a, "valid": float(w @ share / w.sum()), "effective_sample_size": ess})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("rounds", type=Path, nargs="+", help="round folders with samples/ and graded/, pooled")
    rounds = parser.parse_args().rounds
    for folder in rounds:
        if not (folder / "graded" / "questions.jsonl").exists():
            parser.error(f"{folder}: found no graded/questions.jsonl; give a run's round_1")
    h, share = np.array([pair for folder in rounds for pair in valid_shares(folder)]).T
    wrong = np.array([value for folder in rounds for value in agreement(folder)])
    stubborn, scattered = float((wrong >= 2 / 3).mean()), float((wrong <= 1 / 3).mean())
    print(f"{wrong.size} questions with ten or more wrong responses: ", end="")
    print(f"{stubborn:.0%} stubborn, {scattered:.0%} scattered\n")
    bins, exponents = by_entropy(h, share), by_weight(h, share)
    print("| entropy from | questions | valid solutions among right responses |\n|---|---|---|")
    for row in bins:
        print(f"| {row['from']:g} | {row['questions']} | {row['valid']:.1%} |")
    print("\n| a | valid solutions, by weight | effective sample size / N |\n|---|---|---|")
    for row in exponents:
        print(f"| {row['a']:g} | {row['valid']:.1%} | {row['effective_sample_size']:.2f} |")
    result = {"questions": h.size, "stubborn": stubborn, "scattered": scattered}
    print(json.dumps({**result, "by_entropy": bins, "by_weight": exponents}))


if __name__ == "__main__":
    main()
