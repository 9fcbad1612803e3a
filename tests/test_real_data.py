"""Real responses of a real model to MATH problems, through every stage, to a trained tiny model."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

import train
from east.data.indexed_dataset import IndexedDataset
from east.run import config, files
from east.toy.tiny_model import make_tiny_model
from east.training import metrics, reference
from tests import stages
from tests.conftest import family_texts
from tests.stages import folder_of

DATA = Path(__file__).parent.parent.parent / "shared" / "data"
pytestmark = pytest.mark.skipif(not DATA.exists(), reason="needs the shared data folder beside the checkout")


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory) -> Path:
    """A model whose context has room for these responses."""
    folder = tmp_path_factory.mktemp("models") / "long"
    make_tiny_model(folder, family_texts(), hidden_size=32, layers=2, max_positions=8192)
    return folder


@pytest.fixture(scope="module")
def real(tmp_path_factory, tiny_model) -> Path:
    """100 MATH problems and 8 responses each, written as a task and as responses made elsewhere."""
    tmp = tmp_path_factory.mktemp("real")
    with gzip.open(DATA / "qwen25math_cot_100x8.jsonl.gz", "rt") as file:
        rows = [json.loads(line) for line in file]
    questions = [{"id": str(r["idx"]), "question": r["question"], "answer": r["gt"]} for r in rows]
    responses = [{"question": str(r["idx"]), "response": text} for r in rows for text in r["code"]]
    for name, written in (("questions", questions), ("responses", responses)):
        (tmp / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in written))
    return tmp


def run(tmp: Path, model: Path, loss: str, **grading: str) -> config.Config:
    return config.parse(
        {
            "run": str(tmp / "-".join(["run", *grading.values()])),
            "model": {"path": str(model)},
            "task": {"name": "jsonl", "train": str(tmp / "questions.jsonl")},
            "sampling": {"responses": str(tmp / "responses.jsonl")},
            "grading": grading,
            "loss": {"name": loss},
            "train": {"epochs": 1, "micro_batch": 2, "lr": 1e-3, "dtype": "float32", "max_steps": 2},
        }
    )


@pytest.mark.parametrize("loss", ["sft", "dpo", "kto"])
def test_real_responses_train_a_model(real, tiny_model, loss):
    found = run(real, tiny_model, loss)
    stages.run("grade", found)
    stages.run("index", found)
    stages.run("weigh", found)
    reference.run(found)
    train.train(found)
    rows = metrics.read(found.folder_of("train"))
    dataset = IndexedDataset(folder_of("dataset", found.folder_of("dataset")), verify=True)
    assert len(rows) == min(2, -(-len(dataset) // 16)) and all(np.isfinite(row["loss"]) for row in rows)
    weights = np.load(found.folder_of("weights") / "weights.npy")
    assert weights.mean() == pytest.approx(1, abs=1e-12) and len(weights) == len(dataset)
    graded = folder_of("graded", found.folder_of("graded")).open().summary
    stored = [json.loads(line)["accuracy"] for line in (DATA / "math_cot_100_entropy_reference.jsonl").open()]
    assert graded["responses"] == 800
    assert graded["accuracy"] == pytest.approx(np.mean(stored), abs=0.01), "another grader's verdicts, within 1 %"


def test_string_clusters_are_those_of_the_reference_table(real, tiny_model):
    """By equal normalised strings, as the authors' release: k and entropy of all 100 questions."""
    found = run(real, tiny_model, "sft", clusters="qwen-string")
    stages.run("grade", found)
    rows = {r["question"]: r for r in files.read_jsonl(found.folder_of("graded") / "questions.jsonl")}
    stored = [json.loads(line) for line in (DATA / "math_cot_100_entropy_reference.jsonl").open()]
    assert len(stored) == len(rows) == 100
    for row in stored:
        mine, expected = rows[str(row["idx"])], row["string"]
        assert mine["k"] == expected["k"], row["idx"]
        assert mine["entropy"] == pytest.approx(expected["entropy_nats"], abs=1e-6), row["idx"]
