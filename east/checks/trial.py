"""Tries a run's model on a small copy: the starting model's classes and widths, few layers, random weights.

What would stop training, or make it wrong, is found here before anything is drawn: a layer that packed batches cannot
run, logits that are more than an LM head, a gradient other than that of the model's own forward pass, an export that
does not load back.
"""

import copy
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from east import models
from east.models import export, policy
from east.run.config import Config, Loss
from east.run.loss_table import LOSSES
from east.sampling import engines, transformers_engine
from east.training import logprobs, objective
from east.training.logprobs import CompletionLogprobs, SequenceLogprobs
from east.training.objective import MicroBatch, StepNumbers
from east.training.packing import MAKERS

PARAMETERS = 2e9  # most of a copy: 8 GB in float32
MOST_LAYERS = 12
VOCABULARY = 1024
CHANGE = 0.01  # standard deviation of what is added to each trained weight before the copy is exported
WINDOW = 8  # tokens that a layer looks back at, so that short sequences are longer
SHORT = ("window", "local_attention", "index_topk")  # in the names of such settings
GRADIENT = 2e-4  # largest distance of gradients, relative to their norm, that float32 rounding explains
LENGTHS = ((13, 9), (13, 4), (6, 12), (6, 7))  # of prompts and completions; two prompts, each of two sequences


def run(config: Config, start: Path, outline: Any) -> str:
    """A line that says what was tried. Raises ValueError for the first problem.

    outline: the starting model on the meta device (`models.outline`).
    """
    export.check_names(outline, start)
    config = config.model_copy(update={"train": config.train.model_copy(update={"compile": False})})  # half a minute
    trust = config.model.trust_remote_code
    small = shrunk(outline, few_layers(outline))
    try:
        size = _size(small, trust)
    except Exception:  # a class that cannot have fewer layers: Zamba's share weights in a fixed pattern
        small = shrunk(outline, outline.config.get_text_config().num_hidden_layers)
        size = _size(small, trust)
    layers = small.get_text_config().num_hidden_layers
    if size > PARAMETERS:
        return f"model: not tried, because {layers} layers have {size:,} parameters; it is checked when training starts"
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "start")
        export.copy_files(start, folder)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            _from_config(small, trust).save_pretrained(folder)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if config.train.dtype != "float32":  # the kernels of the run's dtype
            logprobs.module_of(config, folder, config.train.dtype, device)
        if config.sampling.responses is None and engines.resolve(config.sampling.engine) == "transformers":
            transformers_engine.load_checked(folder, "float32", "cpu", trust)
        module = logprobs.module_of(config, folder, "float32", device)
        error = gradient_error(module, config.loss, config.model.packing)
        if not error <= GRADIENT:
            raise ValueError(
                f"{type(outline).__name__}: its gradient differs by {error:.1e} (relative) from that of its own "
                f"forward pass, expected at most {GRADIENT:g}; set model.packing=none, or choose another model"
            )
        _export(module, config, folder, Path(place, "final"))
    return (
        f"model: a copy of {layers} layers has the gradient of its own forward pass (relative difference {error:.0e}), "
        "and loads back once exported"
    )


def few_layers(outline: Any) -> int:
    """The number of first layers that show every kind of layer, at least two if the model has them."""
    lists = _per_layer(outline.config.get_text_config()).values()
    kinds = [
        (type(layer), [(n, p.shape) for n, p in layer.named_parameters()], [value[i] for value in lists])
        for i, layer in enumerate(policy.decoder_layers(outline))
    ]
    shown = max(kinds.index(kind) for kind in kinds) + 1
    return min(max(shown, 2), MOST_LAYERS, len(kinds))


def shrunk(outline: Any, layers: int) -> Any:
    """The config of a small copy: the first layers, a small vocabulary, short windows."""
    small = copy.deepcopy(outline.config)
    text = small.get_text_config()
    for key, value in _per_layer(text).items():
        setattr(text, key, value[:layers])
    text.num_hidden_layers = layers
    for key, value in vars(text).items():
        if type(value) is int and "vocab_size" in key:
            setattr(text, key, min(value, VOCABULARY))
        elif type(value) is int and any(part in key for part in SHORT):
            setattr(text, key, min(value, WINDOW))
    for section in (small, text):
        for key, value in vars(section).items():
            if key.endswith("_token_id") and type(value) is int:
                setattr(section, key, min(value, VOCABULARY - 1))
    for name in small.sub_configs:
        other = getattr(small, name)
        if other is not text and hasattr(other, "num_hidden_layers"):
            other.num_hidden_layers = 1
    return small


def gradient_error(module: CompletionLogprobs, loss: Loss, packing: str) -> float:
    """|g - e| / |e| of the gradient g of a small step of the loss and the gradient e of the same step by the model's
    own forward pass, one sequence at a time, in eager attention; both without dropout. A forward pass in training mode
    comes first. Raises ValueError for what that refuses (dropout in packed attention)."""
    model = policy.causal_lm(module.model)
    sequences = [policy.random_sequence(model, *lengths, seed=i) for i, lengths in enumerate(LENGTHS)]
    prompts = [sequences[i - i % 2][0] for i in range(len(sequences))]
    completions = [completion for _, completion in sequences]
    examples = len(sequences) // 2 if LOSSES[loss.name].pair else len(sequences)
    if LOSSES[loss.name].pair:  # chosen ones first, then the rejected ones of the same prompts
        order = [0, 2, 1, 3]
        prompts, completions = [prompts[i] for i in order], [completions[i] for i in order]
    batch = MAKERS[packing](prompts, completions, device=model.device)
    module.train()(batch)
    out = module.eval()(batch)
    micro = MicroBatch(
        batch=batch,
        reference=out.sums.detach() + torch.linspace(-1, 1, len(out.sums), device=model.device),
        weights=torch.linspace(0.5, 2, examples, device=model.device),
        desirable=torch.arange(examples, device=model.device) % 2 == 0,
        real=True,
    )
    gradient = _gradient(module, loss, out, micro)
    with policy.attention(model, "eager"):  # also in the backward pass, which may run layers again
        each = zip(prompts, completions, strict=True)
        sums = torch.stack([policy.token_logprobs(model, *sequence).sum() for sequence in each])
        expected = _gradient(module, loss, out._replace(sums=sums), micro)
    return float((gradient - expected).norm() / expected.norm())


def _gradient(module: CompletionLogprobs, loss: Loss, out: SequenceLogprobs, micro: MicroBatch) -> Tensor:
    """Gradient of the weighted loss by all trained parameters, in one vector."""
    numbers = StepNumbers(mean_length=8.0, z0=torch.tensor(0.1), mean_perplexity=torch.tensor(50.0))
    values, _ = objective.example_losses(loss, out, micro, numbers)
    trained = [p for p in module.parameters() if p.requires_grad]
    parts = torch.autograd.grad((micro.weights * values).sum(), trained, allow_unused=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for p, g in zip(trained, parts, strict=True)])


def _export(module: CompletionLogprobs, config: Config, start: Path, out: Path) -> None:
    """Change all trained weights, write the copy as training writes its model, and load it back."""
    trust, lora = config.model.trust_remote_code, config.model.lora
    model: Any = module.model.cpu()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in [p for p in model.parameters() if p.requires_grad]:
            parameter += CHANGE * torch.randn(parameter.shape, generator=generator)
    sequence = policy.random_sequence(policy.causal_lm(model))
    with torch.no_grad(), policy.attention(policy.causal_lm(model), "eager"):
        expected = float(policy.token_logprobs(model, *sequence).sum())
    if lora:
        named = dict(model.named_parameters(remove_duplicate=False))  # a tied one under each of its names
        model = models.save_and_merge(model, named, out / "adapter")
    state = dict(model.state_dict())
    models.write(model, state, start, out, "float32")
    models.verify(out, start, state, [sequence], [expected], trust)


def _per_layer(text: Any) -> dict[str, Any]:
    """The settings of a config that have one value for each layer."""
    return {k: v for k, v in vars(text).items() if isinstance(v, (list, tuple)) and len(v) == text.num_hidden_layers}


def _size(config: Any, trust: bool) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in _from_config(config, trust).parameters())


def _from_config(config: Any, trust: bool) -> Any:
    create: Any = transformers.AutoModelForCausalLM.from_config
    return create(copy.deepcopy(config), dtype=torch.float32, trust_remote_code=trust)
