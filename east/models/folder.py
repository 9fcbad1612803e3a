"""A model folder: what is refused before its weights are read, and what its config says."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import transformers

CONFIG = "config.json"
ADAPTER = "adapter_config.json"  # PEFT's name
# Weights of one model, in the order in which transformers looks for them; an index names the files of the parts
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
CODE = "auto_map"  # transformers' key for classes in the folder's own Python files
# the stages show their own progress bars
transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers


def check(folder: Path, trust: bool) -> None:
    """Refuse a folder that cannot be trained, from its files' names and config.json alone (see `resolve.resolve`)."""
    if not (folder / CONFIG).exists():
        raise ValueError(
            f"model.path: found neither {CONFIG} nor {ADAPTER} in {folder}; set it to a Hugging Face model folder"
        )
    settings = read_json(folder / CONFIG)
    if quantized := settings.get("quantization_config"):
        method = quantized.get("quant_method", "unknown") if isinstance(quantized, dict) else quantized
        raise ValueError(
            f"{folder}: found quantised weights ({method}), which cannot be trained; use the model's unquantised "
            "weights"
        )
    tokenizer = folder / "tokenizer_config.json"
    own_tokenizer = tokenizer.exists() and CODE in read_json(tokenizer)
    if CODE in settings or own_tokenizer:
        # transformers has classes of its own for many models whose folders have old code as well
        if not trust and settings.get("model_type") not in transformers.CONFIG_MAPPING:
            raise ValueError(
                f"{folder}: found Python code of its own ({CODE} in its config), which is not run; read the code, then "
                "set model.trust_remote_code=true"
            )
        if trust:
            print(f"model: {folder} runs Python code of its own (model.trust_remote_code)")
    weight_files(folder)


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the model's weights. Raises ValueError when there are none, or a part is missing."""
    name = next((name for name in WEIGHTS if (folder / name).exists()), None)
    if name is None:
        raise ValueError(f"{folder}: found no weights, expected one of {', '.join(WEIGHTS)}; fetch the folder again")
    if not name.endswith(".index.json"):
        return [folder / name]
    parts = read_json(folder / name).get("weight_map")
    if not isinstance(parts, dict) or not all(isinstance(part, str) for part in parts.values()):
        raise ValueError(f"{folder / name}: found no weight_map, expected file names; fetch the folder again")
    paths = [folder / part for part in sorted(set(parts.values()))]
    if missing := [path.name for path in paths if not path.exists()]:
        raise ValueError(
            f"{folder}: {len(missing)} of {len(paths)} files of weights are missing, such as {missing[0]}; fetch the "
            "folder again"
        )
    return paths


def config(folder: Path, trust: bool = False) -> Any:
    """The model's transformers config. Raises ValueError when it cannot be read."""
    try:
        return transformers.AutoConfig.from_pretrained(folder, trust_remote_code=trust)
    except Exception as error:  # the config classes raise many types
        line = " ".join(str(error).split())[:200]
        raise ValueError(f"{folder / CONFIG}: cannot be read ({line}); fetch or save the folder again") from None


def vocabulary(folder: Path, trust: bool = False) -> int:
    """Size of the model's vocabulary, from its config. Raises ValueError when the config does not name it."""
    size: int | None = getattr(config(folder, trust).get_text_config(), "vocab_size", None)
    if not size:
        raise ValueError(f"{folder}: {CONFIG} has no vocab_size; use a causal language model")
    return size


def context_limit(folder: Path, trust: bool = False) -> int | None:
    """Most tokens of a sequence whose positions the model encodes in one way; None if the config names no limit.

    LongRoPE has two encodings: one of its longer sequences would change that of the others in its batch, and that of
    its own first tokens. The limit of such a model is that of its first encoding.
    """
    text = config(folder, trust).get_text_config()
    limit: int | None = getattr(text, "max_position_embeddings", None)
    for rope in _rope_parameters(getattr(text, "rope_parameters", None)):
        original = rope.get("original_max_position_embeddings") or getattr(
            text, "original_max_position_embeddings", None
        )
        if rope.get("rope_type") == "longrope" and original:
            limit = min(limit or original, original)
    return limit


def _rope_parameters(value: Any) -> Iterator[dict[str, Any]]:
    """The parameters of each kind of layer: some models have one set, others one per kind."""
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from _rope_parameters(inner)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises ValueError when the file holds something else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: not a JSON object; fetch or fix the file")
    return value
