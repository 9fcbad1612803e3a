"""The simple implementation that tests compare with: padded batches, full logits, transformers' own attention."""

import copy
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

import east.training.packed_attention  # noqa: F401  (registers `packed` with transformers)

VOCABULARY = 61


def tiny_llama(attention: str = "packed", tied: bool = True, dtype: torch.dtype = torch.float32) -> LlamaForCausalLM:
    """About 20,000 parameters, grouped-query attention, weights large enough for peaked distributions."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=tied,
        initializer_range=0.2,
        pad_token_id=0,
    )
    torch.manual_seed(1)
    model = LlamaForCausalLM(config)
    model.set_attn_implementation(attention)
    model.to(dtype)  # type: ignore[arg-type]
    return model


def with_attention(model: LlamaForCausalLM, attention: str) -> LlamaForCausalLM:
    """A copy of the model with another attention implementation: equal weights, no shared state."""
    other = copy.deepcopy(model)
    other.set_attn_implementation(attention)
    return other


def random_sequences(seed: int, prompt_lengths: Sequence[int], completion_lengths: Sequence[int]) -> tuple[list, list]:
    """Prompts and completions of random tokens (never 0, the padding token)."""
    rng = np.random.default_rng(seed)
    prompts, completions = (
        [rng.integers(1, VOCABULARY, n) for n in lengths] for lengths in (prompt_lengths, completion_lengths)
    )
    return prompts, completions


def padded_logprobs(model: torch.nn.Module, prompts: list, completions: list) -> tuple[Tensor, Tensor]:
    """(sums, collisions), each [S] in fp32 or fp64, from the full logits of one right-padded batch [S, longest]."""
    rows = [torch.tensor(np.concatenate(pair)) for pair in zip(prompts, completions, strict=True)]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=0)
    seen = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    logits = model(input_ids=ids, attention_mask=seen).logits
    logprobs = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
    sums, collisions = [], []
    for s, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        steps = logprobs[s, len(prompt) - 1 : len(prompt) + len(completion) - 1]
        at_targets = steps.gather(1, torch.tensor(completion)[:, None])[:, 0]
        sums.append(at_targets.sum())
        collisions.append((at_targets - steps.exp().square().sum(1).log()).sum())
    return torch.stack(sums), torch.stack(collisions)


def gradients(model: torch.nn.Module) -> dict[str, Tensor]:
    """Gradients by parameter name, detached from the model."""
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def relative_distance(left: dict[str, Tensor], right: dict[str, Tensor]) -> float:
    """||left - right|| / ||right|| over all parameters; both must have the same names."""
    assert left.keys() == right.keys() and left
    difference = sum(float((left[name] - right[name]).double().square().sum()) for name in left)
    return math.sqrt(difference / sum(float(g.double().square().sum()) for g in right.values()))
