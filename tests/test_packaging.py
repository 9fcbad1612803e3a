"""What a wheel needs: declared dependencies, the programs, the DeepSpeed files; and that it runs outside a checkout."""

import ast
import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest

from east.run import launch
from tests.conftest import ROOT, from_wheel, outside

EXTRAS = {"vllm": "vllm", "tensorboard": "test", "wandb": "test", "flash_attn": "the user"}  # imported where asked for


def declared() -> set[str]:
    """Distributions in install_requires, as pip spells them."""
    (setup,) = [n for n in ast.walk(ast.parse((ROOT / "setup.py").read_text())) if isinstance(n, ast.Call)
                and isinstance(n.func, ast.Name) and n.func.id == "setup"]  # fmt: skip
    (listed,) = [k.value for k in setup.keywords if k.arg == "install_requires"]
    return {re.split(r"[=<>\[]", text)[0].lower().replace("_", "-") for text in ast.literal_eval(listed)}


def imported() -> set[str]:
    """Top-level packages that some file of east imports, beside the standard library's."""
    names = set()
    for path in [*(ROOT / "east").rglob("*.py"), ROOT / "train.py", ROOT / "sample.py"]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(str(node.module).split(".")[0])
    return names - {"east"} - set(sys.stdlib_module_names)


def test_every_import_is_declared():
    owners = importlib.metadata.packages_distributions()
    needed = imported()
    assert needed > {"torch", "numpy", "jinja2", "safetensors", "tokenizers", "huggingface_hub"}
    for name in needed - EXTRAS.keys():
        assert {d.lower().replace("_", "-") for d in owners[name]} & declared(), f"{name} is imported, not declared"


@pytest.mark.parametrize("path", ["train.py", "sample.py"])
def test_programs_are_verbs_too(path):
    link = ROOT / "east" / "commands" / path
    assert link.is_symlink() and link.resolve() == ROOT / path


def test_the_wheel_runs_outside_the_checkout(installed, tmp_path):
    """Each verb has its own flags and an example; ZeRO files are found by name."""
    where = "import east.run.deepspeed_file as d; print(d.FOLDER); print(d.read('zero2_offload')['stage'])"
    helped = from_wheel(installed, "--help")
    assert helped.returncode == 0 and "sample" in helped.stdout and "train" in helped.stdout, helped.stderr
    program = from_wheel(installed, "weigh", "--help")
    assert "example:" in program.stdout and "--split-invariance" not in program.stdout
    line = [installed / "python", "-c", where]
    printed = subprocess.run(line, cwd=tmp_path, env=outside(), capture_output=True, text=True, check=True)
    folder, stage = printed.stdout.split()
    assert Path(folder).is_relative_to(installed.parent) and stage == "2"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["weigh", "--split-invariance", "--config", "x"], "unrecognized arguments: --split-invariance"),
        (["grade", "--out", "f", "--config", "configs/quickstart.yaml"], "--cases and --out go together"),
        (["grade", "--cases", "a", "--out", "b", "--config", "configs/quickstart.yaml"], "--cases takes no --config"),
        (["evaluate", "--study", "x", "--config", "x"], "unrecognized arguments: --study"),
        (["report", "--study", "x", "--config", "configs/quickstart.yaml"], "--config and --study were both given"),
        (["fly"], "invalid choice: 'fly'"),
    ],
)
def test_a_verb_takes_its_own_flags_only(words, message, monkeypatch, capsys):
    from east.__main__ import main

    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["east", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code in (1, 2) and message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("launcher", "line"),
    [
        ("python", [sys.executable, "-m", "east", "train"]),
        ("no-such-launcher --num_gpus 8", ["no-such-launcher", "--num_gpus", "8", "--module", "east", "train"]),
        ("srun python3 -u", ["srun", "python3", "-u", "-m", "east", "train"]),
    ],
)
def test_a_launcher_starts_the_module(launcher, line):
    assert launch.command("train", launcher) == line
