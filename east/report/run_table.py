"""The table of a run's results."""

from east.evaluation.result import EvaluationResult
from east.report.document import Table


def table(rows: list[EvaluationResult]) -> Table:
    """Accuracy with its 95 % interval, and the paired comparison where there is one."""
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
