"""Verdicts to an accuracy with its interval, and the paired comparison of two results."""

from pathlib import Path
from typing import Any

from east.evaluation import significance
from east.evaluation.result import Accuracy, Comparison
from east.run import files, pipeline
from east.run.config import Config


def compare(verdicts: dict[str, bool], baseline: dict[str, bool]) -> Comparison:
    """Question-by-question comparison of two results, by question id. Raises ValueError when their questions differ."""
    if verdicts.keys() != baseline.keys():
        raise ValueError(
            f"the two results answer different questions ({len(verdicts)} and {len(baseline)}, "
            f"{len(verdicts.keys() & baseline.keys())} in common); evaluate both on the same rows"
        )
    pairs = [(verdicts[q], baseline[q]) for q in verdicts]
    gained, lost = sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)
    low, high = significance.paired_bootstrap([a for a, _ in pairs], [b for _, b in pairs])
    return {
        "n": len(pairs),
        "only_this_right": gained,
        "only_other_right": lost,
        "difference": (gained - lost) / len(pairs),
        "bootstrap_95": [low, high],
        "mcnemar_p": significance.mcnemar(gained, lost),
    }


def result_folder(config: Config, name: str) -> Path:
    """The eval folder of a result: a name within the run, or a path. Raises ValueError where there is none."""
    within = config.folder / "eval"
    for place in (within / (name + config.eval_suffix), Path(name), within / name):
        if pipeline.evaluated_graded(config, place).exists():
            return place
    names = sorted(path.parent.name for path in within.glob("*/results.json"))
    raise ValueError(f"--against: found no result {name!r}, expected a folder or one of {names}; evaluate it first")


def accuracy(verdicts: list[bool]) -> Accuracy:
    """n, correct, accuracy and its 95 % Wilson interval."""
    n, correct = len(verdicts), sum(verdicts)
    return {"n": n, "correct": correct, "accuracy": correct / n, "wilson_95": list(significance.wilson(correct, n))}


def by_group(verdicts: dict[str, bool], meta: dict[str, dict[str, Any]]) -> dict[str, dict[str, Accuracy]]:
    """Accuracy by each key of `meta` (level, type, subject, where the task has them) and each of its values."""
    groups: dict[str, dict[str, list[bool]]] = {}
    for question, right in verdicts.items():
        for key, value in meta[question].items():
            groups.setdefault(key, {}).setdefault(str(value), []).append(right)
    return {key: {v: accuracy(group) for v, group in sorted(values.items())} for key, values in groups.items()}


def read_verdicts(config: Config, folder: Path, golds: dict[str, str]) -> tuple[dict[str, bool], str]:
    """Verdicts of an eval folder, and the fingerprint of its grading.

    Raises ValueError when it was graded by other rules than the run's, or against other golds under the same ids.
    """
    graded = pipeline.evaluated_graded(config, folder)
    fingerprint = graded.open().fingerprint
    rows = list(files.read_jsonl(graded.folder / "questions.jsonl"))
    other = [row["question"] for row in rows if golds.get(row["question"], row["gold"]) != row["gold"]]
    if other:
        raise ValueError(f"{folder}: {len(other)} questions have another gold ({other[0]!r}); evaluate the same rows")
    return {row["question"]: bool(row["correct"][0]) for row in rows}, fingerprint
