"""A synthetic study: study.json and its folders, written in their formats with random verdicts; no model is run.

The true effects are known: seeds share each question's chance of a right answer, and EAST adds `lift` to it.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from east.data import indexed_dataset
from east.evaluation import compare
from east.run import config, files
from east.weighting import weights
from tests.stages import folder_of

QUESTIONS, TESTS, N = 60, 200, 16
HOSTILE = (
    "</script><script>window.pwned=1</script>", "<img src=x onerror=window.pwned=2>", "\u2028\u2029]]>-->",
    "\ud800 half a pair", "$title ${data} {{x}} `${window.pwned=3}`", "&lt;b&gt; \x00 \u202e",
)  # fmt: skip


def graded_row(question: str, answers: list[str | None], gold: str) -> dict[str, Any]:
    """A row of graded/questions.jsonl, every distinct answer a cluster."""
    distinct = sorted(set(answers), key=lambda a: (-answers.count(a), a or ""))
    place = {answer: k for k, answer in enumerate(distinct)}
    shares = {a: answers.count(a) / len(answers) for a in distinct}
    clusters = [{"answer": a, "count": answers.count(a), "correct": a == gold, "kind": "number"} for a in distinct]
    n = len(answers)
    return {
        "question": question, "gold": gold, "n": n, "sample": list(range(n)), "answer": answers,
        "source": ["boxed"] * n, "truncated": [False] * n, "cluster": [place[a] for a in answers],
        "correct": [a == gold for a in answers], "clusters": clusters, "k": len(distinct),
        "entropy": -sum(p * math.log(p) for p in shares.values()) + 0.0, "accuracy": shares.get(gold, 0.0),
        "rejection": max((p for a, p in shares.items() if a != gold), default=0.0), "reasons": {}, "timeouts": 0,
        "merged": 0, "string_match": [a == gold for a in answers],
    }  # fmt: skip


def write_round(folder: Path, rows: list[dict[str, Any]], texts: list[list[str]], asked: list[str]) -> None:
    """samples/ and graded/ of a round, from graded rows, the texts of their responses and of the questions."""
    n = max(row["n"] for row in rows)
    with folder_of("samples", folder / "samples", {"engine": "none"}, {}).writing() as (scratch, summary):
        drawn = [
            {"id": r["question"], "question": q, "gold": r["gold"], "meta": {}, "prompt": q, "prompt_tokens": [1]}
            for r, q in zip(rows, asked, strict=True)
        ]
        files.write_jsonl(scratch / "questions.jsonl", drawn)
        lines = (
            {"question": r["question"], "first": 0, "tokens": [[2]] * r["n"], "text": t,
             "finish_reason": ["stop"] * r["n"]} for r, t in zip(rows, texts, strict=True)
        )  # fmt: skip
        files.write_jsonl(scratch / "responses.jsonl", lines)
        summary.update(n=n, questions=len(rows))
    samples = folder_of("samples", folder / "samples").open()
    with folder_of("graded", folder / "graded", {"n": n}, {"samples": samples.fingerprint}).writing() as (scratch, s):
        files.write_jsonl(scratch / "questions.jsonl", rows)
        s.update(questions=len(rows))


def write_weights(folder: Path, loss: str, wanted: list[tuple[str, float]]) -> None:
    """dataset/<loss> with one example a question that has a right response, and weights/<loss>/... of it."""
    rows = list(files.read_jsonl(folder / "graded" / "questions.jsonl"))
    kept = [row for row in rows if any(row["correct"])]
    place = folder / "dataset" / loss
    rules = {"loss": loss, "rules": config.Examples().model_dump(mode="json")}
    graded = folder_of("graded", folder / "graded").open().fingerprint
    with folder_of("dataset", place, rules, {"graded": graded}).writing() as (scratch, summary):
        writer = indexed_dataset.Writer(scratch, 100)
        for k, row in enumerate(kept):
            sequence = writer.sequence(writer.segment([1]), writer.segment([2]), k, row["correct"].index(True))
            writer.example(k, sequence)
        writer.close([row["question"] for row in kept])
        summary.update(vocabulary=100)
    dataset = indexed_dataset.IndexedDataset(folder_of("dataset", place))
    for strategy, a in wanted:
        settings = config.Weighting(strategy=strategy, a=a, zero="drop")
        values = weights.question_values(strategy, kept)
        used = {"strategy": strategy} if strategy == "uniform" else settings.model_dump()
        how = {"strategy": strategy, "mapping": "power", "a": a, "spread": None, "zero": "drop"}
        column, kept_examples = weights.example_weights(values, **how)
        target = folder / "weights" / loss / settings.slug
        with folder_of("weights", target, used, {"dataset": dataset.fingerprint}).writing() as (scratch, summary):
            np.save(scratch / "weights.npy", column)
            np.save(scratch / "kept.npy", kept_examples)
            summary.update(weights.summary(column, kept_examples))


def random_rows(
    questions: int, n: int, rng: np.random.Generator, hostile: bool
) -> tuple[list[dict[str, Any]], list[list[str]], list[str]]:
    """(graded rows, texts, questions). Questions differ in the chance of a right answer and in how often wrong answers
    are the same; every tenth question has one answer only."""
    rows, texts, asked = [], [], []
    for k in range(questions):
        right, repeated = (1.0, 0.5) if k % 10 == 0 else (rng.beta(1, 1), rng.beta(1, 1))
        other = np.where(rng.random(n) < repeated, 7, rng.integers(100, 120, n))
        answers = [str(k) if hit else str(o) for hit, o in zip(rng.random(n) < right, other, strict=True)]
        extra = HOSTILE[k % len(HOSTILE)] if hostile else ""
        if hostile and k % 7 == 3:
            answers[0] = HOSTILE[k % 2]
        rows.append(graded_row(f"synthetic/train/{k}" + (extra if hostile and k < 6 else ""), answers, str(k)))
        steps = f"{extra} First count, then add: {k} + 0 = {k}. " * (1 + k % 4)
        texts.append([f"{steps}So the answer is {a}." for a in answers])
        asked.append(f"{extra} What is {k} + 0, in decimal?")
    return rows, texts, asked


def write_eval(folder: Path, right: np.ndarray, split: str) -> None:
    """An eval folder with a greedy verdict a question."""
    rows = [graded_row(f"synthetic/{split}/{k}", ["1" if hit else "0"], "1") for k, hit in enumerate(right)]
    with folder_of("graded", folder / "graded", {"n": 1}, {}).writing() as (scratch, summary):
        files.write_jsonl(scratch / "questions.jsonl", rows)
        summary.update(questions=len(rows))
    result = {"name": folder.name, **compare.accuracy([bool(hit) for hit in right])}
    files.write_text(folder / "results.json", json.dumps(result) + "\n")


def write(folder: Path, seeds: int = 5, lift: float = 0.15, hostile: bool = False) -> Path:
    """A study of two tasks with cells for every table and figure, one failed and one waiting; returns the folder.

    Seeds share the backbone. Of the exponents 1 is the best on the test split, 2 on held-out rows. Rounds are at n = 8.
    """
    rng = np.random.default_rng(0)
    cells: list[dict[str, Any]] = []
    sweep = {"fig3": [-1.0, 0.5, 1.0, 2.0], "fig5": [0.5, 1.0]}
    for task in ("easy", "hard"):
        ability = rng.beta(2, 2, TESTS) * 0.8
        backbone = rng.random(TESTS) < ability
        for seed in range(seeds):
            run = folder / "cells" / f"{task}-{seed}" / "round_1"
            write_round(run, *random_rows(QUESTIONS, N, rng, hostile))
            grid = [(s, a) for s in ("entropy", "accuracy", "rejection") for a in sweep["fig5"]]
            write_weights(run, "sft", [("uniform", 1.0), *grid, *(("entropy", a) for a in (-1.0, 2.0))])

            def add(
                method: str, gain: float, belongs: list[str], a: Any = None, strategy: str = "uniform",
                n: int = N, number: int = 1, task=task, seed=seed, run=run, ability=ability, backbone=backbone,
            ) -> None:  # fmt: skip
                name = f"{method}-{strategy}-{a}-{n}-{number}"
                right = backbone if method == "backbone" else rng.random(TESTS) < ability + gain
                write_eval(run / "eval" / name, right, "test")
                select = run / "eval" / f"{name}-train" if "fig3" in belongs else None
                if select:
                    write_eval(select, rng.random(80) < ability[:80] + 0.3 * (a == 2.0), "train")
                slug = config.Weighting(strategy=strategy, a=a if isinstance(a, float) else 9.0, zero="drop").slug
                column = run / "weights" / "sft" / slug
                trained = method != "backbone"
                cells.append({
                    "id": f"{task}-s{seed}-{name}", "task": task, "model": "tiny", "seed": seed,
                    "loss": "sft" if trained else None, "method": method, "strategy": strategy, "a": a,
                    "a_found": 1.3 + 0.2 * seed if a == "auto" else None, "n": n, "round": number, "in": belongs,
                    "status": "done", "error": None, "eval": str((run / "eval" / name).relative_to(folder)),
                    "eval_select": str(select.relative_to(folder)) if select else None,
                    "weights": str(column.relative_to(folder)) if trained and column.exists() else None,
                    "graded": str((run / "graded").relative_to(folder)), "train": None, "seconds": 1.0,
                    "samples": str((run / "samples").relative_to(folder)), "examples": 34 + n, "examples_left_out": 8,
                })  # fmt: skip

            add("backbone", 0.0, ["table1"])
            add("vanilla", 0.03, ["table1", "n"])
            add("lw_w", 0.1, ["table1"])
            add("lw_p", 0.02, ["table1"])
            add("east", 0.03 + lift, ["table1", "fig3", "fig5", "n"], 1.0, "entropy")
            add("east", 0.03, ["fig3"], "auto", "entropy")
            for a in (-1.0, 0.5, 2.0):
                add("east", 0.03 + lift / (1 + abs(a - 1)), ["fig3"] + ["fig5"] * (a == 0.5), a, "entropy")
            for strategy, a in grid:
                if strategy != "entropy":
                    add("east", 0.04 if strategy == "accuracy" else 0.1, ["fig5"], a, strategy)
            for number in (2, 3):
                add("vanilla", 0.02 * number, ["fig4"], n=8, number=number)
                add("east", 0.04 * number, ["fig4"], 1.0, "entropy", n=8, number=number)
            for n in (4, 8):
                add("vanilla", 0.002 * n, ["n"] + ["fig4"] * (n == 8), n=n)
                add("east", 0.01 * n, ["n"] + ["fig4"] * (n == 8), 1.0, "entropy", n=n)
    broken = {**cells[-1], "eval": None, "eval_select": None}
    cells.append({**broken, "id": "easy-s0-broken", "status": "failed", "error": "out of <b>memory</b> | disk"})
    cells.append({**broken, "id": "easy-s1-waiting", "status": "waiting"})
    paper = [{"model": "tiny", "task": "easy", "loss": "sft", "method": "east", "accuracy": 0.5}]
    study = {
        "name": "synthetic",
        "tasks": ["easy", "hard"],
        "seeds": list(range(seeds)),
        "cells": cells,
        "paper": paper,
    }
    files.write_text(folder / "study.json", json.dumps(study) + "\n")
    return folder
