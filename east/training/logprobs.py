"""Log-probabilities of the completions of a packed batch, without a [tokens, vocabulary] tensor.

The decoder runs on the packed row. The LM head runs only on the hidden states that predict completion tokens, a chunk
of them at a time. Softmax and sums are fp32 (fp64 for an fp64 model) for models of every dtype.

Shape legend: T tokens of the packed row, S sequences, N completion tokens of all sequences, D hidden size.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from east.training import packed_attention
from east.training.chunked_logprobs import accumulation_dtype, linear_logprobs
from east.training.packing import PackedBatch, PackedSegments, Segment

# Keys of transformers configs by which a model changes its logits after the LM head, which is not computed here.
UNSUPPORTED_HEADS = (
    "final_logit_softcapping",
    "logit_scale",
    "lm_head_multiplier",
    "output_multiplier_scale",
)


class SequenceLogprobs(NamedTuple):
    """The result for each of the S sequences, in the order given to `pack`.

    sums: [S] fp32, sum over completion tokens of log pi(y_t), with gradient. lengths: [S] int64, completion tokens.
    collision: [S] fp32 without gradient, sum_t log(pi(y_t) / sum_v pi(v)^2); None without `with_collision`.
    """

    sums: Tensor
    lengths: Tensor
    collision: Tensor | None


class CompletionLogprobs(nn.Module):
    """A transformers causal LM (with or without a PEFT wrapper) as a function from PackedBatch to SequenceLogprobs.

    `self.model` is `hf_model`; the module has no further parameters. The model must have been loaded with
    attn_implementation="packed". It is moved to `device`, where its head and its attention kernel are checked once.
    chunk_tokens bounds memory: logits exist for that many tokens at a time.
    compiled=True runs each decoder layer through torch.compile; it excludes ZeRO-3, which gathers inside layers.
    Raises ValueError for a model whose logits are not a linear function of its last hidden state, and for an attention
    kernel that gives wrong results.
    """

    def __init__(
        self,
        hf_model: nn.Module,
        chunk_tokens: int = 2048,
        with_collision: bool = False,
        compiled: bool = False,
        device: torch.device | str = "cpu",
    ):
        super().__init__()
        self.model = hf_model.to(device)
        causal_lm = _causal_lm(hf_model)
        _check_model(causal_lm)
        packed_attention.check_kernel(causal_lm.config.get_text_config(), causal_lm.device, causal_lm.dtype)
        self.head = CompletionHead(causal_lm, chunk_tokens, with_collision)
        _check_logits(causal_lm, self.head)
        if compiled:
            # Saves the results of matrix products for backward and recomputes what is cheap: a fifth less memory, in
            # the same time
            torch._functorch.config.activation_memory_budget = 0.9
            for layer in causal_lm.get_decoder().layers:
                layer.compile(dynamic=True)  # in place: parameter names are unchanged, and all layers share one graph

    def forward(self, batch: PackedBatch) -> SequenceLogprobs:
        hidden_TD = (
            _causal_lm(self.model)
            .get_decoder()(
                input_ids=batch.input_ids[None],
                position_ids=batch.position_ids[None],
                use_cache=False,
                segments=batch.segments,
            )
            .last_hidden_state[0]
        )
        logprobs_N, collision_N = self.head(hidden_TD.index_select(0, batch.rows), batch.targets)
        return SequenceLogprobs(
            sums=_sum_by_sequence(logprobs_N, batch.lengths),
            lengths=batch.lengths_S,
            collision=None if collision_N is None else _sum_by_sequence(collision_N, batch.lengths),
        )


class CompletionHead(nn.Module):
    """The LM head on N hidden states: log-probability (and collision term) of the target of each, [N].

    It is a separate module, so that ZeRO-3 gathers the head's weight around its forward pass. The model is in a tuple,
    which keeps it from being registered: this module adds no parameters and no state_dict entries.
    """

    def __init__(self, causal_lm: nn.Module, chunk_tokens: int, with_collision: bool):
        super().__init__()
        self._causal_lm = (causal_lm,)
        self.chunk_tokens = chunk_tokens
        self.with_collision = with_collision

    def forward(self, hidden_ND: Tensor, targets_N: Tensor) -> tuple[Tensor, Tensor | None]:
        linear_head = _linear_head(self._causal_lm[0])
        scale = 1.0 / getattr(self._causal_lm[0].config, "logits_scaling", 1.0)  # Granite divides its logits
        return linear_logprobs(
            hidden_ND * scale if scale != 1.0 else hidden_ND,
            linear_head.weight,
            linear_head.bias,
            targets_N,
            self.chunk_tokens,
            self.with_collision,
        )


def _sum_by_sequence(values_N: Tensor, lengths: tuple[int, ...]) -> Tensor:
    # A sum per slice rather than index_add: the order of summation is fixed on every device.
    parts = values_N.split(lengths)  # type: ignore[no-untyped-call]  # torch
    return torch.stack([part.sum() for part in parts])


def _causal_lm(hf_model: Any) -> Any:
    """The transformers model, without PEFT's wrapper if there is one."""
    return hf_model.get_base_model() if hasattr(hf_model, "get_base_model") else hf_model


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


def _check_model(causal_lm: Any) -> None:
    config = causal_lm.config
    unsupported = [name for name in UNSUPPORTED_HEADS if getattr(config, name, None) not in (None, 1, 1.0)]
    if unsupported:
        raise ValueError(
            f"{type(causal_lm).__name__} changes its logits by {', '.join(unsupported)}, which is not supported: "
            "choose a model whose logits are a linear function of its last hidden state"
        )
    if config._attn_implementation not in packed_attention.NAMES:
        raise ValueError(
            f"the model's attention is {config._attn_implementation!r}, expected one for packed batches "
            f'({" or ".join(packed_attention.NAMES)}): load it with attn_implementation="{packed_attention.NAMES[0]}"'
        )
    _linear_head(causal_lm)


@torch.no_grad()
def _check_logits(causal_lm: Any, head: CompletionHead) -> None:
    """Check the head against the model's own logits on two tokens, because UNSUPPORTED_HEADS cannot name the keys of
    every architecture."""
    states: list[Tensor] = []
    hook = causal_lm.get_decoder().register_forward_hook(lambda *call: states.append(call[-1].last_hidden_state))
    ids = torch.arange(2, device=causal_lm.device)
    segments = PackedSegments((Segment(0, 2),), ids.device)
    try:
        logits = causal_lm(input_ids=ids[None], position_ids=ids[None], use_cache=False, segments=segments).logits
    finally:
        hook.remove()
    by_model = logits[0].to(accumulation_dtype(logits)).log_softmax(1).gather(1, ids[:, None])[:, 0]
    by_head, _ = head(states[0][0], ids)
    tolerance = 1e-4 if logits.dtype.itemsize >= 4 else 2e-2
    if not torch.allclose(by_head, by_model, rtol=tolerance, atol=tolerance):
        raise ValueError(
            f"{type(causal_lm).__name__} computes its logits by more than its LM head: log-probabilities of two "
            f"tokens are {by_model.tolist()}, but {by_head.tolist()} from the head alone; choose another model"
        )
