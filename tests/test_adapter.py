"""Starting from a PEFT adapter: it is merged into its base model once, and every stage reads the merged folder."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

import train
from east import models
from east.run import artifacts
from east.training import metrics, schedule
from tests.conftest import prepare

LORA = {"r": 4, "alpha": 8}


@pytest.fixture(scope="module")
def tuned(tmp_path_factory, tiny_model) -> Path:
    """The exported model of SFT with LoRA; its subfolder adapter/ has the adapter without the base."""
    run = prepare(
        tmp_path_factory.mktemp("sft"), tiny_model, model={"path": str(tiny_model), "lora": LORA}, train={"lr": 1e-2}
    )
    train.train(run)
    return run.folder_of("train") / "final"


def test_the_reference_of_dpo_from_an_sft_adapter_is_the_sft_model(tuned, tiny_model, tmp_path):
    """The reference is the merged model, not its base: the loss of step 0 is ln 2 mean(w), and the reference
    log-probabilities are those of the merged model."""
    columns, steps = {}, {}
    for name, start in {"adapter": tuned / "adapter", "merged": tuned, "base": tiny_model}.items():
        model = {"path": str(start), "lora": LORA}
        (tmp_path / name).mkdir()
        run = prepare(tmp_path / name, start, model=model, loss={"name": "dpo"}, train={"max_steps": 2})
        train.train(run)
        columns[name] = np.load(run.folder_of("reference") / "logprobs.npy")
        steps[name] = metrics.read(run.folder_of("train"))
    assert np.abs(columns["adapter"] - columns["merged"]).max() < 1e-4
    assert np.abs(columns["adapter"] - columns["base"]).max() > 1
    assert len(list((tmp_path / "adapter/run/merged").glob("*/config.json"))) == 1, "merged once for all stages"
    weights = np.load(tmp_path / "adapter/run/round_1/weights/dpo/entropy-power-1/weights.npy")
    _, rows = schedule.step_rows(np.arange(len(weights)), 0, 8, 0)
    assert steps["adapter"][0]["loss"] == pytest.approx(math.log(2) * weights[rows].mean(), rel=1e-5)
    assert [s["loss"] for s in steps["adapter"]] == pytest.approx([s["loss"] for s in steps["merged"]], rel=1e-5)


def test_an_adapter_is_merged_once_and_another_one_again(tuned, tmp_path):
    merged = tmp_path / "merged"
    folder = models.resolve(str(tuned / "adapter"), None, merged)
    assert folder.parent == merged
    weights, expected = load_file(folder / "model.safetensors"), load_file(tuned / "model.safetensors")
    assert weights.keys() == expected.keys()
    assert all(bool((weights[name] - expected[name]).abs().max() < 1e-6) for name in expected)
    manifest = (folder / artifacts.MANIFEST).read_text()
    assert models.resolve(str(tuned / "adapter"), None, merged) == folder
    assert (folder / artifacts.MANIFEST).read_text() == manifest, "it was merged again"
    adapter = shutil.copytree(tuned / "adapter", tmp_path / "adapter")
    values = json.loads((adapter / "adapter_config.json").read_text()) | {"lora_alpha": 16}
    (adapter / "adapter_config.json").write_text(json.dumps(values))
    assert models.resolve(str(adapter), None, merged) != folder


def test_the_tokenizer_is_that_of_the_adapter_if_it_has_one(tuned, tiny_model, tmp_path):
    adapter = shutil.copytree(tuned / "adapter", tmp_path / "adapter")
    plain = models.load_tokenizer(models.resolve(str(adapter), None, tmp_path / "merged"))
    tokenizer = models.load_tokenizer(tiny_model)
    assert models.tokenizer_digest(plain) == models.tokenizer_digest(tokenizer)
    tokenizer.chat_template = "another"
    tokenizer.save_pretrained(adapter)
    merged = models.load_tokenizer(models.resolve(str(adapter), None, tmp_path / "merged"))
    assert merged.chat_template == "another" != plain.chat_template


def test_an_adapter_that_cannot_be_merged_is_a_one_line_error(tuned, tmp_path):
    adapter = shutil.copytree(tuned / "adapter", tmp_path / "adapter")
    values = json.loads((adapter / "adapter_config.json").read_text())
    for change, message in (
        ({"base_model_name_or_path": "/nowhere"}, "cannot find its base .*found no folder '/nowhere'"),
        ({"base_model_name_or_path": None}, "cannot find its base"),
        ({"r": 2}, "cannot be merged into"),
    ):
        (adapter / "adapter_config.json").write_text(json.dumps(values | change))
        with pytest.raises(ValueError, match=message):
            models.resolve(str(adapter), None, tmp_path / "merged")
    assert not [f for f in tmp_path.glob("merged/*")], "an incomplete folder is left"
    (adapter / "adapter_config.json").unlink()
    with pytest.raises(ValueError, match="found neither config.json nor adapter_config.json"):
        models.resolve(str(adapter), None, tmp_path / "merged")
