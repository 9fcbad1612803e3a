"""A trained model's folder: the starting folder with other weights. Every other file is copied as it is."""

import contextlib
import json
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import huggingface_hub
import safetensors.torch
import torch
from torch import Tensor
from transformers.core_model_loading import revert_weight_conversion

from east.models import folder, policy
from east.models.tokenizer import load_tokenizer, same_tokens
from east.run import artifacts, files

# Other formats of the same weights, whose values would be the starting model's
WEIGHT_SUFFIXES = {".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".onnx", ".h5", ".msgpack", ".ot"}
WRITTEN_ALIKE = (
    "its weights cannot be written like the starting folder's (an adapter on tied embeddings, or on a weight that the "
    "model reads past it, say); choose other modules or another model"
)
OURS = {artifacts.MANIFEST, artifacts.PLAN, folder.ADAPTER, "adapter"}  # of an earlier round's model, of an adapter


def write(model: Any, state: Mapping[str, Tensor], start: Path, out: Path, dtype: str) -> None:
    """Write to `out` the folder `start` with the weights `state`.

    model: the causal LM that was loaded from `start`, from which the names of its tensors in memory are known. state:
    its tensors by these names. They are written under the names and in the shapes of the starting folder; tensors that
    the model does not load (an image encoder, say) are copied. dtype: of `state`, for config.json.
    Raises ValueError when a tensor has no place in the starting folder, and when `out` cannot be written.
    """
    with _Weights(start) as before, write_errors(out):
        written = _named_as(before, model, state, start)
        for name in sorted(before.names.keys() - written.keys()):
            written[name] = before.read(name)
        out.mkdir(parents=True, exist_ok=True)
        plan = huggingface_hub.split_torch_state_dict_into_shards(written)
        for name, tensors in plan.filename_to_tensors.items():
            own = {tensor: _own_memory(written[tensor]) for tensor in tensors}
            safetensors.torch.save_file(own, out / name, metadata={"format": "pt"})
        if plan.is_sharded:
            index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
            files.write_text(out / "model.safetensors.index.json", json.dumps(index, indent=2) + "\n")
        copy_files(start, out)
        _set_dtype(out / folder.CONFIG, dtype)


def check_names(outline: Any, start: Path) -> None:
    """Raise ValueError when a tensor of the model has no place in the starting folder, as `write` would.

    outline: the model on the meta device.
    """
    with _Weights(start) as before:
        _named_as(before, outline, outline.state_dict(), start)


def copy_files(source: Path, out: Path) -> None:
    """Copy what is not weights: tokenizer, chat templates, generation and processor settings, code, licence. Hidden
    files and the files of this project are left behind; what `out` has already is replaced."""
    for path in sorted(source.rglob("*")):
        name = path.relative_to(source)
        weights = path.suffix in WEIGHT_SUFFIXES or path.name.endswith(".index.json")
        if path.is_file() and not weights and not OURS & set(name.parts) and not str(name).startswith("."):
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, out / name)  # the content of a link into the hub's cache


def verify(
    out: Path,
    tokens_of: Path,
    state: Mapping[str, Tensor],
    sequences: list[policy.Sequence],
    expected: list[float],
    trust: bool,
) -> None:
    """Load the folder as its users do, and compare its weights with `state`, log-probabilities of completions with
    those of the model in memory, and the tokens of texts with those of the tokenizer in the folder `tokens_of`.

    Raises ValueError when a weight is not the same, a log-probability differs by more than rounding explains, or a text
    has other tokens.
    """
    before, after = load_tokenizer(tokens_of, trust), load_tokenizer(out, trust)
    if not same_tokens(before, after, [before.decode(prompt) for prompt, _ in sequences]):
        raise ValueError(f"{out}: its tokenizer gives other tokens than that of {tokens_of}; fetch {tokens_of} again")
    model = policy.load(out, dtype="auto", trust=trust)
    loaded_state = model.state_dict()
    for name, tensor in state.items():
        if not torch.equal(loaded_state[name].to(tensor.dtype), tensor.detach().cpu()):
            raise ValueError(f"{out}: loaded from disk, {name} is not what was written; {WRITTEN_ALIKE}")
    allowed = policy.TOLERANCE[policy.dtype_name(model)]
    with torch.no_grad():
        for sequence, sum_ in zip(sequences, expected, strict=True):
            loaded = policy.token_logprobs(model, *sequence)
            size = max(1.0, abs(sum_) / len(loaded))  # rounding grows with the logits
            worst = abs(float(loaded.sum()) - sum_) / len(loaded) ** 0.5 / size
            if not worst <= allowed:
                raise ValueError(
                    f"{out}: loaded from disk, the model differs from the one in memory by {worst:.2g} sqrt(T) nats (T "
                    f"tokens), expected at most {allowed:g} sqrt(T); {WRITTEN_ALIKE}"
                )


@contextlib.contextmanager
def write_errors(out: Path) -> Iterator[None]:
    """Turn the errors of the writers of safetensors into one clear line."""
    try:
        yield
    except safetensors.SafetensorError as error:
        raise ValueError(f"{out}: cannot write ({error}); free the disk, then run the same command") from error


class _Weights:
    """The tensors of a model folder by name, read one at a time. names: their shapes."""

    def __init__(self, model: Path):
        self.paths, self.open = folder.weight_files(model), contextlib.ExitStack()
        self.names: dict[str, tuple[int, ...]] = {}
        self._source: dict[str, Any] = {}

    def __enter__(self) -> "_Weights":
        for path in self.paths:
            if path.suffix == ".safetensors":
                file = self.open.enter_context(safetensors.safe_open(path, framework="pt"))
                found = {name: (tuple(file.get_slice(name).get_shape()), file) for name in file.keys()}  # noqa: SIM118
            else:
                zipped = zipfile.is_zipfile(path)  # the format of PyTorch since 1.6, which can be mapped into memory
                loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
                found = {name: (tuple(tensor.shape), loaded) for name, tensor in loaded.items()}
            self.names |= {name: shape for name, (shape, _) in found.items()}
            self._source |= {name: source for name, (_, source) in found.items()}
        return self

    def __exit__(self, *_: Any) -> None:
        self.open.close()

    def read(self, name: str) -> Tensor:
        """One tensor, in its stored dtype."""
        source = self._source[name]
        tensor: Tensor = source[name] if isinstance(source, dict) else source.get_tensor(name)
        return tensor


def _named_as(before: _Weights, model: Any, state: Mapping[str, Tensor], start: Path) -> dict[str, Tensor]:
    """The tensors of `state` under the names and in the shapes of the starting folder. Those that it does not have must
    be equal to one of the others: tied, and stored once."""
    tensors, decoder = revert_weight_conversion(model, dict(state)), model.base_model_prefix
    written, others = dict[str, Tensor](), dict[str, Tensor]()
    for name, tensor in tensors.items():
        # the file of a decoder alone, as GPT-2's on the hub, has names without the decoder's
        for known in (name, name.removeprefix(f"{decoder}."), f"{decoder}.{name}"):
            if before.names.get(known) == tuple(tensor.shape):
                written[known] = tensor
                break
        else:
            others[name] = tensor
    for name, tensor in others.items():
        alike = [other for other in written.values() if other.shape == tensor.shape]
        if not any(tensor.is_meta or torch.equal(tensor, other) for other in alike):
            raise ValueError(
                f"{start}: its weights have no place for {name} {list(tensor.shape)} of the trained model; save the "
                "starting model with save_pretrained of this version of transformers, and start from that folder"
            )
    return written


def _own_memory(tensor: Tensor) -> Tensor:
    """The tensor in memory of its own: tied weights share it, and a layer's experts may be parts of one tensor."""
    return tensor.detach().clone(memory_format=torch.contiguous_format)


def _set_dtype(path: Path, dtype: str) -> None:
    """Write the dtype of the weights into config.json, under the key that it has (transformers 4: torch_dtype)."""
    settings = folder.read_json(path)
    text = settings.get("text_config")
    for section in (settings, *([text] if isinstance(text, dict) else [])):
        for key in [k for k in ("dtype", "torch_dtype") if k in section]:
            section[key] = dtype
    if "dtype" not in settings and "torch_dtype" not in settings:
        settings["torch_dtype"] = dtype
    files.write_text(path, json.dumps(settings, indent=2) + "\n")
