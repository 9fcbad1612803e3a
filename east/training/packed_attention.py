"""Attention of packed batches: each segment attends causally to itself and to its shared prompt, and to nothing else.

Two names for transformers' attn_implementation. `packed` is the fastest available kernel: for half precision on CUDA
the varlen kernel of the flash-attn package if it is installed, otherwise PyTorch's; for everything else SDPA per
segment. `packed_sdpa` is SDPA per segment everywhere; it is slow, and `check_kernel` compares the other kernels with
it. The decoder is called with `segments=PackedSegments(...)`, which transformers passes to every attention layer. The
cost is the sum of squared segment lengths.
"""

import itertools
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface

from east.training.packing import PackedSegments, Segment

NAMES = ("packed", "packed_sdpa")
UNPACKED = "set model.packing=none, which gives each sequence a row of its own"
FLASH_ATTN = find_spec("flash_attn") is not None
SMALL_PACK = (Segment(0, 70), Segment(70, 100, 0, 40), Segment(100, 105))  # a prompt of 40 shared by two responses


@torch.compiler.disable  # type: ignore[untyped-decorator]  # torch
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
    softcap: float | None = None,
    per_segment: bool = False,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of one layer on one packed row, with the signature of transformers' attention functions.

    query: [1, heads, T, head_dim]; key, value: [1, kv_heads, T, head_dim] (kv_heads divides heads). Returns
    [1, T, heads, head_dim] and None. softcap: scores s become softcap * tanh(s / softcap) before the softmax.
    Raises ValueError for what is not supported: attention dropout, sinks, position biases and masks, and a call without
    `segments`, which only `training.logprobs` passes.
    """
    unsupported = [name for name in ("s_aux", "position_bias") if kwargs.get(name) is not None]
    unsupported += ["attention dropout"] if dropout else []
    unsupported += ["a mask of its own"] if attention_mask is not None else []
    if unsupported:
        raise ValueError(f"packed sequences: this model's attention uses {', '.join(unsupported)}; {UNPACKED}")
    if segments is None:
        raise ValueError(
            f"packed sequences: the model called its attention without segments: to train it, {UNPACKED}; to generate, "
            "load the model with sdpa"
        )
    half = query.is_cuda and query.dtype in (torch.bfloat16, torch.float16)
    if half and not per_segment and (softcap is None or FLASH_ATTN):  # PyTorch's kernel has no softcap
        return _varlen(query, key, value, segments, scaling, sliding_window, softcap), None
    # The outputs and the keys of shared prompts are recomputed in backward: this saves a tenth of the memory of
    # activations and costs 1 % of the time
    out = checkpoint(
        _by_segment, query, key, value, segments.spans, scaling, sliding_window, softcap,
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
    softcap: float | None,
) -> Tensor:
    """One kernel call; the causal mask of each segment is aligned to its last query and last key."""
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    if segments.key_rows is not None:
        k, v = k[segments.key_rows], v[segments.key_rows]
    lengths = segments.cu_q, segments.cu_k, segments.max_q, segments.max_k
    window = (-1 if sliding_window is None else sliding_window - 1, 0)
    if FLASH_ATTN:
        from flash_attn import flash_attn_varlen_func

        settings = {"softmax_scale": scaling, "causal": True, "window_size": window, "softcap": softcap or 0.0}
        out = flash_attn_varlen_func(q, k, v, *lengths, **settings)
    else:
        gqa = q.shape[1] != k.shape[1]
        out = varlen_attn(q, k, v, *lengths, scale=scaling, window_size=window, enable_gqa=gqa)
    output: Tensor = out[None]
    return output


def _by_segment(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    segments: tuple[Segment, ...],
    scaling: float | None,
    sliding_window: int | None,
    softcap: float | None,
) -> Tensor:
    """One SDPA call per segment, on any device and dtype; with a softcap, which SDPA does not have, its formula."""
    gqa = query.shape[1] != key.shape[1]
    # split, not slices: the backward of a slice fills a tensor of the whole row
    lengths = [s.stop - s.start for s in segments]
    queries, keys, values = (x.split(lengths, dim=2) for x in (query, key, value))  # type: ignore[no-untyped-call]
    segment_at = {s.start: i for i, s in enumerate(segments)}
    outputs = []
    for s, q, k, v in zip(segments, queries, keys, values, strict=True):
        shared = s.prefix_stop - s.prefix_start
        if shared:
            first = segment_at[s.prefix_start]  # the segment that begins with the prompt
            k = torch.cat((keys[first][:, :, :shared], k), dim=2)
            v = torch.cat((values[first][:, :, :shared], v), dim=2)
        n_q, n_k = q.shape[2], k.shape[2]
        mask = None
        if n_q < n_k or softcap is not None or (sliding_window is not None and sliding_window < n_k):
            mask = torch.ones(n_q, n_k, dtype=torch.bool, device=q.device).tril(n_k - n_q)
            if sliding_window is not None:
                mask = mask.triu(n_k - n_q - sliding_window + 1)
        if softcap is None:
            causal = mask is None
            outputs.append(
                scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, scale=scaling, enable_gqa=gqa)
            )
        else:
            outputs.append(_capped(q, k, v, mask, scaling or q.shape[-1] ** -0.5, softcap))
    return torch.cat(outputs, dim=2).transpose(1, 2)


def _capped(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, softcap: float) -> Tensor:
    """softmax(softcap * tanh(q k^T scale / softcap)) v, with the softmax in fp32 (Gemma 2, arXiv 2408.00118)."""
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    scores = softcap * torch.tanh(q @ k.transpose(2, 3) * (scale / softcap))
    accumulation = torch.promote_types(q.dtype, torch.float32)
    assert mask is not None
    probs = scores.masked_fill(~mask, -torch.inf).softmax(dim=-1, dtype=accumulation)
    return probs.to(q.dtype) @ v


def check_kernel(config: Any, device: torch.device, dtype: torch.dtype) -> None:
    """Compare the kernel that `packed` uses on this device with SDPA per segment: outputs and gradients of one small
    pack of random numbers, with the model's number and size of heads.

    config: transformers' config of the model. Raises ValueError when the two differ by more than rounding explains,
    when the flash-attn package is installed but cannot be imported, and for attention in chunks, which no kernel here
    computes (a short pack, as `model_check` scores, would not show it).
    """
    if getattr(config, "attention_chunk_size", None):
        raise ValueError(f"packed sequences: this model attends in chunks, which is not computed; {UNPACKED}")
    windows = (None, 7) if getattr(config, "sliding_window", None) else (None,)
    softcap = getattr(config, "attn_logit_softcapping", None)
    for heads, window in itertools.product(_heads(config), windows):
        _compare(heads, window, softcap, device, dtype)


def _heads(config: Any) -> list[tuple[int, int, int]]:
    """(heads of queries, heads of keys, size of a head) of each kind of layer; none without attention."""
    kinds = set()
    for layer in getattr(config, "per_layer_config", None) or [config]:
        if queries := getattr(layer, "num_attention_heads", None):
            size = getattr(layer, "head_dim", None) or layer.hidden_size // queries
            kinds.add((queries, getattr(layer, "num_key_value_heads", None) or queries, size))
    return sorted(kinds)


def _compare(
    heads: tuple[int, int, int], window: int | None, softcap: float | None, device: torch.device, dtype: torch.dtype
) -> None:
    queries, keys, size = heads
    generator = torch.Generator().manual_seed(0)
    shapes = [(1, count, SMALL_PACK[-1].stop, size) for count in (queries, keys, keys)]
    qkv = [torch.randn(shape, generator=generator).to(device, dtype) for shape in shapes]
    tolerance = 1e-4 if dtype.itemsize >= 4 else 3e-2
    try:
        by_kernel = _with_gradients(qkv, sliding_window=window, softcap=softcap)
    except ImportError as error:
        raise ValueError(f"flash-attn is installed but does not load ({error}); fix or uninstall it") from None
    by_sdpa = _with_gradients(qkv, sliding_window=window, softcap=softcap, per_segment=True)
    for value, expected in zip(by_kernel, by_sdpa, strict=True):
        difference = float((value - expected).norm() / expected.norm())
        if not difference <= tolerance:
            raise ValueError(
                f"the attention kernel for {dtype} on {device} differs from plain attention by {difference:.1e} "
                f"(relative), expected at most {tolerance:g}; set model.attention=packed_sdpa, or use other "
                "versions of PyTorch and flash-attn"
            )


@torch.enable_grad()
def _with_gradients(qkv: list[Tensor], **kwargs: Any) -> list[Tensor]:
    """Attention's output on SMALL_PACK, and the gradients of the sum of its sines: with sines the upstream gradient
    differs from element to element."""
    inputs = [x.detach().requires_grad_() for x in qkv]
    segments = PackedSegments(SMALL_PACK, qkv[0].device)
    out, _ = packed_attention(nn.Module(), *inputs, None, segments=segments, **kwargs)
    return [x.detach().float() for x in (out, *torch.autograd.grad(out.float().sin().sum(), inputs))]


AttentionInterface.register("packed", packed_attention)
AttentionInterface.register("packed_sdpa", partial(packed_attention, per_segment=True))
