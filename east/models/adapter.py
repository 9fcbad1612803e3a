"""LoRA, and adapters merged into their base model. The only file that imports peft."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from east.models import export, folder, policy
from east.run import artifacts, pipeline
from east.run.config import Lora

TOKENIZER = (  # files of which tokenizers are made
    "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "*.model", "*.tiktoken",
    "chat_template.*", "additional_chat_templates/*.jinja",
)  # fmt: skip


def with_lora(model: Any, lora: Lora) -> Any:
    """The model wrapped by PEFT with a new adapter, the base frozen. Its outputs are those of the base; seed torch
    before, because the adapter's first matrix is random. Raises ValueError when target_modules match no module, or one
    that PEFT cannot adapt."""
    import peft

    settings = peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
    )
    try:
        return peft.get_peft_model(model, settings)
    except (ValueError, TypeError, NotImplementedError) as error:
        line = " ".join(str(error).split())[:250]
        raise ValueError(f"model.lora: PEFT cannot adapt this model ({line}); change its target_modules") from None


def save_and_merge(model: Any, state: dict[str, Tensor], out: Path) -> Any:
    """Give a model of `with_lora` the values of `state` (by name) and write its adapter to `out`; returns the base
    model with the adapter merged into it."""
    missing, unexpected = model.load_state_dict(state, strict=False)
    buffers = {name for name, _ in model.named_buffers()}
    assert not unexpected and set(missing) <= buffers, f"missing or unknown parameters: {missing[:3]} {unexpected[:3]}"
    with export.write_errors(out):
        model.save_pretrained(out)
    return model.merge_and_unload()


def merge(adapter: Path, merged: Path, resolve: Callable[[str, str | None], Path], trust: bool) -> Path:
    """A folder in `merged` with adapter and base merged into one model, in the dtype of the base; written once.

    All stages then read an ordinary model: it is the merged model that samples, is the reference and is trained. It is
    the base's folder with other weights, and with the adapter's tokenizer if it has one. resolve: the folder of the
    base, from its name and revision. Raises ValueError when the base cannot be found or does not fit, and when the
    merged model is not what adapter and base compute together.
    """
    try:
        settings = folder.read_json(adapter / folder.ADAPTER)
        base = resolve(str(settings["base_model_name_or_path"]), settings.get("revision"))
    except (ValueError, KeyError) as error:
        raise ValueError(
            f"{adapter / folder.ADAPTER}: cannot find its base ({error}); set base_model_name_or_path to a folder or "
            "hub name"
        ) from None
    artifact = pipeline.merged(merged, artifacts.model_digest(adapter), artifacts.model_digest(base))
    if artifact.complete():
        return artifact.folder
    model = policy.load(base, dtype="auto", trust=trust)
    sequence = policy.random_sequence(model)
    try:
        expected, model = _merged(model, adapter, sequence)
    except Exception as error:  # PEFT raises many types for what it cannot load or merge
        line = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{adapter}: cannot be merged into {base} ({line}); set base_model_name_or_path to the model that it was "
            "trained on"
        ) from None
    with artifact.writing() as (scratch, _):
        state = dict(model.state_dict())
        export.write(model, state, base, scratch, policy.dtype_name(model))
        tokens_of = adapter if (adapter / "tokenizer_config.json").exists() else base
        if tokens_of == adapter:
            _replace_tokenizer(adapter, scratch)
        export.verify(scratch, tokens_of, state, [sequence], [expected], trust)
    print(f"model: {adapter} and {base} merged into {artifact.folder}")
    return artifact.folder


def _replace_tokenizer(source: Path, out: Path) -> None:
    """The tokenizer files of a folder in place of all those that `out` has."""
    for path in [path for pattern in TOKENIZER for path in out.glob(pattern)]:
        path.unlink()
    for path in [path for pattern in TOKENIZER for path in source.glob(pattern)]:
        target = out / path.relative_to(source)
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, target)


@torch.no_grad()
def _merged(model: Any, adapter: Path, sequence: policy.Sequence) -> tuple[float, Any]:
    """(log-probability of a completion by base and adapter side by side, the merged model)."""
    import peft

    wrapped = peft.PeftModel.from_pretrained(model, str(adapter)).eval()
    expected = float(policy.token_logprobs(wrapped, *sequence).sum())
    return expected, wrapped.merge_and_unload()
