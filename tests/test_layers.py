"""Imports point down only, and each heavy library has one owner."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OWNERS = {
    "deepspeed": {"engine"}, "vllm": {"vllm_engine"}, "peft": {"models"}, "datasets": {"tasks"},
    "matplotlib": {"figures"},
}  # fmt: skip


def imports(path: Path) -> tuple[set[str], set[str]]:
    """(modules of east, top-level packages) that a file imports, anywhere in it."""
    ours, others = set(), set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            inner = node.module in {"east", "east.grading"}
            names = [f"{node.module}.{a.name}" if inner else str(node.module) for a in node.names]
        else:
            continue
        for name in names:
            first, *rest = name.split(".")
            (ours.add(".".join(rest)) if first == "east" and rest else others.add(first))
    return ours, others


def name_of(path: Path) -> str:
    """`grading.grade` for east/grading/grade.py, `train` for train.py."""
    return ".".join(path.with_suffix("").relative_to(ROOT).parts).removeprefix("east.")


PROGRAMS = [ROOT / "train.py", ROOT / "sample.py"]
FILES = {name_of(p): imports(p) for p in [*sorted((ROOT / "east").rglob("*.py")), *PROGRAMS]}


def test_imports_have_no_cycle():
    """A topological order exists: whoever is imported stands below."""
    left = {name: ours & FILES.keys() for name, (ours, _) in FILES.items()}
    while left:
        free = [name for name, needs in left.items() if not needs & left.keys()]
        assert free, f"imports form a circle among {sorted(left)}"
        for name in free:
            del left[name]


@pytest.mark.parametrize("library", OWNERS)
def test_heavy_libraries_have_one_owner(library):
    found = {name for name, (_, others) in FILES.items() if library in others}
    assert found and found <= OWNERS[library]


def reach(name: str) -> set[str]:
    """All packages that importing a module may bring in."""
    seen, todo, packages = set(), [name], set()
    while todo:
        here = todo.pop()
        if here in seen or here not in FILES:
            continue
        seen.add(here)
        todo += FILES[here][0]
        packages |= FILES[here][1]
    return packages


def test_grading_stands_alone():
    """Its files know nothing of the rest: only tasks, stages and labelled_cases look in."""
    outside = {n for name, (ours, _) in FILES.items() if name.startswith("grading.") for n in ours}
    assert all(n.startswith("grading.") or n == "__init__" for n in outside)
    assert {n for n, (ours, _) in FILES.items() if any(o.startswith("grading.") for o in ours)} - {
        n for n in FILES if n.startswith("grading.")
    } == {"tasks", "stages", "labelled_cases"}


def test_vllm_and_deepspeed_never_share_a_process():
    assert "deepspeed" not in reach("sample") | reach("evaluate")
    assert "vllm" not in reach("train") | reach("reference")


def test_mathematics_knows_no_engine_and_no_config():
    for name in ("losses", "weights", "batches", "packing", "statistics"):
        ours, others = FILES[name]
        assert not ours & {"config", "engine", "models", "artifacts"}, name
        assert not others & {"deepspeed", "transformers", "vllm"}, name
    assert "torch" not in FILES["weights"][1] | FILES["statistics"][1]


def test_how_a_report_looks_knows_no_results():
    """Figures, page and document draw what they are given; comparison and weights know no figure."""
    for name in ("figures", "document", "page"):
        assert not FILES[name][0] & {"analysis", "comparison", "question_weights", "study_sections", "weight_figures"}
    for name in ("analysis", "comparison", "question_weights", "explorer"):
        assert not FILES[name][0] & {"figures", "page", "report"}, name
