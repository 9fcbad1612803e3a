"""Greedy evaluation: accuracy with its interval, and the paired comparison of two results.

eval/<name>/ holds samples/ and graded/ (as in training, one greedy response a question) and results.json.
"""

import json
from pathlib import Path
from typing import Any

from east import models
from east.commands import stages
from east.evaluation import significance
from east.run import artifacts, files
from east.run.config import BASE, Config
from east.sampling import samples

MAKE = "python -m east evaluate --config X"


def compare(ours: dict[str, bool], theirs: dict[str, bool]) -> dict[str, Any]:
    """Question-by-question comparison of two verdict tables. Raises ValueError when the questions differ."""
    if ours.keys() != theirs.keys():
        raise ValueError(
            f"the two results answer different questions ({len(ours)} and {len(theirs)}, "
            f"{len(ours.keys() & theirs.keys())} in common); evaluate both on the same rows"
        )
    pairs = [(ours[q], theirs[q]) for q in ours]
    gained, lost = sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)
    low, high = significance.paired_bootstrap([a for a, _ in pairs], [b for _, b in pairs])
    difference = (gained - lost) / len(pairs)
    return {
        "n": len(pairs),
        "only_this_right": gained,
        "only_other_right": lost,
        "difference": difference,
        "bootstrap_95": [low, high],
        "mcnemar_p": significance.mcnemar(gained, lost),
    }


def run(config: Config, base: bool, against: str | None) -> None:
    """The stage: answer the questions of `eval.split` greedily with the trained model (or the starting one)."""
    which = config.eval_suffix
    name = (BASE if base else config.label) + which
    folder = config.folder / "eval" / name
    trained = None if base else config.folder_of("train") / "final"
    if trained:
        artifacts.read(trained, "model", "python train.py --config X")
    other = None if against is None else result_folder(config, against)
    model, tokenizer, questions, prompts, dropped = stages.ask(config, config.eval.split, config.eval.rows, trained)
    greedy = config.sampling.model_copy(
        update={
            "n": 1,
            "adaptive": None,
            "temperature": 0.0,
            "top_p": 1.0,
            "responses": None,
            "max_tokens": config.eval.max_tokens or config.sampling.max_tokens,
        }
    )
    drawn = samples.draw(folder / "samples", questions, prompts, model, greedy)
    graded = stages.grade_folder(folder / "samples", folder / "graded", config, 1, MAKE)
    rows = list(files.read_jsonl(folder / "graded" / "questions.jsonl"))
    verdicts = {row["question"]: bool(row["correct"][0]) for row in rows}
    golds = {row["question"]: row["gold"] for row in rows}
    meta = {q["id"]: q["meta"] for q in questions}
    result = {
        "name": name,
        **accuracy(list(verdicts.values())),
        "by": by_group(verdicts, meta),
        "sources": graded.summary["sources"],
        "truncated": graded.summary["truncated"],
        "questions_left_out": {**dropped, **drawn.summary["questions_left_out"]},
        "prompt": prompts[0][0],
        "prompt_tokens": prompts[0][1],
        "bos_tokens": prompts[0][1].count(tokenizer.bos_token_id),
        "end_tokens": models.end_tokens(model, tokenizer),
        "sampling": drawn.config,
        "model": str(model),
        "fingerprints": {**drawn.inputs, "samples": drawn.fingerprint, "graded": graded.fingerprint},
        "drawn_by": drawn.summary["drawn_by"],
    }
    if other:
        theirs, graded_by = read_verdicts(other, golds, graded.config)
        result["against"] = {"name": other.name, "graded": graded_by, **compare(verdicts, theirs)}
    files.write_text(folder / "results.json", json.dumps(result, indent=1) + "\n")
    show(result, folder)


def result_folder(config: Config, name: str) -> Path:
    """Where a result stands: a name within the run, or a folder. Raises ValueError where there is none."""
    within = config.folder / "eval"
    places = [within / (name + config.eval_suffix), Path(name), within / name]
    for place in places:
        if (place / "graded" / artifacts.MANIFEST).exists():
            return place
    there = sorted(path.parent.name for path in within.glob("*/results.json"))
    raise ValueError(f"--against: found no result {name!r}, expected a folder or one of {there}; evaluate it first")


def accuracy(verdicts: list[bool]) -> dict[str, Any]:
    """n, correct, accuracy and its 95 % Wilson interval."""
    n, correct = len(verdicts), sum(verdicts)
    return {"n": n, "correct": correct, "accuracy": correct / n, "wilson_95": list(significance.wilson(correct, n))}


def by_group(verdicts: dict[str, bool], meta: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Accuracy by each value of level, type and subject, where the task has them."""
    groups: dict[str, dict[str, list[bool]]] = {}
    for question, right in verdicts.items():
        for key, value in meta[question].items():
            groups.setdefault(key, {}).setdefault(str(value), []).append(right)
    return {key: {v: accuracy(found) for v, found in sorted(values.items())} for key, values in groups.items()}


def read_verdicts(folder: Path, golds: dict[str, str], grading: dict[str, Any]) -> tuple[dict[str, bool], str]:
    """Verdicts of an eval folder, and the fingerprint of its grading.

    Raises ValueError when it was graded by other rules, or against other golds under the same ids.
    """
    made = artifacts.read(folder / "graded", stages.GRADED, MAKE)
    if made.config != grading:
        unlike = artifacts.difference(made.config, grading)
        raise ValueError(f"{folder} was graded by other rules: {unlike}; grade both alike")
    rows = list(files.read_jsonl(folder / "graded" / "questions.jsonl"))
    other = [row["question"] for row in rows if golds.get(row["question"], row["gold"]) != row["gold"]]
    if other:
        raise ValueError(f"{folder}: {len(other)} questions have another gold ({other[0]!r}); evaluate the same rows")
    return {row["question"]: bool(row["correct"][0]) for row in rows}, made.fingerprint


def show(result: dict[str, Any], folder: Path) -> None:
    """Print a result in a few lines."""
    low, high = result["wilson_95"]
    share = f"{result['accuracy']:.1%} ({low:.1%} to {high:.1%})"
    print(f"{result['name']}: {result['correct']} of {result['n']} right, {share}")
    if "against" in result:
        a = result["against"]
        low, high = a["bootstrap_95"]
        print(f"    against {a['name']}: {a['difference']:+.1%} ({low:+.1%} to {high:+.1%})")
        flips = f"only this right {a['only_this_right']}, only the other {a['only_other_right']}"
        print(f"    {flips}, McNemar p = {a['mcnemar_p']:.3g}")
    print(f"    {folder / 'results.json'}")
