"""Attention of packed batches: every segment causally on itself and on its shared prompt, nothing else.

Two names for transformers' attn_implementation: `packed` needs no extra package (PyTorch's varlen flash
kernel for half precision on CUDA, SDPA per segment elsewhere); `packed_fa2` takes the varlen kernel of the
flash-attn package. The decoder is called with `segments=PackedSegments(...)`, which transformers hands to
every attention layer untouched. Costs the sum of squared segment lengths.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import pad, scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface

from east.packing import Segment

NAMES = ("packed", "packed_fa2")


class PackedSegments:
    """What attention must know of a packed batch.

    A plain object, so that torch.compile does not specialise on its contents; only `packed_attention`, which
    is never compiled, reads it.
    """

    def __init__(self, segments: tuple[Segment, ...], device: torch.device):
        self.segments = segments
        self.device = device
        self._varlen: tuple[Tensor, Tensor, Tensor | None, int, int] | None = None

    def varlen(self) -> tuple[Tensor, Tensor, Tensor | None, int, int]:
        """(cu_seq_q, cu_seq_k, key_rows, max_q, max_k) of the varlen kernels, made once per batch.

        key_rows [sum of key lengths] gathers keys and values, prompts repeated; None if the identity.
        """
        if self._varlen is None:
            n_q = torch.tensor([s.stop - s.start for s in self.segments])
            n_k = n_q + torch.tensor([s.prefix_stop - s.prefix_start for s in self.segments])
            rows = None
            if not torch.equal(n_q, n_k):
                ranges = [
                    torch.arange(start, stop)
                    for s in self.segments
                    for start, stop in ((s.prefix_start, s.prefix_stop), (s.start, s.stop))
                ]
                rows = torch.cat(ranges).to(self.device)
            cu_q, cu_k = (pad(n.cumsum(0), (1, 0)).to(self.device, torch.int32) for n in (n_q, n_k))
            self._varlen = (cu_q, cu_k, rows, int(n_q.max()), int(n_k.max()))
        return self._varlen


@torch.compiler.disable
def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    segments: PackedSegments | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    flash_attn: bool = False,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of one layer on one packed row.

    query: [1, heads, T, head_dim]; key, value: [1, kv_heads, T, head_dim] (kv_heads divides heads). Returns
    [1, T, heads, head_dim] and None. Raises ValueError for what is not computed here: attention dropout,
    softcaps, sinks and position biases, or a call that did not come from `east.logprobs`.
    """
    refused = [name for name in ("softcap", "s_aux", "position_bias") if kwargs.get(name) is not None]
    refused += ["attention dropout"] if dropout else []
    if refused:
        raise ValueError(
            f"attention `packed` does not compute {', '.join(refused)}, which this model uses: "
            "choose another model, or set its dropout to 0"
        )
    if segments is None:
        raise ValueError("attention `packed` runs packed batches only: to generate, load the model with sdpa")
    if query.is_cuda and query.dtype in (torch.bfloat16, torch.float16):
        return _varlen(query, key, value, segments, scaling, sliding_window, flash_attn), None
    # Its outputs and the keys of shared prompts are made again in backward: a tenth of the activations, 1 % of the time
    out = checkpoint(
        _by_segment, query, key, value, segments.segments, scaling, sliding_window,
        use_reentrant=False, preserve_rng_state=False,
    )  # fmt: skip
    return out, None


def _varlen(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    segments: PackedSegments,
    scaling: float | None,
    sliding_window: int | None,
    flash_attn: bool,
) -> Tensor:
    """One kernel call, causal from the lower right corner of each segment."""
    cu_q, cu_k, key_rows, max_q, max_k = segments.varlen()
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    if key_rows is not None:
        k, v = k[key_rows], v[key_rows]
    window = (-1 if sliding_window is None else sliding_window - 1, 0)
    if flash_attn:
        from flash_attn import flash_attn_varlen_func

        out = flash_attn_varlen_func(
            q, k, v, cu_q, cu_k, max_q, max_k, softmax_scale=scaling, causal=True, window_size=window
        )
    else:
        gqa = q.shape[1] != k.shape[1]
        out = varlen_attn(
            q, k, v, cu_q, cu_k, max_q, max_k, scale=scaling, window_size=window, enable_gqa=gqa
        )
    return out[None]  # type: ignore[call-overload]


def _by_segment(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    segments: tuple[Segment, ...],
    scaling: float | None,
    sliding_window: int | None,
) -> Tensor:
    """One SDPA call per segment, on any device and dtype."""
    gqa = query.shape[1] != key.shape[1]
    # split, not slices: the backward of a slice fills a tensor of the whole row
    lengths = [s.stop - s.start for s in segments]
    queries, keys, values = (x.split(lengths, dim=2) for x in (query, key, value))
    place = {s.start: i for i, s in enumerate(segments)}
    outputs = []
    for s, q, k, v in zip(segments, queries, keys, values, strict=True):
        shared = s.prefix_stop - s.prefix_start
        if shared:
            owner = place[s.prefix_start]  # a prompt stands at the start of the segment that stores it
            k = torch.cat((keys[owner][:, :, :shared], k), dim=2)
            v = torch.cat((values[owner][:, :, :shared], v), dim=2)
        n_q, n_k = q.shape[2], k.shape[2]
        mask = None
        if n_q < n_k or (sliding_window is not None and sliding_window < n_k):
            mask = torch.ones(n_q, n_k, dtype=torch.bool, device=q.device).tril(n_k - n_q)
            if sliding_window is not None:
                mask = mask.triu(n_k - n_q - sliding_window + 1)
        outputs.append(
            scaled_dot_product_attention(
                q, k, v, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=gqa
            )
        )
    return torch.cat(outputs, dim=2).transpose(1, 2)


AttentionInterface.register("packed", packed_attention)
AttentionInterface.register("packed_fa2", partial(packed_attention, flash_attn=True))
