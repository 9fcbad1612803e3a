"""Comparisons of results by hand."""

import pytest

from east.evaluation import compare
from east.report import document, run_table


def test_compare_counts_flips_both_ways_and_refuses_other_questions():
    verdicts, baseline = {"a": True, "b": False, "c": True}, {"a": False, "b": True, "c": True}
    comparison = compare.compare(verdicts, baseline)
    assert (comparison["only_this_right"], comparison["only_other_right"], comparison["difference"]) == (1, 1, 0)
    with pytest.raises(ValueError, match=r"answer different questions \(3 and 1, 1 in common\)"):
        compare.compare(verdicts, {"a": True})


def test_groups_have_their_own_interval():
    verdicts = {"a": True, "b": False, "c": True}
    groups = compare.by_group(verdicts, {"a": {"level": 1}, "b": {"level": 1}, "c": {"level": 2}})
    assert groups["level"]["1"]["accuracy"] == 0.5 and groups["level"]["2"]["n"] == 1


def test_table_puts_the_backbone_first_and_shows_the_paired_test():
    base = {"name": "base", **compare.accuracy([True, False])}
    other = {"name": "a", **compare.accuracy([True, True])}
    other["against"] = {"name": "base", **compare.compare({"1": True, "2": True}, {"1": True, "2": False})}
    lines = document.markdown_table(run_table.table(sorted([other, base], key=lambda r: r["name"]))).splitlines()
    assert "| base | 1 / 2 | 50.0% |" in "\n".join(lines)
    assert "+50.0%" in "\n".join(lines)
