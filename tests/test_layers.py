"""Folders import in one direction, files without a circle, and each heavy library has one owner."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ORDER = [  # each imports only those before it
    "weighting", "grading", "run", "toy", "models", "tasks", "sampling", "data", "training", "evaluation", "checks",
    "study", "report", "commands",
]  # fmt: skip
OWNERS = {
    "deepspeed": {"training.deepspeed_engine"},
    "vllm": {"sampling.vllm_engine"},
    "peft": {"models.adapter"},
    "datasets": {"tasks"},
    "matplotlib": {"report.figures"},
}
WITHOUT_TORCH = (  # what starts in a second
    "run.config", "run.pipeline", "commands.grade", "commands.weigh", "commands.report", "commands.rounds",
    "commands.study",
)  # fmt: skip


def imports(path: Path, whole: bool = True) -> tuple[set[str], set[str]]:
    """(modules of east, top-level packages) that a file imports, anywhere in it or (not `whole`) when it is loaded."""
    tree = ast.parse(path.read_text())
    inside, others = set(), set()
    for node in ast.walk(tree) if whole else tree.body:
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            names = [f"{node.module}.{a.name}" for a in node.names]
        else:
            continue
        for name in names:
            first, *rest = name.split(".")
            if first == "east" and rest:
                inside.add(module_of(rest))
            else:
                others.add(first)
    return inside, others


def module_of(parts: list[str]) -> str:
    """The longest of a/b/c, a/b, a that is a file or a folder: the others are names in it."""
    for k in range(len(parts), 0, -1):
        path = ROOT / "east" / Path(*parts[:k])
        if path.is_dir() or path.with_suffix(".py").exists():
            return ".".join(parts[:k])
    return "__init__"


def name_of(path: Path) -> str:
    """`grading.grader` for east/grading/grader.py, `grading` for its __init__.py, `train` for train.py."""
    parts = path.with_suffix("").relative_to(ROOT).parts
    parts = parts[1:] if parts[0] == "east" else parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


PATHS = {name_of(p): p for p in [*sorted((ROOT / "east").rglob("*.py")), ROOT / "train.py", ROOT / "sample.py"]}
FILES = {name: imports(path) for name, path in PATHS.items()}


def test_every_folder_is_in_the_order():
    folders = {name.split(".")[0] for name in PATHS} - {"__init__", "__main__", "train", "sample"}
    assert folders == set(ORDER)


@pytest.mark.parametrize("folder", ORDER)
def test_a_folder_imports_only_those_before_it(folder):
    allowed = {*ORDER[: ORDER.index(folder) + 1], "__init__"}
    for name, (inside, _) in FILES.items():
        if name.split(".")[0] == folder:
            above = {n for n in inside if n.split(".")[0] not in allowed}
            assert not above, f"{name} imports {above}"


def test_imports_have_no_circle():
    """A topological order exists: a file's imports come before it."""
    left = {name: (inside & FILES.keys()) - {name} for name, (inside, _) in FILES.items()}
    while left:
        free = [name for name, needs in left.items() if not needs & left.keys()]
        assert free, f"imports form a circle among {sorted(left)}"
        for name in free:
            del left[name]


@pytest.mark.parametrize("library", OWNERS)
def test_heavy_libraries_have_one_owner(library):
    users = {name for name, (_, others) in FILES.items() if library in others}
    assert users and users <= OWNERS[library]


def reach(name: str, whole: bool = True) -> set[str]:
    """All packages that importing a module may bring in."""
    seen, todo, packages = set(), [name], set()
    while todo:
        module = todo.pop()
        if module in seen or module not in FILES:
            continue
        seen.add(module)
        inside, others = FILES[module] if whole else imports(PATHS[module], whole)
        todo += [*inside, *(module.rsplit(".", k)[0] for k in range(1, module.count(".") + 1))]
        packages |= others
    return packages


@pytest.mark.parametrize("name", WITHOUT_TORCH)
def test_what_needs_no_torch_imports_none(name):
    heavy = {"torch", "transformers", "deepspeed", "datasets", "scipy", "statsmodels"}
    assert not reach(name, whole=False) & heavy


def test_vllm_and_deepspeed_never_share_a_process():
    assert "deepspeed" not in reach("sample") | reach("commands.evaluate")
    assert "vllm" not in reach("train") | reach("commands.reference")


def test_weighting_is_numpy_only():
    others = {o for name, (_, others) in FILES.items() if name.startswith("weighting.") for o in others}
    assert others <= {"numpy", "collections", "math", "typing"}


def test_losses_packing_and_schedule_know_no_engine():
    for name in ("training.losses", "training.schedule", "training.packing"):
        inside, others = FILES[name]
        assert inside <= {"run.config", "run.loss_table", "training.packing"}, name
        assert not others & {"deepspeed", "transformers"}, name


def test_how_a_report_looks_knows_no_results():
    """Figures, page and document draw what they are given."""
    for name in ("report.figures", "report.html_page", "report.document"):
        assert FILES[name][0] <= {"report.document", "report.explorer", "evaluation.significance"}, FILES[name][0]


def test_grading_has_one_face():
    """Other folders import from `east.grading` itself, never from a file of it."""
    for name, (inside, _) in FILES.items():
        if name.split(".")[0] != "grading":
            assert not {n for n in inside if n.startswith("grading.")}, name


def test_results_know_no_figure():
    for name in ("report.explorer", "report.run_table", "report.weights_by_question", "study.results"):
        assert not FILES[name][0] & {"report.figures", "report.html_page", "report.compose"}, name
