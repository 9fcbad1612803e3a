"""A simple trainer with which train.py is compared: `east check --split-invariance`.

It runs one sequence at a time through transformers' own forward pass with full logits, autograd and PyTorch's AdamW, in
one process and in float32. The loss equations are written here again, independently of `training/losses.py`.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from east import models
from east.data.indexed_dataset import IndexedDataset
from east.run import pipeline
from east.run.config import Config, Loss
from east.run.loss_table import LOSSES
from east.training import schedule


class Example(NamedTuple):
    """One example. sums, ratios: lp_policy and lp_policy - lp_reference of its response, [1]; of the chosen and the
    rejected response of a pair, [2]. length: tokens of its (chosen) response; mean_length: their mean over the step.
    z0: KTO's reference point, a scalar."""

    sums: Tensor
    ratios: Tensor
    length: int
    mean_length: float
    desirable: bool
    z0: Tensor


def _sft(e: Example, loss: Loss) -> Tensor:
    return -e.sums[0] / {"example": e.length, "sum": 1, "token": e.mean_length}[loss.normalization]


def _dpo(e: Example, loss: Loss) -> Tensor:
    return -logsigmoid(loss.beta * (e.ratios[0] - e.ratios[1]))


def _kto(e: Example, loss: Loss) -> Tensor:
    if e.desirable:
        return loss.lambda_desirable * torch.sigmoid(loss.beta * (e.z0 - e.ratios[0]))
    return loss.lambda_undesirable * torch.sigmoid(loss.beta * (e.ratios[0] - e.z0))


EQUATIONS: dict[str, Callable[[Example, Loss], Tensor]] = {"sft": _sft, "dpo": _dpo, "kto": _kto}


def start(run: Config) -> Any:
    """The policy before the first step, in float32 on the CPU."""
    torch.manual_seed(run.train.seed)  # the adapter's first matrix, as in train.py
    folder = models.resolve(*run.starting_model)
    policy = models.load(folder, dtype="float32", trust=run.model.trust_remote_code)
    return policy if run.model.lora is None else models.with_lora(policy, run.model.lora)


def train(run: Config, steps: int) -> tuple[dict[str, Tensor], list[float]]:
    """(gradient of the first step by parameter name, losses of `steps` steps). All examples of the run are trained."""
    t, device = run.train, torch.device("cuda" if torch.cuda.is_available() else "cpu")
    data = IndexedDataset(pipeline.at("dataset", run.folder_of("dataset")))
    weights = np.load(run.folder_of("weights") / "weights.npy")
    reference = np.zeros(len(data.sequences))
    if LOSSES[run.loss.name].needs_reference:
        reference = np.load(run.folder_of("reference") / "logprobs.npy")
    policy = start(run).to(device)
    trained = {name: p for name, p in policy.named_parameters() if p.requires_grad}
    decayed = [{"params": [p for p in trained.values() if p.ndim >= 2], "weight_decay": t.weight_decay}]
    others = [{"params": [p for p in trained.values() if p.ndim < 2], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW([g for g in decayed + others if g["params"]], lr=t.lr, betas=t.betas, eps=t.eps)
    gradient, losses = dict[str, Tensor](), []
    for step in range(steps):
        epoch, rows = schedule.step_rows(np.arange(len(data)), step, t.batch_size, t.seed)
        losses.append(_backward(run, policy, data, weights, reference, epoch, rows))
        if step == 0:
            gradient = {name: p.grad.cpu().clone() for name, p in trained.items() if p.grad is not None}
        torch.nn.utils.clip_grad_norm_(trained.values(), t.max_grad_norm)
        total = schedule.total_steps(len(data), t.batch_size, t.epochs)
        for group in optimizer.param_groups:
            group["lr"] = schedule.learning_rate(step, total, t.lr, t.warmup_ratio, t.schedule)
        optimizer.step()
        optimizer.zero_grad()
    return gradient, losses


def _backward(run: Config, policy: Any, data: Any, weights: Any, reference: Any, epoch: int, rows: Any) -> float:
    """Accumulate the gradient of one step, example by example; returns the loss of the step."""
    loss, kind, examples = run.loss, LOSSES[run.loss.name], data.examples[rows]
    lengths = data.sequences["completion_length"]
    z0 = mean_perplexity = torch.tensor(0.0)

    def score(row: int) -> tuple[Tensor, Tensor]:
        return _logprob(policy, data.prompt(row), data.completion(row))

    def perplexity(sums: Tensor, sequences: Any) -> Tensor:
        return (-sums.detach().sum() / int(lengths[sequences].sum())).exp()

    pairs = [[e["response"], e["rejected"]][: 1 + kind.pair] for e in examples]
    with torch.no_grad():
        if kind.mismatched:
            log_ratios = [score(row)[0] - reference[row] for row in data.kl[epoch % len(data.kl)][rows]]
            z0 = torch.stack(log_ratios).mean().clamp(min=0)
        if loss.local_weight == "lw_p":
            mean_perplexity = torch.stack([perplexity(torch.stack([score(s)[0] for s in p]), p) for p in pairs]).mean()
    total = 0.0
    for e, pair, row in zip(examples, pairs, rows, strict=True):
        scored = [score(s) for s in pair]
        sums = torch.stack([s for s, _ in scored])
        ratios = sums - torch.tensor(reference[pair], dtype=sums.dtype, device=sums.device)
        mean_length = float(lengths[examples["response"]].mean())
        example = Example(sums, ratios, int(lengths[pair[0]]), mean_length, bool(e["desirable"]), z0)
        value = EQUATIONS[loss.name](example, loss)
        if loss.local_weight == "lw_p":
            value = value * perplexity(sums, pair) / mean_perplexity
        elif loss.local_weight == "lw_w":
            value = value * math.prod((c / int(lengths[s])).exp() for (_, c), s in zip(scored, pair, strict=True))
        value = value * weights[row] / len(rows)
        value.backward()
        total += value.item()
    return total


def _logprob(policy: Any, prompt: Any, completion: Any) -> tuple[Tensor, Tensor]:
    """(log pi(completion | prompt), sum_t log(pi(y_t) / sum_v pi(v)^2) without gradient), from the full logits."""
    ids = torch.tensor(np.concatenate([prompt, completion]).astype(np.int64), device=policy.device)
    logprobs = policy(input_ids=ids[None], use_cache=False).logits[0, len(prompt) - 1 : -1].log_softmax(dim=1)
    of_targets = logprobs.gather(1, ids[len(prompt) :, None]).squeeze(1)
    return of_targets.sum(), (of_targets - (2 * logprobs).logsumexp(dim=1)).detach().sum()
