"""Log-probabilities of target tokens from hidden states and an LM head, without a [tokens, vocabulary] tensor.

Logits exist for one chunk of tokens at a time and are recomputed in the backward pass. All arithmetic from the logits
on is fp32 (fp64 for fp64 inputs).

Shape legend: N tokens, C tokens of one chunk, D hidden size, V vocabulary.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear


def linear_logprobs(
    hidden_ND: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor | None,
    targets_N: Tensor,
    chunk_tokens: int,
    with_collision: bool = False,
    scale: float = 1.0,
    softcap: float | None = None,
) -> tuple[Tensor, Tensor | None]:
    """(log pi(y), log(pi(y) / sum_v pi(v)^2)) of the target y of each token, where pi = softmax(z).

    z = scale * (hidden W^T + b), and with a softcap c, z = c * tanh(scale * (hidden W^T + b) / c).

    targets_N: int64. Both results are [N], fp32 (fp64 for fp64 inputs); the second has no gradient and is None unless
    with_collision is set. At most chunk_tokens rows of logits are in memory at a time.
    """
    settings = chunk_tokens, with_collision, scale, softcap, torch.is_grad_enabled()
    arguments = hidden_ND, weight_VD, bias_V, targets_N, *settings
    outputs: tuple[Tensor, Tensor | None] = _LinearLogprobs.apply(*arguments)  # type: ignore[no-untyped-call]  # torch
    return outputs


class _LinearLogprobs(torch.autograd.Function):
    """log softmax(hidden W^T + b)[target] per row, chunk by chunk.

    With u = hidden W^T + b, z(u) by scale and softcap, and p = softmax(z): d lp / d u = (onehot(y) - p) dz/du =: -D.
    The upstream gradient g of a row is known only in backward, but it is one number per row. So d lp / d hidden = -D W
    is computed in forward, where D is at hand, and multiplied by g in backward. If the head is trained, d loss / d W =
    -sum_n g_n D_n^T hidden_n needs D again: D of the last chunk is saved (it is as large as the chunk's logits), D of
    the others is recomputed.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        targets_N: Tensor,
        chunk_tokens: int,
        with_collision: bool,
        scale: float,
        softcap: float | None,
        grad_enabled: bool,
    ) -> tuple[Tensor, Tensor | None]:
        needs_hidden, *needs_head = (grad_enabled and needed for needed in ctx.needs_input_grad[:3])
        logprobs_N = hidden_ND.new_empty(len(targets_N), dtype=accumulation_dtype(hidden_ND))
        collision_N = torch.empty_like(logprobs_N) if with_collision else None
        grad_hidden_ND = torch.empty_like(hidden_ND) if needs_hidden else None
        d = None
        for rows in _chunks(len(targets_N), chunk_tokens):
            d = None  # frees the memory of the last chunk before the next one is computed
            logits = linear(hidden_ND[rows], weight_VD, bias_V).to(logprobs_N.dtype)
            slope = _scale_and_cap(logits, scale, softcap)
            probs, logprobs_N[rows] = _softmax(logits, targets_N[rows])
            if collision_N is not None:
                collision_N[rows] = logprobs_N[rows] - 2 * torch.linalg.vector_norm(probs, dim=1).log()
            if needs_hidden or any(needs_head):
                d = _minus_onehot(probs, targets_N[rows]).mul_(slope).to(hidden_ND.dtype)
                if grad_hidden_ND is not None:
                    grad_hidden_ND[rows] = d @ weight_VD
            del logits, probs, slope
        last_d = d if any(needs_head) else None
        ctx.save_for_backward(hidden_ND, weight_VD, bias_V, targets_N, grad_hidden_ND, last_d)
        ctx.chunk_tokens, ctx.scale, ctx.softcap = chunk_tokens, scale, softcap
        if collision_N is not None:
            ctx.mark_non_differentiable(collision_N)
        return logprobs_N, collision_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_N: Tensor, _grad_collision: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden_ND, weight_VD, bias_V, targets_N, grad_hidden_ND, last_d = ctx.saved_tensors
        _, needs_weight, needs_bias, *_ = ctx.needs_input_grad
        scale_N1 = -grad_N[:, None]
        grad_hidden = None if grad_hidden_ND is None else (grad_hidden_ND * scale_N1).to(hidden_ND.dtype)
        grad_weight = torch.zeros_like(weight_VD, dtype=grad_N.dtype) if needs_weight else None
        grad_bias = torch.zeros_like(bias_V, dtype=grad_N.dtype) if needs_bias else None
        if needs_weight or needs_bias:
            for rows in reversed(_chunks(len(targets_N), ctx.chunk_tokens)):
                d = last_d  # of the last chunk, which comes first here
                if d is None:
                    logits = linear(hidden_ND[rows], weight_VD, bias_V).to(grad_N.dtype)
                    slope = _scale_and_cap(logits, ctx.scale, ctx.softcap)
                    probs, _ = _softmax(logits, targets_N[rows])
                    d = _minus_onehot(probs, targets_N[rows]).mul_(slope).to(hidden_ND.dtype)
                if grad_weight is not None:
                    _add_product(grad_weight, d.T, (hidden_ND[rows] * scale_N1[rows]).to(d.dtype))
                if grad_bias is not None:
                    grad_bias += scale_N1[rows, 0] @ d.to(grad_N.dtype)
                last_d = d = None
        return (
            grad_hidden,
            None if grad_weight is None else grad_weight.to(weight_VD.dtype),
            None if grad_bias is None else grad_bias.to(bias_V.dtype),
            *(None,) * 6,
        )


def _chunks(n: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def accumulation_dtype(x: Tensor) -> torch.dtype:
    """The dtype for sums over x: float32, or float64 if x is float64."""
    return torch.promote_types(x.dtype, torch.float32)


def _scale_and_cap(logits_CV: Tensor, scale: float, softcap: float | None) -> Tensor | float:
    """u to z = softcap * tanh(scale * u / softcap), or scale * u without a softcap, in place; returns dz/du."""
    if scale != 1.0:
        logits_CV *= scale
    if softcap is None:
        return scale
    tanh_CV = logits_CV.div_(softcap).tanh_()
    slope_CV = scale * (1 - tanh_CV * tanh_CV)
    logits_CV *= softcap
    return slope_CV


def _softmax(logits_CV: Tensor, targets_C: Tensor) -> tuple[Tensor, Tensor]:
    """(softmax [C, V], log softmax at the target [C]); computed in place, in the buffer of the logits."""
    logits_CV -= logits_CV.amax(dim=1, keepdim=True)
    at_target = logits_CV.gather(1, targets_C[:, None])
    probs = logits_CV.exp_()
    total = probs.sum(dim=1, keepdim=True)
    return probs.div_(total), (at_target - total.log())[:, 0]


def _minus_onehot(probs_CV: Tensor, targets_C: Tensor) -> Tensor:
    """probs - onehot(targets), [C, V], in place. Each row has one target, so the result of scatter_add_ does not
    depend on its order of additions."""
    return probs_CV.scatter_add_(1, targets_C[:, None], probs_CV.new_full((len(targets_C), 1), -1.0))


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left @ right, in the dtype of total."""
    if left.dtype == total.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right
