"""The losses: equations on log-probabilities, one value per example, no reduction.

Notation. lp(y|x) = sum over completion tokens of log pi(y_t | x, y_<t); T = number of completion tokens;
r = lp_policy - lp_reference. The loss of a step is (1/B) sum_i w_i L_i over the B examples of one optimizer step,
however they are distributed over ranks and micro-batches. Quantities of the whole step (mean length, z0, mean
perplexity) are therefore arguments, which the training loop computes over all ranks.

Tensors are floating point (fp32 in training; the dtype of the inputs is kept) of shape [B] unless said otherwise.

`sft`, `dpo` and `kto` are the equations. `sft_examples`, `dpo_examples` and `kto_examples`, named by the rows of
`run/loss_table.py`, apply them to the examples of a micro-batch.
"""

from collections.abc import Callable
from typing import NamedTuple, get_args

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from east.run.config import Loss
from east.run.loss_table import Normalization


class LossInputs(NamedTuple):
    """The arguments of a loss for the b examples of a micro-batch. Tensors are [b]; where examples are pairs, the first
    three are of the chosen response.

    logprobs: lp under the policy, with gradient. ref_logprobs: lp under the reference (0 where the loss needs none).
    lengths: int64, T, end token included. rejected_*: the same three of the rejected response; None where examples are
    not pairs. desirable: bool, whether the response is right. mean_length: mean T over the step (over the micro-batch
    with normalization: microbatch). z0: KTO's reference point, a scalar without gradient.
    """

    logprobs: Tensor
    ref_logprobs: Tensor
    lengths: Tensor
    rejected_logprobs: Tensor | None
    rejected_ref_logprobs: Tensor | None
    rejected_lengths: Tensor | None
    desirable: Tensor
    mean_length: float
    z0: float | Tensor


# The function that a row of LOSSES names. Arguments: the inputs, and the loss section of the run file. Returns the
# values [b], and the sums over the micro-batch that the row's `logs` names.
LossFunction = Callable[[LossInputs, Loss], tuple[Tensor, dict[str, Tensor]]]


def sft(
    logprobs: Tensor,
    lengths: Tensor,
    normalization: Normalization = "example",
    mean_length: float | Tensor = 0.0,
) -> Tensor:
    """Negative log-likelihood of each completion, [B].

    logprobs: [B] lp(y_i|x_i); lengths: [B] T_i, end token included.
    `example`: -lp_i / T_i. `sum`: -lp_i. `token`: -lp_i / mean_length, where mean_length is the
    mean of T_i over the examples of the step, so that (1/B) sum_i L_i = -(sum_i lp_i) / (sum_i T_i). `microbatch`: the
    same with the mean over the micro-batch, as the authors' release.
    Raises ValueError for any other name.
    """
    if normalization == "example":
        return -logprobs / lengths
    if normalization == "sum":
        return -logprobs
    if normalization in ("token", "microbatch"):
        assert mean_length > 0, f"{normalization} normalization needs a mean completion length"
        return -logprobs / mean_length
    raise ValueError(f"unknown SFT normalization {normalization!r}: choose one of {', '.join(get_args(Normalization))}")


def dpo(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, beta: float) -> Tensor:
    """Direct preference optimisation (Rafailov et al. 2023, Eq. 7), [B].

    L_i = -log sigmoid(beta * (r_chosen - r_rejected)); the four tensors are lp, [B].
    """
    return -logsigmoid(beta * ((chosen - ref_chosen) - (rejected - ref_rejected)))


def kto(
    logprobs: Tensor,
    ref_logprobs: Tensor,
    desirable: Tensor,
    z0: float | Tensor,
    beta: float,
    lambda_d: float = 1.0,
    lambda_u: float = 1.0,
) -> Tensor:
    """Kahneman-Tversky optimisation (Ethayarajh et al. 2024, Eq. 8), [B].

    desirable: [B] bool; z0: scalar from `kto_reference_point`, without gradient.
    L_i = lambda_d * (1 - sigmoid(beta * (r - z0))) where desirable,
    else lambda_u * (1 - sigmoid(beta * (z0 - r))). 1 - sigmoid(x) is computed as sigmoid(-x), which loses no digits
    for large x.
    """
    if isinstance(z0, Tensor):
        z0 = z0.detach()
    advantage = beta * (logprobs - ref_logprobs - z0)
    return torch.where(desirable, lambda_d * torch.sigmoid(-advantage), lambda_u * torch.sigmoid(advantage))


def kto_reference_point(log_ratio_sum: Tensor, count: Tensor | int) -> Tensor:
    """z0 = max(0, mean of r over the step's mismatched pairs), scalar without gradient.

    log_ratio_sum: sum of lp_policy(y_j|x_i) - lp_reference(y_j|x_i) over all ranks and micro-batches of the step;
    count: the number of pairs (> 0). The mean is clamped once, after the reduction.
    """
    return (log_ratio_sum.detach() / count).clamp(min=0)


def rewards(logprobs: Tensor, ref_logprobs: Tensor, beta: float) -> Tensor:
    """Implicit rewards beta * r of DPO and KTO, [B], without gradient; for metrics.jsonl."""
    return (beta * (logprobs - ref_logprobs)).detach()


def perplexity(logprobs: Tensor, lengths: Tensor) -> Tensor:
    """exp(-lp / T), the exponential of the mean negative log-likelihood per token (paper Eq. 8), [B], no gradient."""
    return torch.exp(-logprobs.detach() / lengths)


def local_weight_p(logprobs: Tensor, lengths: Tensor, mean_perplexity: float | Tensor) -> Tensor:
    """LW(P), paper Eq. 8-9: perplexity under the current policy, divided by its mean over the step, [B]."""
    return perplexity(logprobs, lengths) / mean_perplexity


def local_weight_w(collision: Tensor, lengths: Tensor) -> Tensor:
    """LW(W), paper Eq. 10 (the weight of WPO, Zhou et al. 2024): exp(collision / T), [B], without gradient.

    collision: [B] sum_t log(pi(y_t) / sum_v pi(v)^2), see `training.logprobs`. The weight of a DPO pair is the product
    of the weights of both responses.
    """
    return torch.exp(collision.detach() / lengths)


def sft_examples(x: LossInputs, loss: Loss) -> tuple[Tensor, dict[str, Tensor]]:
    """`sft` of a micro-batch; for the log, the sum of -lp / T."""
    values = sft(x.logprobs, x.lengths, loss.normalization, x.mean_length)
    return values, {"nll": (-x.logprobs.detach() / x.lengths).sum()}


def dpo_examples(x: LossInputs, loss: Loss) -> tuple[Tensor, dict[str, Tensor]]:
    """`dpo` of a micro-batch; for the log, the sums of `pair_logs`."""
    assert x.rejected_logprobs is not None and x.rejected_ref_logprobs is not None
    values = dpo(x.logprobs, x.rejected_logprobs, x.ref_logprobs, x.rejected_ref_logprobs, loss.beta)
    return values, pair_logs(x, loss.beta)


def kto_examples(x: LossInputs, loss: Loss) -> tuple[Tensor, dict[str, Tensor]]:
    """`kto` of a micro-batch; for the log, the summed rewards of desirable and of undesirable examples, and the number
    of desirable ones."""
    lambdas = loss.lambda_desirable, loss.lambda_undesirable
    values = kto(x.logprobs, x.ref_logprobs, x.desirable, x.z0, loss.beta, *lambdas)
    reward = rewards(x.logprobs, x.ref_logprobs, loss.beta)
    return values, {
        "reward_desirable": (reward * x.desirable).sum(),
        "reward_undesirable": (reward * ~x.desirable).sum(),
        "desirable": x.desirable.sum(),
    }


def pair_logs(x: LossInputs, beta: float) -> dict[str, Tensor]:
    """Sums over the pairs of a micro-batch, for the log: implicit rewards of the chosen and of the rejected responses,
    and the number of pairs whose chosen response has the higher reward."""
    assert x.rejected_logprobs is not None and x.rejected_ref_logprobs is not None
    chosen = rewards(x.logprobs, x.ref_logprobs, beta)
    rejected = rewards(x.rejected_logprobs, x.rejected_ref_logprobs, beta)
    return {
        "reward_chosen": chosen.sum(),
        "reward_rejected": rejected.sum(),
        "accuracy": (chosen > rejected).sum(),
    }
