"""Errors with fewer responses: entropy estimators at small n, and adaptive sampling, simulated on stored answers.

It takes the first responses of every question, as a run with a lower n would have drawn them, and compares entropies
and weights with a reference: the true entropies of a synthetic population, or for a graded folder the paper's estimate
from all stored responses (which is itself too small, and favours the plug-in estimator).

    python benchmarks/adaptive.py                                         # synthetic, true entropies known
    python benchmarks/adaptive.py --graded runs/x/round_1/graded [more, of other seeds]
"""

import argparse
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from east.run import files
from east.weighting import weights
from east.weighting.entropy import ESTIMATORS, plugin, settled

SIZES = (4, 8, 16, 32, 64, 128)
TOLERANCES = (0.01, 0.015, 0.02, 0.03, 0.04, 0.06)
RIGHT = (0.7, 0.5)  # parameters of the Beta distribution of the right answer's probability


def synthetic(questions: int, n: int, right_share: tuple[float, float], seed: int) -> tuple[list[Any], np.ndarray]:
    """Answers [n] of each question (0 is right) and true entropies [questions], in nats.

    The probability of the right answer is from Beta(right_share), often near 0 or 1. The 1 to 300 wrong answers
    (log-uniform) share the rest as j^-s, with s from 0.8 to 2: a few frequent errors and a long tail.
    """
    rng = np.random.default_rng(seed)
    answers, entropies = [], np.empty(questions)
    for i in range(questions):
        tail = np.arange(1, int(np.exp(rng.uniform(0, np.log(300)))) + 1) ** -rng.uniform(0.8, 2.0)
        right = rng.beta(*right_share)
        p = np.concatenate([[right], (1 - right) * tail / tail.sum()])
        entropies[i] = -(p * np.log(np.maximum(p, 1e-300))).sum()
        answers.append(rng.choice(p.size, size=n, p=p / p.sum()))
    return answers, entropies


def stored(folders: list[Path]) -> tuple[list[Any], np.ndarray]:
    """Answers of each question, in the order in which they were drawn (0 is right, -1 is excluded), and entropies in
    nats; without the questions whose responses are all excluded."""
    answers, entropies = [], []
    for row in itertools.chain.from_iterable(files.read_jsonl(folder / "questions.jsonl") for folder in folders):
        right = [c["correct"] for c in row["clusters"]]
        order = [-1 if k < 0 else 0 if right[k] else k + 1 for k in row["cluster"]]
        if max(order) >= 0:
            answers.append(np.array(order))
            entropies.append(plugin([c["count"] for c in row["clusters"]]))
    return answers, np.array(entropies)


def counts(answers: np.ndarray) -> list[int]:
    """Sizes of the clusters of answers."""
    sizes = np.bincount(answers[answers >= 0])
    return [int(c) for c in sizes[sizes > 0]]


def stop(answers: np.ndarray, first: int, more: int, tolerance: float) -> int:
    """Number of responses that sampling.adaptive would have drawn."""
    n = min(first, answers.size)
    while n < answers.size and not settled(counts(answers[:n]), tolerance):
        n = min(n + more, answers.size)
    return n


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks of the values; equal values have their mean rank."""
    _, index, ties = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(ties) - (ties - 1) / 2)[index]


def compare(
    answers: list[Any], drawn: list[int], reference: np.ndarray, estimator: Callable[[list[int]], float], a: float
) -> dict[str, float]:
    """Errors of the entropies (nats) and of the weights (whose mean is 1) from the first `drawn` responses."""
    h = np.array([estimator(counts(row[:n]) or [1]) for row, n in zip(answers, drawn, strict=True)])  # no answer: 0
    w, true = weights.power_mapping(h, a), weights.power_mapping(reference, a)
    return {
        "bias": float((h - reference).mean()),
        "rmse": float(np.sqrt(((h - reference) ** 2).mean())),
        "weight_error": float(np.abs(w - true).mean()),
        "spearman": float(np.corrcoef(ranks(w), ranks(true))[0, 1]),
    }


def lost(answers: list[Any], drawn: list[int]) -> float:
    """Among the questions with a right response, the share without one in the first `drawn` responses."""
    kept = [(row[:n] == 0).any() for row, n in zip(answers, drawn, strict=True) if (row == 0).any()]
    return 1 - float(np.mean(kept))


def show(name: str, row: dict[str, float]) -> None:
    """Print a row of the table."""
    cells = [f"{row[k]:+.3f}" if k == "bias" else f"{row[k]:.3f}" for k in ("bias", "rmse", "weight_error", "spearman")]
    print(f"| {name} | {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--graded", type=Path, nargs="+", default=[], help="graded folders, pooled; default: a synthetic population"
    )
    parser.add_argument("--questions", type=int, default=2000, help="of the synthetic population")
    parser.add_argument("--n", type=int, default=128, help="responses per question of the synthetic population")
    parser.add_argument(
        "--right", type=float, nargs=2, default=RIGHT, help="Beta parameters; for a confident model: 0.6 0.15"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--a", type=float, default=1.0, help="exponent of the weights")
    parser.add_argument("--first", type=int, default=16)
    parser.add_argument("--more", type=int, default=16)
    parser.add_argument("--tolerances", type=float, nargs="+", default=TOLERANCES)
    arguments = parser.parse_args()
    for folder in arguments.graded:
        if not (folder / "questions.jsonl").exists():
            parser.error(f"--graded {folder}: found no questions.jsonl; give a run's round_1/graded")
    answers, reference = (
        stored(arguments.graded)
        if arguments.graded
        else synthetic(arguments.questions, arguments.n, arguments.right, arguments.seed)
    )
    full = [row.size for row in answers]
    quantiles = np.quantile(reference, [0.1, 0.5, 0.9])
    print(f"{len(answers)} questions, {min(full)} to {max(full)} responses each; reference entropy: mean "
          f"{reference.mean():.3f} nats, 10/50/90 % {', '.join(f'{q:.2f}' for q in quantiles)}")  # fmt: skip

    result: dict[str, Any] = {"questions": len(answers), "mean_entropy": float(reference.mean())}
    result |= {"fixed": [], "adaptive": []}
    print("\n| n, estimator | bias of h | RMSE of h | error of w | Spearman |\n|---|---|---|---|---|")
    for size in [s for s in SIZES if s <= max(full)]:
        drawn = [min(size, n) for n in full]
        for name, estimator in ESTIMATORS.items():
            row = compare(answers, drawn, reference, estimator, arguments.a)
            show(f"{size}, {name}", row)
            result["fixed"].append({"n": size, "estimator": name, **row, "right_lost": lost(answers, drawn)})

    print("\n| tolerance: share saved, right answers lost; estimator | bias of h | RMSE of h | error of w | Spearman |")
    print("|---|---|---|---|---|")
    for tolerance in arguments.tolerances:
        drawn = [stop(row, arguments.first, arguments.more, tolerance) for row in answers]
        saved, even = 1 - sum(drawn) / sum(full), round(float(np.mean(drawn)))
        for plan, sizes in (("adaptive", drawn), (f"{even} each", [min(even, n) for n in full])):
            for name in ("plugin", "chao_wang_jost"):
                row = compare(answers, sizes, reference, ESTIMATORS[name], arguments.a)
                row["right_lost"] = lost(answers, sizes)
                show(f"{tolerance:g}: {saved:.0%}, {row['right_lost']:.1%}; {plan}, {name}", row)
                entry = {"tolerance": tolerance, "saved": saved, "plan": plan, "estimator": name}
                result["adaptive"].append({**entry, **row})
    print(json.dumps(result))


if __name__ == "__main__":
    main()
