"""The table of a run's results, from what is on disk."""

import json
from pathlib import Path
from typing import Any

from east.report.document import Table
from east.run import artifacts


def results(folder: Path) -> list[dict[str, Any]]:
    """results.json of every evaluation in an eval folder: the starting model first, then by name."""
    found = []
    for path in sorted(folder.glob("*/results.json")):
        try:
            result = json.loads(path.read_text())
        except json.JSONDecodeError:
            raise ValueError(f"{path}: not JSON; delete it and run `python -m east evaluate` again") from None
        result["stale"] = stale(result, path.parent)
        found.append(result)

    def place(result: dict[str, Any]) -> tuple[bool, bool, str]:
        return result["name"] != "base", result.get("against", {}).get("name") != "base", result["name"]

    return sorted(found, key=place)


def stale(result: dict[str, Any], folder: Path) -> bool:
    """Has the model, its verdicts or the other side of the comparison changed since the result was written?"""

    def graded(place: Path) -> str | None:
        path = place / "graded" / artifacts.MANIFEST
        return json.loads(path.read_text())["fingerprint"] if path.exists() else None

    model, other = Path(result["model"]), result.get("against")
    changed = not model.exists() or artifacts.model_digest(model) != result["fingerprints"]["model"]
    changed |= graded(folder) != result["fingerprints"]["graded"]
    return changed or (other is not None and graded(folder.parent / other["name"]) not in (None, other["graded"]))


def table(rows: list[dict[str, Any]]) -> Table:
    """Accuracy with its 95 % interval, and the paired comparison where one was made."""
    lines = []
    for r in rows:
        low, high = r["wilson_95"]
        name = r["name"] + (" (stale: evaluate again)" if r.get("stale") else "")
        cells = [name, f"{r['correct']} / {r['n']}", f"{r['accuracy']:.1%}", f"{low:.1%} to {high:.1%}"]
        if "against" in r:
            a = r["against"]
            low, high = a["bootstrap_95"]
            cells += [a["name"], f"{a['difference']:+.1%} ({low:+.1%} to {high:+.1%})", f"{a['mcnemar_p']:.2g}"]
        else:
            cells += ["", "", ""]
        lines.append(cells)
    header = ["model", "right", "accuracy", "95 % interval", "against", "difference (95 %)", "McNemar p"]
    return Table(header, lines)
