"""Fixtures on real engines: a tiny Llama, and runs whose responses are worked solutions, right and wrong."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).parent.parent
QUESTIONS, RESPONSES = 24, 6
GROUP = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"}


@pytest.fixture(scope="module", autouse=True)
def no_process_group_left():
    """Training in this process joins a process group; programs that later tests start must not join it."""
    yield
    for name in GROUP:
        os.environ.pop(name, None)


@pytest.fixture(scope="session")
def installed(tmp_path_factory) -> Path:
    """The folder of programs of an environment, outside the checkout, into which a wheel of it was installed.

    Its other packages are this environment's: `test_packaging.py` checks that those that are used are declared.
    """
    tmp = tmp_path_factory.mktemp("installed")
    (source := tmp / "source").mkdir()  # a copy: setuptools leaves build/ behind, and takes old files from it
    for name in ("setup.py", "pyproject.toml", "MANIFEST.in", "LICENSE", "train.py", "sample.py", "ds_configs", "east"):
        subprocess.run(["cp", "-a", "--parents", name, source.as_posix() + "/."], check=True, cwd=ROOT)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp, source]
    subprocess.run(build, check=True, cwd=tmp, env=outside())
    subprocess.run([sys.executable, "-m", "venv", tmp / "env"], check=True)
    (wheel,) = tmp.glob("east-*.whl")
    install = [tmp / "env/bin/pip", "install", "--quiet", "--no-deps", wheel]
    subprocess.run(install, check=True, cwd=tmp, env=outside())
    (site_packages,) = (tmp / "env").glob("lib/python*/site-packages")
    (site_packages / "others.pth").write_text("\n".join(path for path in sys.path if path.endswith("-packages")))
    launcher = tmp / "env/bin/deepspeed"  # as pip writes it
    launcher.write_text(f"#!{tmp / 'env/bin/python'}\nfrom deepspeed.launcher.runner import main\nmain()\n")
    launcher.chmod(0o755)
    return tmp / "env/bin"


def from_wheel(installed: Path, *words: Any, timeout: int = 300) -> subprocess.CompletedProcess[str]:
    """`east ...` as a user of the wheel runs it, from a folder that is not the checkout."""
    line = [str(installed / "east"), *map(str, words)]
    where = installed.parent
    return subprocess.run(line, cwd=where, capture_output=True, text=True, timeout=timeout, env=outside())


def outside() -> dict[str, str]:
    """An environment in which nothing points to the checkout."""
    return {k: v for k, v in environment().items() if k != "PYTHONPATH"}


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """An untrained Llama of some 50,000 parameters with the arithmetic task's tokenizer."""
    from east.toy import tiny_model

    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny_model.make_tiny_model(folder, family_texts(), hidden_size=32, layers=2, seed=0)
    return folder


def family_texts() -> list[str]:
    """What the tokenizer of the model families is trained on."""
    from east.toy import arithmetic

    return [f"{r['question']} {r['solution']}" for r in arithmetic.problems("easy", "train", 200, 0)]


@pytest.fixture(scope="session")
def family_tokenizer() -> Any:
    """The tokenizer of the tiny models of `model_families`."""
    from east.toy import tiny_model

    return tiny_model.make_tokenizer(family_texts())


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory) -> Path:
    """The random Llama that the sampling tests draw from."""
    from tests import drawing

    return drawing.make_model(tmp_path_factory.mktemp("drawing") / "tiny")


@pytest.fixture(scope="session")
def asked(model_folder) -> tuple[list[dict[str, Any]], list[tuple[str, list[int]]]]:
    """Questions and rendered prompts."""
    from tests import drawing

    return drawing.asked(model_folder)


def write_responses(path: Path, questions: int = QUESTIONS, responses: int = RESPONSES) -> Path:
    """Responses to the first arithmetic problems: question i has i % responses wrong ones of three kinds."""
    from east import tasks
    from east.toy import arithmetic

    rows = []
    for i, problem in enumerate(arithmetic.problems("easy", "train", questions, tasks.ARITHMETIC_SEED)):
        for k in range(responses):
            text = problem["solution"]
            if k < i % responses:
                text = text.replace("\\boxed{", "\\boxed{" + "777"[: 1 + k % 3])
            rows.append({"question": problem["id"], "response": text})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def settings(tmp: Path, base: Path, /, **changes: Any) -> dict[str, Any]:
    """A run on written responses; `changes` are sections to merge."""
    values: dict[str, Any] = {
        "run": str(tmp / "run"),
        "model": {"path": str(base)},
        "task": {"name": "arithmetic", "train_rows": [0, QUESTIONS], "test_rows": [0, 20]},
        "sampling": {
            "engine": "transformers", "responses": str(tmp / "responses.jsonl"), "n": RESPONSES, "max_tokens": 24,
            "dtype": "float32",
        },
        "grading": {"workers": 1, "math_verify_sample": 0},
        "weighting": {"a": 1.0},
        "train": {
            "epochs": 2, "batch_size": 8, "micro_batch": 4, "lr": 1e-3, "dtype": "float32",
            "deepspeed": str(ROOT / "ds_configs" / "zero0.json"), "checkpoint_every": 2,
        },
    }  # fmt: skip
    for name, section in changes.items():
        values[name] = {**values[name], **section} if isinstance(section, dict) and name in values else section
    return values


def prepare(tmp: Path, base: Path, /, **changes: Any) -> Any:
    """Grade, index, weigh and score a run of written responses; returns its Config."""
    from east.run import config
    from east.training import reference
    from tests import stages

    if not (tmp / "responses.jsonl").exists():
        write_responses(tmp / "responses.jsonl")
    found = config.parse(settings(tmp, base, **changes))
    stages.run("grade", found)
    stages.run("index", found)
    stages.run("weigh", found)
    if found.loss.name != "sft":
        reference.run(found)
    return found


def run_file(tmp: Path, found: Any) -> Path:
    """The resolved run file, for command lines."""
    from east.run import config

    path = tmp / f"{found.label}.yaml"
    path.write_text(config.to_yaml(found))
    return path


def command(*words: Any, timeout: int = 300, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run a program of this environment from the repository's root."""
    first = Path(sys.executable).parent / str(words[0])
    line = [str(first if first.exists() else words[0]), *map(str, words[1:])]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=timeout, env=environment(), **more)


def free_port() -> int:
    """A port that no process listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def environment() -> dict[str, str]:
    """This process's environment, without the process group that training has joined."""
    return {**{k: v for k, v in os.environ.items() if k not in GROUP}, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def losses(found: Any) -> list[float]:
    """The loss curve of a trained run."""
    from east.training import metrics

    return [row["loss"] for row in metrics.read(found.folder_of("train"))]
