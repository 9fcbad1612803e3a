"""The causal language model of a folder, as training, scoring and sampling load it."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import safetensors
import torch
import transformers
from torch import Tensor, nn

from east.models.folder import config

OWN_ATTENTION = None  # transformers' choice for the model
# The log-probability of a sequence of T tokens may differ by this times sqrt(T) nats between two ways of computing it:
# the rounding errors of its tokens are independent. In bfloat16 the logits themselves are rounded, by up to 0.06 near
# 16.
TOLERANCE = {"float32": 1e-3, "float16": 0.05, "bfloat16": 0.2}
Sequence = tuple[Any, Any]  # token ids of a prompt and of its completion


def load(folder: Path, *, dtype: str, attention: str | None = OWN_ATTENTION, trust: bool = False) -> Any:
    """The causal LM of a folder, on the CPU, in `dtype`, in evaluation mode.

    attention: transformers' attn_implementation. trust: run Python code that comes with the model.
    Raises ValueError when the weights cannot be read, when some that config.json asks for are missing, and when the
    model has no such attention.
    """
    if attention is OWN_ATTENTION and _has_softcap(folder, trust):
        attention = "eager"  # transformers' sdpa leaves out the softcap of Gemma 2's attention
    return _load(folder, trust, dtype=dtype, attn_implementation=attention)


def outline(folder: Path, trust: bool = False) -> Any:
    """The model of a folder without its weights' values, on the meta device; raises ValueError as `load` does."""
    return _load(folder, trust, dtype="auto", device_map="meta")


def _has_softcap(model: Path, trust: bool) -> bool:
    return getattr(config(model, trust).get_text_config(), "attn_logit_softcapping", None) is not None


def _load(folder: Path, trust: bool, **settings: Any) -> Any:
    read: Any = transformers.AutoModelForCausalLM.from_pretrained
    try:
        model, loaded = read(folder, trust_remote_code=trust, output_loading_info=True, **settings)
    except (OSError, RuntimeError, safetensors.SafetensorError) as error:
        line = " ".join(str(error).split())[:200]
        raise ValueError(f"{folder}: cannot load the weights ({line}); fetch or save the folder again") from None
    except Exception as error:  # the model classes raise many types for what they do not support
        line = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        packed = settings.get("attn_implementation") in ("packed", "packed_sdpa")
        hint = "it cannot run packed sequences: set model.packing=none" if packed else "choose another model"
        raise ValueError(f"{folder}: cannot load the model ({line}); {hint}") from None
    for what, names in (
        ("no weights", loaded["missing_keys"]),
        ("weights of another shape", loaded["mismatched_keys"]),
    ):
        if names:
            first = sorted(map(str, names))[0]
            raise ValueError(
                f"{folder}: found {what} for {len(names)} tensors that config.json asks for, such as {first}; "
                "fetch or save the folder again"
            )
    text = model.config.get_text_config()
    for name in ("output_hidden_states", "output_router_logits"):  # nothing here reads them
        if getattr(text, name, False):
            setattr(text, name, False)
    return model.eval()


def causal_lm(model: Any) -> Any:
    """The transformers model, without PEFT's wrapper if there is one."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def decoder(model: Any) -> Any:
    """The module of a causal LM that computes its last hidden states, the model without its LM head."""
    for module in (model.get_decoder(), model.base_model, getattr(model, "model", model)):
        if isinstance(module, transformers.PreTrainedModel) and module is not model:
            return module
    raise ValueError(f"{type(model).__name__}: found no decoder below its LM head; choose another model")


def decoder_layers(model: Any) -> nn.ModuleList:
    """The decoder's layers, in order. Raises ValueError when the model has no list of that length."""
    count = model.config.get_text_config().num_hidden_layers
    for module in decoder(model).modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise ValueError(f"{type(model).__name__}: found no list of its {count} decoder layers; choose another model")


@contextlib.contextmanager
def attention(model: Any, name: str) -> Iterator[None]:
    """A block in which a transformers model uses another attention; models with one attention only keep theirs."""
    before = model.config._attn_implementation
    model.set_attn_implementation(name)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def token_logprobs(model: Any, prompt: Any, completion: Any) -> Tensor:
    """log pi(y_t | x, y_<t) of the tokens of one completion, [tokens], by the model's own forward pass and full logits.

    fp32, or fp64 for an fp64 model; with gradient where it is enabled.
    """
    ids = torch.tensor([*map(int, prompt), *map(int, completion)], device=model.device)
    logits = model(input_ids=ids[None], use_cache=False).logits[0, len(prompt) - 1 : -1]
    logprobs = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(dim=1)
    of_targets: Tensor = logprobs.gather(1, ids[len(prompt) :, None])[:, 0]
    return of_targets


def random_sequence(model: Any, prompt: int = 12, completion: int = 20, seed: int = 0) -> Sequence:
    """Random token ids of a prompt and a completion, below the model's vocabulary."""
    generator = torch.Generator().manual_seed(seed)
    vocabulary = causal_lm(model).config.get_text_config().vocab_size
    ids = torch.randint(vocabulary, (prompt + completion,), generator=generator)
    return ids[:prompt].tolist(), ids[prompt:].tolist()


def dtype_name(model: Any) -> str:
    """Such as bfloat16."""
    return str(model.dtype).removeprefix("torch.")
