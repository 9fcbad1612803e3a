"""Log-probabilities of the completions of a batch, without a [tokens, vocabulary] tensor.

The decoder runs on the rows of the batch. The LM head runs only on the hidden states that predict completion tokens, a
chunk of them at a time. Softmax and sums are fp32 (fp64 for an fp64 model) for models of every dtype.

Shape legend: R rows of T positions, S sequences, N completion tokens of all sequences, D hidden size.
"""

import functools
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from east import models
from east.models import policy
from east.run.config import Config
from east.training import model_check, packed_attention
from east.training.chunked_logprobs import linear_logprobs
from east.training.packing import Batch, pack, pad

# Keys of transformers configs by which models scale their logits after the LM head, and bound them
FACTORS = ("logit_scale", "lm_head_multiplier", "output_multiplier_scale")
DIVISORS = ("logits_scaling",)
SOFTCAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")


class SequenceLogprobs(NamedTuple):
    """The result for each of the S sequences, in the order given to `pack` or `pad`.

    sums: [S] fp32, sum over completion tokens of log pi(y_t), with gradient. lengths: [S] int64, completion tokens.
    collision: [S] fp32 without gradient, sum_t log(pi(y_t) / sum_v pi(v)^2); None without `with_collision`.
    """

    sums: Tensor
    lengths: Tensor
    collision: Tensor | None


class CompletionLogprobs(nn.Module):
    """A transformers causal LM (with or without a PEFT wrapper) as a function from Batch to SequenceLogprobs.

    `self.model` is `hf_model`, moved to `device`; the module has no further parameters. A model that was loaded with
    attn_implementation="packed" or "packed_sdpa" scores packed batches, others those with a row for each sequence.
    chunk_tokens bounds memory: logits exist for that many tokens at a time.
    own_dropout=False runs the model without its dropout and other noise of training, also in training mode; LoRA's
    dropout follows the mode. compiled=True runs each decoder layer through torch.compile; it excludes ZeRO-3, which
    gathers inside layers. recompute=True keeps only the inputs of each decoder layer and runs it again in backward.
    Raises ValueError for a model without a linear LM head, for an attention kernel that gives wrong results, and when
    log-probabilities differ from those of the model's own forward pass (`model_check`).
    """

    def __init__(
        self,
        hf_model: nn.Module,
        chunk_tokens: int = 2048,
        with_collision: bool = False,
        compiled: bool = False,
        recompute: bool = False,
        own_dropout: bool = False,
        device: torch.device | str = "cpu",
    ):
        super().__init__()
        self.model = hf_model.to(device)
        self.own_dropout = own_dropout
        causal_lm: Any = policy.causal_lm(hf_model)
        self.packed = causal_lm.config._attn_implementation in packed_attention.NAMES
        self.head = CompletionHead(causal_lm, chunk_tokens, with_collision)
        _linear_head(causal_lm)
        if self.packed:
            packed_attention.check_kernel(causal_lm.config.get_text_config(), causal_lm.device, causal_lm.dtype)
        model_check.check(self.eval(), pack if self.packed else pad, self.packed)
        if compiled:
            # Saves the results of matrix products for backward and recomputes what is cheap: a fifth less memory, in
            # the same time
            torch._functorch.config.activation_memory_budget = 0.9
        for layer in policy.decoder_layers(causal_lm) if compiled or recompute else ():
            if compiled:
                layer.compile(dynamic=True)  # in place: parameter names are unchanged, and all layers share one graph
            if recompute:  # transformers' own is active in training mode only; this is the call that `compile` replaces
                call = layer._compiled_call_impl or layer._call_impl
                layer._compiled_call_impl = functools.partial(checkpoint, call, use_reentrant=False)

    def train(self, mode: bool = True) -> "CompletionLogprobs":
        """Training mode for this module and LoRA's dropout, and for the model only with `own_dropout`."""
        self.training = mode
        self.model.train(mode and self.own_dropout)
        for name, module in self.model.named_modules():
            if "lora_dropout" in name:
                module.train(mode)
        return self

    def forward(self, batch: Batch) -> SequenceLogprobs:
        assert (batch.segments is not None) == self.packed, "made by `pack` for a packed attention, else by `pad`"
        packed = {} if batch.segments is None else {"position_ids": batch.position_ids, "segments": batch.segments}
        decoder = policy.decoder(policy.causal_lm(self.model))
        hidden_RTD = decoder(input_ids=batch.input_ids, use_cache=False, **packed).last_hidden_state
        logprobs_N, collision_N = self.head(hidden_RTD.flatten(0, 1).index_select(0, batch.rows), batch.targets)
        return SequenceLogprobs(
            sums=_sum_by_sequence(logprobs_N, batch.lengths),
            lengths=batch.lengths_S,
            collision=None if collision_N is None else _sum_by_sequence(collision_N, batch.lengths),
        )


def module_of(config: Config, start: Path, dtype: str, device: torch.device) -> CompletionLogprobs:
    """The policy of a run as it is trained: the model of the folder `start`, with LoRA's matrices if the run has them.

    Seed torch before, because the adapter's first matrix is random. Raises ValueError as `models.load` and
    `CompletionLogprobs` do.
    """
    t, model = config.train, config.model
    policy = models.load(start, dtype=dtype, attention=model.training_attention, trust=model.trust_remote_code)
    return CompletionLogprobs(
        policy if model.lora is None else models.with_lora(policy, model.lora),
        t.head_chunk,
        with_collision=config.loss.local_weight == "lw_w",
        compiled=t.compile,
        recompute=t.gradient_checkpointing,
        own_dropout=t.dropout == "model",
        device=device,
    )


class CompletionHead(nn.Module):
    """The LM head on N hidden states: log-probability (and collision term) of the target of each, [N].

    It is a separate module, so that ZeRO-3 gathers the head's weight around its forward pass. The model is in a tuple,
    which keeps it from being registered: this module adds no parameters and no state_dict entries.
    """

    def __init__(self, causal_lm: Any, chunk_tokens: int, with_collision: bool):
        super().__init__()
        self._causal_lm = (causal_lm,)
        self.chunk_tokens = chunk_tokens
        self.with_collision = with_collision
        config = causal_lm.config.get_text_config()
        self.softcap = next((cap for name in SOFTCAPS if (cap := getattr(config, name, None)) is not None), None)
        self.scale = 1.0
        for name in (*FACTORS, *DIVISORS):
            value = getattr(config, name, None) or 1.0
            self.scale *= value if name in FACTORS else 1.0 / value

    def forward(self, hidden_ND: Tensor, targets_N: Tensor) -> tuple[Tensor, Tensor | None]:
        linear_head = _linear_head(self._causal_lm[0])
        return linear_logprobs(
            hidden_ND,
            linear_head.weight,
            linear_head.bias,
            targets_N,
            self.chunk_tokens,
            self.with_collision,
            self.scale,
            self.softcap,
        )


def _sum_by_sequence(values_N: Tensor, lengths: tuple[int, ...]) -> Tensor:
    # A sum per slice rather than index_add: the order of summation is fixed on every device.
    parts = values_N.split(lengths)  # type: ignore[no-untyped-call]  # torch
    return torch.stack([part.sum() for part in parts])


def _linear_head(causal_lm: Any) -> nn.Linear:
    """The nn.Linear that computes logits; PEFT's trained copy of it where modules_to_save names the head."""
    head = causal_lm.get_output_embeddings()
    if hasattr(head, "modules_to_save"):
        trained = head.modules_to_save[head.active_adapters[0]]
        head = head.original_module if head.disable_adapters else trained
    if type(head) is not nn.Linear:
        raise ValueError(
            f"the LM head is a {type(head).__name__}, expected a plain nn.Linear: to train the head as well as LoRA "
            "matrices, list it in modules_to_save, not in target_modules"
        )
    return head
