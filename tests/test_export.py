"""final/ and merged/ are the starting folder with other weights: every other file is the same, byte for byte."""

import json
import shutil
from pathlib import Path
from typing import Any

import peft
import pytest
import sentencepiece
import torch
import transformers
from safetensors.torch import load_file, save_file

import train
from east import models
from east.models import export
from east.run import artifacts
from tests import model_families
from tests.conftest import prepare

ONE_STEP = {"max_steps": 1, "epochs": 1, "lr": 1e-2}


def trained(tmp: Path, start: Path, **changes: Any) -> Path:
    """final/ of one SFT step from a folder."""
    changes["train"] = {**ONE_STEP, **changes.get("train", {})}
    run = prepare(tmp, start, **{"model": {"path": str(start)}, **changes})
    train.train(run)
    return run.folder_of("train") / "final"


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {k: v for path in sorted(folder.glob("*.safetensors")) for k, v in load_file(path).items()}


def family(name: str, folder: Path, tokenizer: Any) -> Path:
    model_families.make(name, folder, tokenizer)
    return folder


@pytest.fixture
def downloaded(tmp_path, tiny_model) -> Path:
    """A folder as transformers 4 wrote it, with what hub repositories have besides: generation defaults that
    transformers 5 refuses to save (temperature without do_sample), processor settings, a licence, an image."""
    folder = shutil.copytree(tiny_model, tmp_path / "start")
    config = json.loads((folder / "config.json").read_text())
    rope = config.pop("rope_parameters")
    config.pop("dtype")
    config |= {"torch_dtype": "float32", "transformers_version": "4.45.0", "rope_theta": rope["rope_theta"]}
    (folder / "config.json").write_text(json.dumps(config | {"rope_scaling": None}, indent=4))
    generation = {"temperature": 0.6, "top_p": 0.9, "do_sample": False, "eos_token_id": [1]}
    (folder / "generation_config.json").write_text(json.dumps(generation))
    (folder / "preprocessor_config.json").write_text('{"image_size": 28}')
    (folder / "LICENSE").write_text("Apache-2.0")
    (folder / "figures").mkdir()
    (folder / "figures" / "loss.png").write_bytes(b"\x89PNG")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "refs").write_text("main")
    return folder


def test_every_other_file_is_unchanged(downloaded, tmp_path):
    """In bfloat16: config.json has the dtype of the weights under the key that it had, and nothing else changes."""
    final = trained(tmp_path, downloaded, train={"dtype": "bfloat16"})
    before = {p.relative_to(downloaded).as_posix(): p.read_bytes() for p in downloaded.rglob("*") if p.is_file()}
    after = {p.relative_to(final).as_posix(): p.read_bytes() for p in final.rglob("*") if p.is_file()}
    assert after.keys() == before.keys() - {".cache/refs"} | {"manifest.json"}
    other = before.keys() - {"model.safetensors", "config.json", ".cache/refs"}
    assert len(other) >= 6 and all(before[name] == after[name] for name in other)
    expected = json.loads(before["config.json"]) | {"torch_dtype": "bfloat16"}
    assert json.loads(after["config.json"]) == expected
    old, new = weights(downloaded), weights(final)
    assert {k: v.shape for k, v in old.items()} == {k: v.shape for k, v in new.items()}
    assert {v.dtype for v in new.values()} == {torch.bfloat16}
    assert any(bool((old[name].bfloat16() != new[name]).any()) for name in old)


def test_generation_defaults_are_not_part_of_the_digest(downloaded):
    """Mending temperature does not make it another model; another end token does."""
    first, path = artifacts.model_digest(downloaded), downloaded / "generation_config.json"
    path.write_text(json.dumps({"eos_token_id": [1]}))
    assert artifacts.model_digest(downloaded) == first
    path.write_text(json.dumps({"eos_token_id": [1, 2]}))
    assert artifacts.model_digest(downloaded) != first


def test_a_legacy_sentencepiece_tokenizer_gives_the_same_tokens_afterwards(tmp_path, tiny_model):
    """Llama 2's layout: tokenizer.model and `legacy: true`, which save_pretrained writes in another form."""
    folder = tmp_path / "start"
    folder.mkdir()
    (tmp_path / "text").write_text(
        "\n".join(f"{a} + {b} = {a + b} so the answer is {a + b}" for a in range(9) for b in range(9))
    )
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "text"), model_prefix=str(folder / "tokenizer"), vocab_size=120, byte_fallback=False,
        model_type="bpe", unk_id=0, bos_id=1, eos_id=2, minloglevel=2, hard_vocab_limit=False,
    )  # fmt: skip
    (folder / "tokenizer.vocab").unlink()
    tokenizer_config = {"tokenizer_class": "LlamaTokenizer", "legacy": True, "add_bos_token": True, "bos_token": "<s>",
                        "eos_token": "</s>", "unk_token": "<unk>"}  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config))
    tokenizer = models.load_tokenizer(folder)
    config = transformers.LlamaConfig(vocab_size=len(tokenizer), **model_families.GQA, bos_token_id=1, eos_token_id=2)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    task = {"prompt": "{system}\n{question}\n", "name": "arithmetic", "train_rows": [0, 24]}
    final = trained(tmp_path, folder, task=task)
    assert {p.name for p in final.iterdir()} >= {"tokenizer.model", "tokenizer_config.json"}
    texts = ["  two spaces", "3 + 4", "</s> is text", "so the answer"]
    after = models.load_tokenizer(final)
    assert [after(t)["input_ids"] for t in texts] == [tokenizer(t)["input_ids"] for t in texts]


@pytest.mark.parametrize("name", ["mixtral-jitter", "qwen3-moe", "deepseek-v3", "qwen3.5", "gemma3", "llama4"])
def test_names_and_shapes_are_those_of_the_start(name, tmp_path, family_tokenizer):
    """Experts are one tensor in memory and one per expert on disk; an image encoder that the language model does not
    load is copied."""
    start = family(name, tmp_path / "start", family_tokenizer)
    packing = "none" if name in ("qwen3.5", "llama4") else "shared_prompts"
    final = trained(tmp_path, start, model={"path": str(start), "packing": packing})
    old, new = weights(start), weights(final)
    assert {k: v.shape for k, v in old.items()} == {k: v.shape for k, v in new.items()}
    vision = [k for k in old if "visual" in k or "vision" in k]
    assert bool(vision) == (name in ("qwen3.5", "gemma3", "llama4")) and all(
        torch.equal(old[k], new[k]) for k in vision
    )
    changed = [k for k in old if not torch.equal(old[k], new[k])]
    assert len(changed) > (len(old) - len(vision)) / 2


@pytest.mark.parametrize("layout", ["prefix", "bin", "shards"])
def test_layouts_of_weights(layout, tmp_path, family_tokenizer):
    """GPT-2 as on the hub, without `transformer.` before the names; a pytorch_model.bin; weights in several files."""
    start = family("gpt2", tmp_path / "start", family_tokenizer)
    tensors = load_file(start / "model.safetensors")
    if layout == "prefix":
        tensors = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
        save_file(tensors, start / "model.safetensors", {"format": "pt"})
    elif layout == "bin":
        torch.save(tensors, start / "pytorch_model.bin")
        (start / "model.safetensors").unlink()
    else:
        (start / "model.safetensors").unlink()
        transformers.AutoModelForCausalLM.from_config(models.config(start)).save_pretrained(
            start, max_shard_size="60KB"
        )
        tensors = weights(start)
        assert len(list(start.glob("*.safetensors"))) > 1
    new = weights(trained(tmp_path, start))
    assert {k: v.shape for k, v in new.items()} == {k: v.shape for k, v in tensors.items()}
    assert any(not torch.equal(new[name], tensors[name]) for name in new)


def test_a_model_that_cannot_be_written_like_its_start_is_refused_by_name(tmp_path, tiny_model):
    outline = models.outline(tiny_model)
    state = {**outline.state_dict(), "model.layers.9.extra": torch.zeros(3)}
    with pytest.raises(ValueError, match=r"no place for model.layers.9.extra \[3\] of the trained model"):
        export.write(outline, state, tiny_model, tmp_path / "out", "float32")


def test_a_wrong_copy_is_found(tmp_path, tiny_model):
    """A weight that is changed on disk, and a tokenizer of another vocabulary."""
    copy = shutil.copytree(tiny_model, tmp_path / "copy")
    sequence = (models.load_tokenizer(tiny_model)("What is the total?")["input_ids"], [8, 9, 10, 11])
    model = models.load(tiny_model, dtype="float32")
    with torch.no_grad():
        expected = [float(models.token_logprobs(model, *sequence).sum())]
    export.verify(copy, tiny_model, {}, [sequence], expected, trust=False)
    tensors = load_file(copy / "model.safetensors")
    tensors["model.norm.weight"] *= 2
    save_file(tensors, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="loaded from disk, model.norm.weight is not what was written"):
        export.verify(copy, tiny_model, model.state_dict(), [sequence], expected, trust=False)
    with pytest.raises(ValueError, match=r"loaded from disk, the model differs from the one in memory by \d"):
        export.verify(copy, tiny_model, {}, [sequence], expected, trust=False)
    shutil.copyfile(tiny_model / "model.safetensors", copy / "model.safetensors")
    tokenizer = json.loads((copy / "tokenizer.json").read_text())
    tokenizer["model"]["merges"] = []
    (copy / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ValueError, match="its tokenizer gives other tokens"):
        export.verify(copy, tiny_model, {}, [sequence], expected, trust=False)


def test_an_adapter_on_a_tied_head_is_refused(tmp_path, tiny_model):
    """Merged into tied weights, the head's adapter would change the embeddings as well: another model, found by
    loading the merged folder, and not kept."""
    torch.manual_seed(0)
    config = peft.LoraConfig(r=4, target_modules=["lm_head", "q_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    base = transformers.AutoModelForCausalLM.from_pretrained(tiny_model)
    peft.get_peft_model(base, config).save_pretrained(tmp_path / "adapter")
    with pytest.raises(ValueError, match=r"loaded from disk, .*\(an adapter on tied embeddings"):
        models.resolve(str(tmp_path / "adapter"), None, tmp_path / "merged")
    assert not [path for path in (tmp_path / "merged").rglob("*") if path.is_file()]
