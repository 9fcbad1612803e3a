"""What is refused before a model's weights are read, and what a model's config decides."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import train
from east import models
from east.data import training_data
from east.run import config
from east.training.logprobs import CompletionLogprobs
from tests import model_families, stages
from tests.conftest import environment, prepare, run_file, settings, write_responses

CODE = """
import transformers


class OwnConfig(transformers.LlamaConfig):
    model_type = "own"


class OwnModel(transformers.LlamaForCausalLM):
    config_class = OwnConfig
"""


@pytest.fixture
def folder(tmp_path, tiny_model) -> Path:
    return shutil.copytree(tiny_model, tmp_path / "start")


def change(folder: Path, **values) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def resolve(folder: Path, trust: bool = False) -> Path:
    return models.resolve(str(folder), None, folder.parent / "merged", trust)


@pytest.mark.parametrize("method", ["gptq", "awq", "bitsandbytes", "fp8"])
def test_quantised_weights_are_refused(folder, method):
    change(folder, quantization_config={"quant_method": method, "bits": 4})
    with pytest.raises(ValueError, match=rf"quantised weights \({method}\).*use the model's unquantised weights"):
        resolve(folder)


def test_missing_weights_are_refused_before_anything_is_drawn(folder):
    """An index with two parts of which one is there; then no weights at all."""
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    parts = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": parts}))
    with pytest.raises(ValueError, match="1 of 2 files of weights are missing, such as model-00002-of-00002"):
        resolve(folder)
    (folder / "model.safetensors.index.json").unlink()
    with pytest.raises(ValueError, match="found no weights, expected one of model.safetensors"):
        resolve(folder)
    (folder / "config.json").write_text("[]")
    with pytest.raises(ValueError, match="config.json: not a JSON object"):
        resolve(folder)


def own_code(folder: Path) -> None:
    (folder / "own.py").write_text(CODE)
    names = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    change(folder, model_type="own", architectures=["OwnModel"], auto_map=names)


def test_code_of_a_model_is_not_run_without_permission(folder, tmp_path, tiny_model):
    """Transformers would ask on the terminal, and a `y` there would run it."""
    own_code(folder)
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n{CODE}")
    file = run_file(tmp_path, config.parse(settings(tmp_path, tiny_model, model={"path": str(folder)})))
    line = [sys.executable, "-m", "east", "check", "--config", str(file)]
    done = subprocess.run(line, input="y\ny\n", capture_output=True, text=True, env=environment(), timeout=120)
    assert done.returncode == 1 and "Python code of its own" in done.stderr, done.stderr[-500:]
    assert "set model.trust_remote_code=true" in done.stderr and not (tmp_path / "ran").exists()


def test_code_of_a_model_with_permission(folder, tmp_path, capsys):
    """It is run, said, and copied into the exported folder."""
    own_code(folder)
    model = {"path": str(folder), "trust_remote_code": True}
    run = prepare(tmp_path, folder, model=model, train={"max_steps": 1}, loss={"name": "dpo"})
    stages.run("check", run)
    train.train(run)
    assert f"{folder} runs Python code of its own" in capsys.readouterr().out
    assert (run.folder_of("train") / "final" / "own.py").read_text() == CODE


def test_end_tokens_of_config_json(folder):
    """Also when generation_config.json does not name them; a text is no token id."""
    tokenizer = models.load_tokenizer(folder)
    (folder / "generation_config.json").unlink()
    change(folder, eos_token_id=[tokenizer.eos_token_id, 7])
    assert models.end_tokens(folder, tokenizer) == sorted({tokenizer.eos_token_id, 7})
    change(folder, eos_token_id=None, text_config={"eos_token_id": 9})
    assert models.end_tokens(folder, tokenizer) == sorted({tokenizer.eos_token_id, 9})
    change(folder, eos_token_id="abc")
    with pytest.raises(ValueError, match="config.json: found eos_token_id 'abc', expected token ids"):
        models.end_tokens(folder, tokenizer)


def test_a_tokenizer_with_more_tokens_than_embeddings_is_used(folder, tmp_path):
    """As of gemma-3-1b-it, whose image token has no embedding: only an id that is used is refused."""
    tokenizer = models.load_tokenizer(folder)
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    tokenizer.save_pretrained(folder)
    assert len(models.load_tokenizer(folder)) == models.vocabulary(folder) + 1
    train.train(prepare(tmp_path, folder, train={"max_steps": 1}))


def test_longrope_is_limited_to_its_first_encoding(tmp_path, family_tokenizer):
    """128 tokens are the original length, 256 the extended one: a longer sequence would switch the positions of all
    others in its row to the long factors."""
    folder = tmp_path / "start"
    model_families.make("phi3-longrope", folder, family_tokenizer)
    assert models.context_limit(folder) == 128
    run = prepare(tmp_path, folder, loss={"name": "dpo"})
    tokens = training_data.dataset(run, models.load_tokenizer(folder), *_digest(folder))
    longest = int((tokens.sequences["prompt_length"] + tokens.sequences["completion_length"]).max())
    training_data.check_lengths(tokens, longest)
    with pytest.raises(ValueError, match=f"a sequence of {longest} tokens, expected at most {longest - 1}"):
        training_data.check_lengths(tokens, longest - 1)


def _digest(folder: Path) -> tuple[str]:
    from east.run import artifacts

    return (artifacts.model_digest(folder),)


def test_the_models_own_dropout_is_a_setting(tmp_path, family_tokenizer):
    """OPT with dropout: without it the loss of step 0 is ln 2 mean(w), as reference and policy are equal."""
    folder = tmp_path / "start"
    model_families.make("opt-dropout", folder, family_tokenizer)
    first = {}
    for dropout in ("none", "model"):
        run = prepare(
            tmp_path, folder, name=dropout, loss={"name": "dpo"}, weighting={"strategy": "uniform"},
            train={"max_steps": 1, "dropout": dropout},
        )  # fmt: skip
        train.train(run)
        (row,) = train.metrics.read(run.folder_of("train"))
        first[dropout] = row["loss"]
    assert first["none"] == pytest.approx(float(torch.log(torch.tensor(2.0))), rel=1e-6)
    assert abs(first["model"] - first["none"]) > 1e-4


def test_a_tilde_is_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    found = config.parse(
        {"run": "~/run", "model": {"path": "~/model"}, "task": {"name": "jsonl", "train": "~/t.jsonl"}}
    )
    assert (found.run, found.model.path, found.task.train) == (
        "/home/someone/run", "/home/someone/model", "/home/someone/t.jsonl",
    )  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"model": {"lora": {"dropout": 0.5, "r": 2}}},
        {"loss": {"name": "sft", "local_weight": "lw_w"}},
        {"loss": {"name": "dpo", "local_weight": "lw_p"}},
        {"loss": {"name": "kto"}, "train": {"gradient_checkpointing": True, "dtype": "bfloat16"}},
        {"model": {"packing": "none"}, "train": {"dropout": "model"}},
    ],
    ids=["lora dropout", "lw_w", "lw_p", "kto", "own dropout"],
)
def test_check_tries_the_settings_of_the_run(tmp_path, family_tokenizer, capsys, change):
    folder = tmp_path / "start"
    model_families.make("seed-oss-dropout", folder, family_tokenizer)
    change = {**change, "model": {"path": str(folder), **change.get("model", {})}}
    write_responses(tmp_path / "responses.jsonl")
    stages.run("check", config.parse(settings(tmp_path, folder, **change)))
    assert "model: a copy of 2 layers has the gradient of its own forward pass" in capsys.readouterr().out


def test_check_refuses_attention_dropout_in_packed_rows(tmp_path, family_tokenizer):
    folder = tmp_path / "start"
    model_families.make("seed-oss-dropout", folder, family_tokenizer)
    with pytest.raises(ValueError, match="attention uses attention dropout; set model.packing=none"):
        stages.run("check", config.parse(settings(tmp_path, folder, train={"dropout": "model"})))


def test_code_that_transformers_does_not_need_is_not_run(folder):
    """Phi 3 and others have code in their folders from before transformers had their classes."""
    (folder / "old.py").write_text("raise RuntimeError")
    change(folder, auto_map={"AutoModelForCausalLM": "old.Model"})
    models.load(resolve(folder), dtype="float32")


@pytest.mark.parametrize("name", ["lfm2", "qwen3.5-text", "bloom", "codegen", "mamba2"])
def test_state_that_crosses_sequences_is_found_in_bfloat16(tmp_path, family_tokenizer, name):
    """The rounding of bfloat16 is larger than what crosses, but it is the same whatever the other tokens are."""
    model_families.make(name, tmp_path / "start", family_tokenizer)
    model = models.load(tmp_path / "start", dtype="bfloat16", attention="packed")
    with pytest.raises(ValueError, match="set model.packing=none"):
        CompletionLogprobs(model)
