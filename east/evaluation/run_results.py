"""The results of a run's evaluations, from what is on disk."""

import json
from pathlib import Path

from east.evaluation.result import EvaluationResult
from east.run import artifacts, pipeline
from east.run.config import BASE


def results(folder: Path) -> list[EvaluationResult]:
    """results.json of every evaluation in an eval folder, with `stale`.

    The starting model is first, then what was compared with it, then the others, each by name. Raises ValueError for a
    file that is not JSON.
    """
    rows = []
    for path in sorted(folder.glob("*/results.json")):
        try:
            result: EvaluationResult = json.loads(path.read_text())
        except json.JSONDecodeError:
            raise ValueError(f"{path}: not JSON; delete it and run `python -m east evaluate` again") from None
        result["stale"] = stale(result, path.parent)
        rows.append(result)

    def place(result: EvaluationResult) -> tuple[bool, bool, str]:
        against = result["against"]["name"] if "against" in result else None
        return result["name"] != BASE, against != BASE, result["name"]

    return sorted(rows, key=place)


def stale(result: EvaluationResult, folder: Path) -> bool:
    """Has the model, its verdicts or the other side of the comparison changed since the result was written?"""

    def graded(place: Path) -> str | None:
        artifact = pipeline.at("graded", place / "graded")
        return artifact.open().fingerprint if artifact.exists() else None

    model, other = Path(result["model"]), result.get("against")
    changed = not model.exists() or artifacts.model_digest(model) != result["fingerprints"]["model"]
    changed |= graded(folder) != result["fingerprints"]["graded"]
    return changed or (other is not None and graded(folder.parent / other["name"]) not in (None, other["graded"]))
