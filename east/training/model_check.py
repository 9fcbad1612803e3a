"""Checks, when a model is loaded, that its log-probabilities are those of its own forward pass.

Three random sequences, two with the same prompt, of unequal lengths, are scored together in one batch, each alone, and
each alone by the model's own `forward`, with its eager attention and full logits. Then the tokens of one completion
after the other are changed: the log-probabilities of the other sequences must not change. No list of model families is
needed: recurrent state that crosses from one packed sequence to the next, attention that does not keep to
`packed_attention`, or logits that are more than an LM head, all show as a difference.
"""

from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import torch

from east.models import policy
from east.training.packed_attention import UNPACKED
from east.training.packing import Batch

LENGTHS = ((11, 5), (11, 9), (7, 6))  # of prompt and completion; the first two have the same prompt
# |difference of log-probabilities| / sqrt(T) that rounding explains, in nats, for sequences of T <= 9 tokens
TOLERANCE = {"float64": 1e-6, "float32": 1e-4, "float16": 0.1, "bfloat16": 0.5}
# The same for sequences of an unchanged batch whose other tokens change: their own arithmetic is the same
LEAK = {"float64": 1e-6, "float32": 1e-4, "float16": 0.01, "bfloat16": 0.01}


@torch.no_grad()
def check(module: Any, make: Callable[..., Batch], packed: bool) -> None:
    """Raise ValueError when one of the three differs from the others by more than rounding explains.

    module: a `CompletionLogprobs`. make: `pack` or `pad`, as the run will make its batches; packed: whether it packs.
    """
    model = policy.causal_lm(module.model)
    sequences = [policy.random_sequence(model, *lengths, seed=i) for i, lengths in enumerate(LENGTHS)]
    prompts = [sequences[0][0], sequences[0][0], sequences[2][0]]
    completions = [completion for _, completion in sequences]
    hint = UNPACKED if packed else "set train.dtype=float32, or choose another model"
    if model is not module.model:
        hint += ", or other model.lora.target_modules"
    sums = [float(parameter.sum()) for parameter in model.parameters()]
    try:
        together = module(make(prompts, completions, device=model.device)).sums
        alone = [module(make([p], [c], device=model.device)).sums for p, c in zip(prompts, completions, strict=True)]
        with policy.attention(model, "eager"):
            own = [policy.token_logprobs(model, p, c).sum() for p, c in zip(prompts, completions, strict=True)]
    except ValueError:
        raise
    except Exception as error:  # the model classes raise many types for arguments that they do not know
        _refuse(model, f"cannot run such batches ({type(error).__name__}: {' '.join(str(error).split())[:150]})", hint)
    if sums != [float(parameter.sum()) for parameter in model.parameters()]:  # RWKV, outside of training mode
        _refuse(model, "its forward pass changes its own weights", "choose another model")
    if not torch.stack(own).isfinite().all():
        found = [float(value) for value in own]
        dtype = policy.dtype_name(model)
        _refuse(
            model, f"log-probabilities of random tokens are {found}", f"the weights are broken or overflow in {dtype}"
        )
    what = "packed in one row" if packed else "in the rows of a batch"
    roots = torch.tensor([len(c) for c in completions], device=model.device).sqrt()
    allowed = TOLERANCE[policy.dtype_name(model)]
    by_others = max(
        float(((module(changed).sums - together).abs() / roots)[others].max())
        for changed, others in _with_one_changed(model, prompts, completions, make)
    )
    if not by_others <= LEAK[policy.dtype_name(model)]:
        _refuse(model, f"sequences {what} change each other's log-probabilities by {by_others:.1e} sqrt(T) nats", hint)
    by_batch = float(((together - torch.cat(alone)).abs() / roots).max())
    if not by_batch <= allowed:
        _refuse(model, f"sequences {what} change each other's log-probabilities by {by_batch:.1e} sqrt(T) nats", hint)
    by_own = float(((torch.cat(alone) - torch.stack(own)).abs() / roots).max())
    if not by_own <= allowed:
        _refuse(model, f"log-probabilities differ by {by_own:.1e} sqrt(T) nats from the model's own forward pass", hint)


def _with_one_changed(
    model: Any, prompts: list[Any], completions: list[Any], make: Callable[..., Batch]
) -> Iterator[tuple[Batch, list[int]]]:
    """The batch with other tokens in one completion, and the other sequences, for each completion."""
    for place, completion in enumerate(completions):
        _, tokens = policy.random_sequence(model, 1, len(completion), seed=100 + place)
        changed = [*completions[:place], tokens, *completions[place + 1 :]]
        others = [i for i in range(len(completions)) if i != place]
        yield make(prompts, changed, device=model.device), others


def _refuse(model: Any, what: str, hint: str) -> NoReturn:
    raise ValueError(f"{type(model).__name__}: {what}; {hint}") from None
