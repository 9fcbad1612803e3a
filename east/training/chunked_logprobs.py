"""log softmax of a linear map at its targets, without a [tokens, vocabulary] tensor.

Logits exist for one chunk of tokens at a time, and are made again in backward. fp32 from the logits on (fp64
for fp64 inputs).
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
) -> tuple[Tensor, Tensor | None]:
    """log softmax(hidden W^T + b) at the targets, and log(pi(y) / sum_v pi(v)^2) without gradient if
    asked for.

    Both [N], fp32 (fp64 for fp64 inputs). Never holds more than chunk_tokens rows of logits.
    """
    arguments = hidden_ND, weight_VD, bias_V, targets_N, chunk_tokens, with_collision, torch.is_grad_enabled()
    return _LinearLogprobs.apply(*arguments)


class _LinearLogprobs(torch.autograd.Function):
    """log softmax(hidden W^T + b)[target] per row, chunk by chunk.

    With p = softmax(z): d lp / d z = onehot(y) - p =: -D. The gradient g of a row is known only in backward,
    but it is one number per row: d lp / d hidden = -D W is computed in forward, while D exists, and scaled in
    backward. d loss / d W = -sum_n g_n D_n^T hidden_n needs D again if the head is trained: the last chunk's
    D is kept (it takes no more than the chunk's logits did), the others are recomputed.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        hidden_ND: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        targets_N: Tensor,
        chunk_tokens: int,
        with_collision: bool,
        grad_enabled: bool,
    ) -> tuple[Tensor, Tensor | None]:
        needs_hidden, *needs_head = (grad_enabled and needed for needed in ctx.needs_input_grad[:3])
        logprobs_N = hidden_ND.new_empty(len(targets_N), dtype=accumulation_dtype(hidden_ND))
        collision_N = torch.empty_like(logprobs_N) if with_collision else None
        grad_hidden_ND = torch.empty_like(hidden_ND) if needs_hidden else None
        d = None
        for rows in _chunks(len(targets_N), chunk_tokens):
            d = None  # frees the last chunk before the next is made
            probs, logprobs_N[rows] = _softmax(hidden_ND[rows], weight_VD, bias_V, targets_N[rows])
            if collision_N is not None:
                collision_N[rows] = logprobs_N[rows] - 2 * torch.linalg.vector_norm(probs, dim=1).log()
            if needs_hidden or any(needs_head):
                d = _minus_onehot(probs, targets_N[rows]).to(hidden_ND.dtype)
                if grad_hidden_ND is not None:
                    grad_hidden_ND[rows] = d @ weight_VD
            del probs
        kept = d if any(needs_head) else None
        ctx.save_for_backward(hidden_ND, weight_VD, bias_V, targets_N, grad_hidden_ND, kept)
        ctx.chunk_tokens = chunk_tokens
        if collision_N is not None:
            ctx.mark_non_differentiable(collision_N)
        return logprobs_N, collision_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_N: Tensor, _grad_collision: Tensor | None) -> tuple:  # type: ignore[override]
        hidden_ND, weight_VD, bias_V, targets_N, grad_hidden_ND, kept = ctx.saved_tensors
        _, needs_weight, needs_bias, *_ = ctx.needs_input_grad
        scale_N1 = -grad_N[:, None]
        grad_hidden = None if grad_hidden_ND is None else (grad_hidden_ND * scale_N1).to(hidden_ND.dtype)
        grad_weight = torch.zeros_like(weight_VD, dtype=grad_N.dtype) if needs_weight else None
        grad_bias = torch.zeros_like(bias_V, dtype=grad_N.dtype) if needs_bias else None
        if needs_weight or needs_bias:
            for rows in reversed(_chunks(len(targets_N), ctx.chunk_tokens)):
                d = kept
                if d is None:
                    probs, _ = _softmax(hidden_ND[rows], weight_VD, bias_V, targets_N[rows])
                    d = _minus_onehot(probs, targets_N[rows]).to(hidden_ND.dtype)
                if grad_weight is not None:
                    _add_product(grad_weight, d.T, (hidden_ND[rows] * scale_N1[rows]).to(d.dtype))
                if grad_bias is not None:
                    grad_bias += scale_N1[rows, 0] @ d.to(grad_N.dtype)
                kept = d = None
        return (
            grad_hidden,
            None if grad_weight is None else grad_weight.to(weight_VD.dtype),
            None if grad_bias is None else grad_bias.to(bias_V.dtype),
            *(None,) * 4,
        )


def _chunks(n: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def accumulation_dtype(x: Tensor) -> torch.dtype:
    """fp32, or wider where x is."""
    return torch.promote_types(x.dtype, torch.float32)


def _softmax(hidden_CD: Tensor, weight_VD: Tensor, bias_V: Tensor | None, targets_C: Tensor) -> tuple[Tensor, Tensor]:
    """(softmax [C, V], log softmax at the target [C]), fp32; in place: one [C, V] buffer is enough."""
    logits = linear(hidden_CD, weight_VD, bias_V).to(accumulation_dtype(hidden_CD))
    logits -= logits.amax(dim=1, keepdim=True)
    at_target = logits.gather(1, targets_C[:, None])
    probs = logits.exp_()
    total = probs.sum(dim=1, keepdim=True)
    return probs.div_(total), (at_target - total.log())[:, 0]


def _minus_onehot(probs_CV: Tensor, targets_C: Tensor) -> Tensor:
    """Overwrites its input. Each row has one target: no two additions meet."""
    return probs_CV.scatter_add_(1, targets_C[:, None], probs_CV.new_full((len(targets_C), 1), -1.0))


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left @ right, in the dtype of total."""
    if left.dtype == total.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right
