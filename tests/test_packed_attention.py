"""Packed attention, compared with the definition of attention with a full [T, T] mask in float64."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from east.training import packed_attention as attention
from east.training.packed_attention import packed_attention
from east.training.packing import PackedSegments, Segment

# A prompt of 3 tokens shared by responses of 4, 5 and 1; then two separate sequences, one of a single token.
SHARED = (Segment(0, 7), Segment(7, 12, 0, 3), Segment(12, 13, 0, 3), Segment(13, 19), Segment(19, 20))
TOKENS = 20


def visible(segments: tuple[Segment, ...], window: int | None = None) -> Tensor:
    """[T, T] bool: which keys each query attends to, from the position of each token in its sequence."""
    mask = torch.zeros(TOKENS, TOKENS, dtype=torch.bool)
    for s in segments:
        sequence = [*range(s.prefix_start, s.prefix_stop), *range(s.start, s.stop)]
        for position, query in enumerate(sequence):
            if query >= s.start:
                first = 0 if window is None else max(0, position - window + 1)
                mask[query, sequence[first : position + 1]] = True
    return mask


def definition(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float, softcap: float | None = None
) -> Tensor:
    """softmax(s) v with -inf outside the mask, where s = q k^T * scaling, and with a softcap c, c * tanh(s / c); each
    key head serves heads / kv_heads query heads."""
    repeats = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(repeats, dim=1), value.repeat_interleave(repeats, dim=1)
    scores = query @ key.transpose(2, 3) * scaling
    scores = scores if softcap is None else softcap * torch.tanh(scores / softcap)
    return (scores.masked_fill(~mask, -torch.inf).softmax(-1) @ value).transpose(1, 2)


def random_heads(heads: int, kv_heads: int, dtype: torch.dtype, device: str = "cpu", head_dim: int = 8) -> list[Tensor]:
    generator = torch.Generator().manual_seed(2)
    shapes = [(1, n, TOKENS, head_dim) for n in (heads, kv_heads, kv_heads)]
    return [
        torch.randn(shape, generator=generator, dtype=torch.float64).to(device, dtype).requires_grad_()
        for shape in shapes
    ]


def run(qkv: list[Tensor], segments: tuple[Segment, ...], **kwargs) -> Tensor:
    holder = PackedSegments(segments, qkv[0].device)
    return packed_attention(torch.nn.Module(), *qkv, None, segments=holder, scaling=0.3, **kwargs)[0]


def test_visible_by_hand():
    """The first token of the second response (row 7) sees the prompt 0 1 2 and itself, not the first response (3 to
    6); with a window of 2 it sees only the last token of the prompt and itself."""
    assert visible(SHARED)[7].nonzero()[:, 0].tolist() == [0, 1, 2, 7]
    assert visible(SHARED, window=2)[7].nonzero()[:, 0].tolist() == [2, 7]


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2), (4, 1)])
@pytest.mark.parametrize("window", [None, 1, 2, 5, 100])
@pytest.mark.parametrize("softcap", [None, 0.5])
def test_equals_the_definition(heads, kv_heads, window, softcap):
    qkv = random_heads(heads, kv_heads, torch.float64)
    out = run(qkv, SHARED, sliding_window=window, softcap=softcap)
    expected = definition(*qkv, visible(SHARED, window), 0.3, softcap)
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    direction = torch.randn_like(expected)
    for a, b in zip(
        torch.autograd.grad((out * direction).sum(), qkv),
        torch.autograd.grad((expected * direction).sum(), qkv),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_bfloat16_errors_are_rounding_errors():
    """bf16 has 8 significant bits: outputs of magnitude about 1 agree with float64 to a few parts in 2^8."""
    qkv = random_heads(4, 2, torch.bfloat16)
    out = run(qkv, SHARED)
    expected = definition(*(x.double() for x in qkv), visible(SHARED), 0.3)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.double(), expected, rtol=0.02, atol=0.02)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="the varlen kernel needs a CUDA device")
@pytest.mark.parametrize(("kv_heads", "window"), [(4, None), (2, None), (2, 4)])
def test_varlen_kernel_equals_the_definition(kv_heads, window):
    qkv = random_heads(4, kv_heads, torch.bfloat16, "cuda", head_dim=64)
    out = run(qkv, SHARED, sliding_window=window)
    wide = [x.detach().double().requires_grad_() for x in qkv]
    expected = definition(*wide, visible(SHARED, window).cuda(), 0.3)
    torch.testing.assert_close(out.double(), expected, rtol=0.02, atol=0.02)
    direction = torch.randn_like(expected)
    for a, b in zip(
        torch.autograd.grad((out * direction).sum(), qkv),
        torch.autograd.grad((expected * direction).sum(), wide),
        strict=True,
    ):
        torch.testing.assert_close(a.double(), b, rtol=0.05, atol=0.05)


def test_varlen_arguments_by_hand():
    """Queries: 7, 5, 1, 6, 1. Keys, with the 3 of the shared prompt repeated: 7, 8, 4, 6, 1."""
    segments = PackedSegments(SHARED, "cpu")
    assert segments.cu_q.tolist() == [0, 7, 12, 13, 19, 20] and segments.max_q == 7
    assert segments.cu_k.tolist() == [0, 7, 15, 19, 25, 26] and segments.max_k == 8
    expected = [*range(7), 0, 1, 2, *range(7, 12), 0, 1, 2, 12, *range(13, 19), 19]
    assert segments.key_rows is not None and segments.key_rows.tolist() == expected
    assert segments.cu_q.dtype == segments.cu_k.dtype == torch.int32


def test_varlen_gathers_no_keys_without_shared_prompts():
    assert PackedSegments((Segment(0, 7), Segment(7, 9)), "cpu").key_rows is None


class LargestTensor(TorchDispatchMode):
    """Records the number of elements of the largest tensor that is created."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, Tensor):
                self.elements = max(self.elements, tensor.numel())
        return out


def test_memory_is_linear_in_the_number_of_sequences():
    """64 sequences of 32 tokens: T = 2048, T^2 = 4.2 million; q, k and v have 1 * 2 * 2048 * 8 = 32768
    elements each, and no larger tensor is created, neither in forward nor in backward."""
    segments = tuple(Segment(32 * i, 32 * i + 32) for i in range(64))
    qkv = [torch.randn(1, 2, 2048, 8, requires_grad=True) for _ in range(3)]
    with LargestTensor() as record:
        run(qkv, segments).sum().backward()
    assert record.elements == 32768


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"s_aux": torch.zeros(4)}, "s_aux"),
        ({"dropout": 0.1}, "attention dropout"),
    ],
)
def test_unsupported_attention_options_are_an_error(kwargs, message):
    with pytest.raises(ValueError, match=f"attention uses {message}; set model.packing=none"):
        run(random_heads(4, 4, torch.float32), SHARED, **kwargs)


def test_generation_with_packed_attention_is_an_error():
    with pytest.raises(ValueError, match="load the model with sdpa"):
        packed_attention(torch.nn.Module(), *random_heads(4, 4, torch.float32), None)


class Heads:
    """The keys of a transformers config that `check_kernel` reads."""

    hidden_size, num_attention_heads, num_key_value_heads, sliding_window = 64, 4, 2, 4096


def without_shared_prompts(query, key, value, segments, *rest):
    """A wrong kernel: responses do not attend to their shared prompt."""
    separate = tuple(Segment(s.start, s.stop) for s in segments.spans)
    return attention._by_segment(query, key, value, separate, *rest)


def without_gradient_of_keys(query, key, *rest):
    """A wrong kernel: the gradient of the keys is zero."""
    return attention._by_segment(query, key.detach() + 0 * key, rest[0], rest[1].spans, *rest[2:])


@pytest.mark.parametrize("kernel", [without_shared_prompts, without_gradient_of_keys])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_wrong_kernel_is_detected_before_training(monkeypatch, kernel, dtype):
    """A correct kernel passes the check, also in bfloat16; one with a wrong output or a wrong gradient does not."""
    by_segment = attention._by_segment

    def on_gpu(correct):
        def attend(module, query, key, value, mask, *, segments, sliding_window, softcap, per_segment=False):
            settings = None, sliding_window, softcap
            if per_segment:
                return by_segment(query, key, value, segments.spans, *settings), None
            if correct:
                wide = query.double(), key.double(), value.double()
                return by_segment(*wide, segments.spans, *settings).to(query.dtype), None
            return kernel(query, key, value, segments, *settings), None

        return attend

    monkeypatch.setattr(attention, "packed_attention", on_gpu(True))
    attention.check_kernel(Heads, torch.device("cpu"), dtype)
    monkeypatch.setattr(attention, "packed_attention", on_gpu(False))
    with pytest.raises(ValueError, match="differs from plain attention by .* set model.attention=packed_sdpa"):
        attention.check_kernel(Heads, torch.device("cpu"), dtype)


def test_attention_in_chunks_is_an_error():
    """Llama 4 attends in chunks of 8,192 tokens: a short pack shows no difference."""
    config = SimpleNamespace(attention_chunk_size=8192)
    with pytest.raises(ValueError, match="attends in chunks, which is not computed; set model.packing=none"):
        attention.check_kernel(config, torch.device("cpu"), torch.float32)


def test_flash_attn_that_does_not_load_is_a_one_line_error(monkeypatch):
    def broken(*_, **__):
        raise ImportError("undefined symbol")

    monkeypatch.setattr(attention, "packed_attention", broken)
    with pytest.raises(ValueError, match=r"flash-attn is installed but does not load \(undefined symbol\)"):
        attention.check_kernel(Heads, torch.device("cpu"), torch.bfloat16)
