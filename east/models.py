"""Hugging Face models and tokenizers, LoRA, export. The only file that imports peft."""

import json
from pathlib import Path
from typing import Any

import safetensors
import torch
import transformers

from east.run import artifacts, files, pipeline
from east.run.config import Lora

ADAPTER = "adapter_config.json"  # PEFT's name
# the stages show their own progress bars
transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers


def resolve(path: str, revision: str | None, merged: Path) -> Path:
    """The local folder of a model: `path` itself, or the snapshot of a hub name; for a PEFT adapter, a folder below
    `merged` in which it is merged with its base model.

    Raises ValueError when the folder has no model, or when the hub name cannot be fetched.
    """
    folder = Path(path)
    if not folder.exists():
        if path.count("/") != 1 or path.startswith((".", "/")):
            raise ValueError(
                f"model.path: found no folder {path!r}; set it to an existing folder or a hub name owner/model"
            )
        folder = fetch(path, revision)
    if (folder / ADAPTER).exists():
        return merge(folder, merged)
    if not (folder / "config.json").exists():
        raise ValueError(
            f"model.path: found neither config.json nor {ADAPTER} in {folder}; set it to a Hugging Face model folder"
        )
    return folder


def fetch(name: str, revision: str | None) -> Path:
    """The snapshot of a hub name. Raises ValueError when it cannot be fetched."""
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(name, revision=revision, ignore_patterns=["original/*"]))
    except Exception as error:  # the hub client raises many types when it finds nothing
        line = " ".join(str(error).split())[:200]
        raise ValueError(
            f"model.path: found no folder {name!r} and cannot fetch it from the hub ({line}); check the name, or "
            "download the model and set the folder"
        ) from None


def merge(adapter: Path, merged: Path) -> Path:
    """A folder in `merged` with adapter and base merged into one model, in the dtype of the base; written once.

    All stages then read an ordinary model: it is the merged model that samples, is the reference and is trained. The
    tokenizer is that of the adapter if it has one. Raises ValueError when the base cannot be found or does not fit.
    """
    import peft

    try:
        settings = json.loads((adapter / ADAPTER).read_text())
        base = resolve(str(settings["base_model_name_or_path"]), settings.get("revision"), merged)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{adapter / ADAPTER}: cannot find its base ({error}); set base_model_name_or_path to a folder or hub name"
        ) from None
    artifact = pipeline.merged(merged, artifacts.model_digest(adapter), artifacts.model_digest(base))
    if artifact.complete():
        return artifact.folder
    tokenized = adapter if (adapter / "tokenizer_config.json").exists() else base
    model = load_policy(base, dtype="auto", attention="sdpa")
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(tokenized)
        model = peft.PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    except Exception as error:  # PEFT raises many types for what it cannot load or merge
        line = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{adapter}: cannot be merged into {base} ({line}); set base_model_name_or_path to the model that it was "
            "trained on"
        ) from None
    with artifact.writing() as (scratch, _):
        model.save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)
    print(f"model: {adapter} and {base} merged into {artifact.folder}")
    return artifact.folder


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a model folder. Raises ValueError when it cannot be loaded, has no end token, or has more tokens
    than the model's vocabulary."""
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    except Exception as error:  # the tokenizer loaders raise many types
        line = " ".join(str(error).split())[:200]
        raise ValueError(f"{folder}: cannot load its tokenizer ({line}); fetch or save the folder again") from None
    if len(tokenizer) > vocabulary(folder):
        raise ValueError(
            f"{folder}: found a tokenizer of {len(tokenizer)} tokens, expected at most the model's vocabulary of "
            f"{vocabulary(folder)}; use the tokenizer of this model"
        )
    if tokenizer.eos_token_id is None:
        raise ValueError(f"{folder}: the tokenizer has no end token; set eos_token in tokenizer_config.json")
    return tokenizer


def vocabulary(folder: Path) -> int:
    """Size of the model's vocabulary, from its config. Raises ValueError when the config does not name it."""
    size: int | None = transformers.AutoConfig.from_pretrained(folder).get_text_config().vocab_size
    if not size:
        raise ValueError(f"{folder}: config.json has no vocab_size; use a causal language model")
    return size


def end_tokens(folder: Path, tokenizer: Any) -> list[int]:
    """Ids that end a response: the eos token of the tokenizer and those of generation_config.json, sorted."""
    ids = {tokenizer.eos_token_id}
    path = folder / "generation_config.json"
    if path.exists():
        try:
            listed = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id")
        except (ValueError, AttributeError):
            raise ValueError(f"{path}: not a JSON object; fix or remove the file") from None
        ids |= set(listed if isinstance(listed, list) else [] if listed is None else [listed])
    return sorted(ids)


def added_bos(tokenizer: Any) -> int | None:
    """The id of the BOS if the tokenizer puts one before plain text, as Llama's does; None if prompts need none.

    A bos_token alone does not say so: some models name one and were trained without it, or begin every message with it.
    """
    bos = tokenizer.bos_token_id
    return bos if bos is not None and bos in tokenizer("a")["input_ids"][:1] else None


def tokenizer_digest(tokenizer: Any) -> str:
    """Hash of what decides token ids: vocabulary, BOS and EOS."""
    return files.digest(
        {"vocabulary": tokenizer.get_vocab(), "bos": tokenizer.bos_token_id, "eos": tokenizer.eos_token_id}
    )


def load_policy(
    folder: Path, *, dtype: str, attention: str, lora: Lora | None = None, gradient_checkpointing: bool = False
) -> Any:
    """The causal LM of a folder, on the CPU, in `dtype`; with `lora` wrapped by PEFT, with the base frozen.

    attention: transformers' attn_implementation. With a new adapter the model's outputs are those of the base; seed
    torch before, because the adapter's first matrix is random.
    Raises ValueError when the weights cannot be read, or when some that config.json asks for are missing.
    """
    load: Any = transformers.AutoModelForCausalLM.from_pretrained
    try:
        model, loaded = load(folder, dtype=dtype, attn_implementation=attention, output_loading_info=True)
    except (OSError, RuntimeError, safetensors.SafetensorError) as error:
        line = " ".join(str(error).split())[:200]
        raise ValueError(f"{folder}: cannot load the weights ({line}); fetch or save the folder again") from None
    if missing := sorted(loaded["missing_keys"]):
        raise ValueError(
            f"{folder}: found no weights for {len(missing)} tensors that config.json asks for, such as {missing[0]}; "
            "fetch or save the folder again"
        )
    if gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model if lora is None else with_lora(model, lora)


def with_lora(model: Any, lora: Lora) -> Any:
    """The model wrapped by PEFT with a new adapter. Raises ValueError when target_modules match no module."""
    import peft

    settings = peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
    )
    return peft.get_peft_model(model, settings)


def export(
    state: dict[str, torch.Tensor], start: Path, tokenizer: Any, out: Path, dtype: str, lora: Lora | None
) -> None:
    """Write a Hugging Face folder that from_pretrained and vLLM load: safetensors, tokenizer, chat template.

    state: the parameters of the model that `load_policy` returns, by name. start: folder of the starting model. With
    LoRA the adapter is merged, and also written to out/adapter. Raises ValueError when `out` cannot be written.
    """
    model = load_policy(start, dtype=dtype, attention="sdpa", lora=lora)
    missing, unexpected = model.load_state_dict(state, strict=False)
    buffers = {name for name, _ in model.named_buffers()}
    assert not unexpected and set(missing) <= buffers, f"missing or unknown parameters: {missing[:3]} {unexpected[:3]}"
    if lora is not None:
        _save(model, out / "adapter")
        model = model.merge_and_unload()
    _save(model, out)
    tokenizer.save_pretrained(out)


def _save(model: Any, out: Path) -> None:
    try:
        model.save_pretrained(out)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{out}: cannot write ({error}); free the disk, then run the same command") from error
