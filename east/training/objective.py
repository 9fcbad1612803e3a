"""From rows of the dataset to losses: reads and packs the examples of a step, and applies the loss to their
log-probabilities.

Losses need a few quantities of the whole optimizer step (mean length, z0, mean perplexity). They are computed first and
are equal on all ranks, so that the loss does not depend on how the step is split over ranks and micro-batches.
"""

import contextlib
import dataclasses
import pkgutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from east.data.training_data import Data, Rows
from east.run.config import Loss, Train
from east.run.loss_table import LOSSES
from east.training import losses, schedule
from east.training.logprobs import SequenceLogprobs
from east.training.packing import MAKERS, Batch, on_device

# Micro-batches whose mismatched pairs share a forward pass: it has no gradient, and so needs less memory than the
# forward and backward pass of one micro-batch
PASS = 4
Reduce = Callable[[Tensor], Tensor]  # element-wise sums over ranks


@dataclasses.dataclass(frozen=True)
class Scored:
    """Packed sequences and the reference log-probability of each."""

    batch: Batch
    reference: Tensor  # [sequences] float32; zero where the loss needs none


@dataclasses.dataclass(frozen=True)
class MicroBatch:
    """b examples of one rank, on the device. Pairs are packed as 2b sequences: b chosen, then b rejected responses."""

    batch: Batch
    reference: Tensor  # [sequences] float32; zero where the loss needs none
    weights: Tensor  # [b] float32; zero unless `real`
    desirable: Tensor  # [b] bool
    real: bool  # False for the placeholder of a rank that has no examples left; it counts nowhere


@dataclasses.dataclass(frozen=True)
class Step:
    """One optimizer step, with the micro-batches of this rank."""

    number: int
    epoch: int
    rows: Rows  # of the B examples of the step, over all ranks
    mean_length: float  # of the responses of these rows, in tokens
    micro_batches: list[MicroBatch]  # of this rank; all ranks have the same number
    mismatched: list[Scored]  # KTO: per example of micro_batches its prompt with another question's response, in order


@dataclasses.dataclass(frozen=True)
class StepNumbers:
    """The quantities of the whole optimizer step that losses need."""

    mean_length: float  # of the responses, in tokens
    z0: float | Tensor = 0.0  # KTO
    mean_perplexity: float | Tensor = 1.0  # LW(P)


def steps(
    data: Data,
    loss: Loss,
    train: Train,
    packing: str,
    first: int,
    last: int,
    *,
    rank: int,
    ranks: int,
    device: torch.device,
) -> Iterator[Step]:
    """Steps [first, last) of the run. A thread reads and packs the next step while the caller computes this one.

    packing: `model.packing`.
    """
    read = partial(load, data, loss, train, packing, rank=rank, ranks=ranks, device=device)
    numbers = iter(range(first, last))
    with ThreadPoolExecutor(1) as pool:
        waiting = [pool.submit(read, number) for number in islice(numbers, 1)]
        while waiting:
            step = waiting.pop().result()
            waiting += [pool.submit(read, number) for number in islice(numbers, 1)]
            yield step


def load(
    data: Data, loss: Loss, train: Train, packing: str, number: int, rank: int, ranks: int, device: torch.device
) -> Step:
    """Read and pack this rank's share of optimizer step `number`."""
    epoch, rows = schedule.step_rows(data.kept, number, train.batch_size, train.seed)
    examples, lengths = data.tokens.examples[rows], data.tokens.sequences["completion_length"]
    kind = LOSSES[loss.name]
    plan = data.tokens.kl[epoch % len(data.tokens.kl)] if kind.mismatched and data.tokens.kl is not None else None
    mean_length = float(lengths[examples["response"]].mean())
    sizes, padded = example_sizes(data, rows, kind.pair, packing), packing == "none"
    if train.micro_tokens is not None:
        shares = schedule.share_tokens(rows, sizes, rank, ranks, train.micro_tokens, padded)
    else:
        if padded and not loss.depends_on_split:  # those of a micro-batch are padded to its longest
            rows = rows[np.argsort(-sizes, kind="stable")]
        shares = schedule.share(rows, rank, ranks, train.micro_batch)
    filled = [part if len(part) else rows[:1] for part in shares]  # an empty micro-batch gets a placeholder
    micro_batches = [
        collate(data, f, loss, packing, len(part) > 0, device) for f, part in zip(filled, shares, strict=True)
    ]
    mismatched = []
    if plan is not None:
        passes = [np.concatenate(filled[i : i + PASS]) for i in range(0, len(filled), PASS)]
        mismatched = [_scored(data, plan[part], packing, device) for part in passes]
    return Step(number, epoch, rows, mean_length, micro_batches, mismatched)


def example_sizes(data: Data, rows: Rows, pair: bool, packing: str) -> Rows:
    """Tokens of each example `rows` in a micro-batch: its prompt once and its responses; or, with a row for each
    sequence, those of its one or two rows, both as long as the longer one."""
    examples, sequences = data.tokens.examples[rows], data.tokens.sequences
    prompts = sequences["prompt_length"][examples["response"]].astype(np.int64)
    first = sequences["completion_length"][examples["response"]].astype(np.int64)
    second = sequences["completion_length"][examples["rejected"]].astype(np.int64) if pair else np.zeros_like(first)
    sizes: Rows = prompts + first + second
    if packing == "none":
        sizes = (prompts + np.maximum(first, second)) * (2 if pair else 1)
    return sizes


def collate(data: Data, rows: Rows, loss: Loss, packing: str, real: bool, device: torch.device) -> MicroBatch:
    """Pack the examples `rows`. A rank without work packs a placeholder of weight zero (real=False), so that all ranks
    call the same collectives."""
    examples = data.tokens.examples[rows]
    sequences = examples["response"]
    if LOSSES[loss.name].pair:
        sequences = np.concatenate([sequences, examples["rejected"]])
    weights = data.weights[rows] if real else np.zeros(len(rows))
    if averages_micro_batch(loss):
        weights = np.full_like(weights, weights.mean())
    scored = _scored(data, sequences, packing, device)
    return MicroBatch(
        batch=scored.batch,
        reference=scored.reference,
        weights=on_device(weights.astype(np.float32), device),
        desirable=on_device(examples["desirable"], device),
        real=real,
    )


def step_numbers(loss: Loss, model: Any, step: Step, reduce: Reduce) -> list[StepNumbers]:
    """The quantities of the step, one StepNumbers per micro-batch of this rank; equal except for KTO with
    kl: microbatch.

    KTO and LW(P) need one more forward pass over the step, without gradient, with the policy before the update.
    reduce: element-wise sums over ranks.
    """
    numbers = [StepNumbers(step.mean_length)] * len(step.micro_batches)
    if loss.local_weight == "lw_p":
        with evaluating(model):
            perplexities = [
                losses.perplexity(*_per_example(model(m.batch), len(m.weights))) for m in step.micro_batches
            ]
        total, count = reduce(_sums_and_counts(perplexities, step).sum(0))
        numbers = [dataclasses.replace(n, mean_perplexity=total / count) for n in numbers]
    if LOSSES[loss.name].mismatched:
        ratios = _sums_and_counts(_mismatched(model, step), step)  # [micro-batches, 2]
        if loss.kl == "step":
            ratios = reduce(ratios.sum(0)).expand_as(ratios)
        else:  # as TRL and HALOs: the mean of each rank's micro-batch, averaged over the ranks that have examples
            means = ratios[:, 0] / ratios[:, 1].clamp(min=1)
            ratios = reduce(torch.stack([means, (ratios[:, 1] > 0).double()], dim=1))
        z0 = [losses.kto_reference_point(total, count) for total, count in ratios]
        numbers = [dataclasses.replace(n, z0=z) for n, z in zip(numbers, z0, strict=True)]
    return numbers


def example_losses(
    loss: Loss, out: SequenceLogprobs, micro: MicroBatch, numbers: StepNumbers
) -> tuple[Tensor, dict[str, Tensor]]:
    """Unweighted loss of each example, [b] with gradient, and the sums of the loss's `logs`, as scalars on the device.

    out: the model's result for micro.batch.
    """
    kind, b = LOSSES[loss.name], len(micro.weights)
    function: losses.LossFunction = pkgutil.resolve_name(kind.function)
    values, logged = function(_inputs(loss, out, micro, numbers), loss)
    assert len(out.sums) == (2 if kind.pair else 1) * b and values.shape == (b,), (loss.name, values.shape, b)
    assert logged.keys() == set(kind.logs), (loss.name, logged.keys())
    if loss.local_weight == "lw_p":
        values = values * losses.local_weight_p(*_per_example(out, b), numbers.mean_perplexity)
    elif loss.local_weight == "lw_w":
        assert out.collision is not None
        factor = losses.local_weight_w(out.collision, out.lengths)
        values = values * (factor if len(factor) == b else factor[:b] * factor[b:])
    return values, logged


def averages_micro_batch(loss: Loss) -> bool:
    """Whether the loss is SFT as in the paper's released code: the mean over the tokens of a micro-batch, times the
    mean of its weights."""
    return "normalization" in LOSSES[loss.name].settings and loss.normalization == "microbatch"


def _inputs(loss: Loss, out: SequenceLogprobs, micro: MicroBatch, numbers: StepNumbers) -> losses.LossInputs:
    """The arguments of the loss, from the log-probabilities of a micro-batch's packed sequences."""
    b, pair = len(micro.weights), LOSSES[loss.name].pair
    return losses.LossInputs(
        logprobs=out.sums[:b],
        ref_logprobs=micro.reference[:b],
        lengths=out.lengths[:b],
        rejected_logprobs=out.sums[b:] if pair else None,
        rejected_ref_logprobs=micro.reference[b:] if pair else None,
        rejected_lengths=out.lengths[b:] if pair else None,
        desirable=micro.desirable,
        mean_length=float(np.mean(micro.batch.lengths)) if averages_micro_batch(loss) else numbers.mean_length,
        z0=numbers.z0,
    )


def _sums_and_counts(values: Iterable[Tensor], step: Step) -> Tensor:
    """[micro-batches, 2] float64: sum and number of each micro-batch's values; both 0 for a placeholder."""
    rows = [
        torch.stack([v.double().sum(), v.new_full((), len(v), dtype=torch.float64)]) * micro.real
        for v, micro in zip(values, step.micro_batches, strict=True)
    ]
    return torch.stack(rows)


def _per_example(out: SequenceLogprobs, examples: int) -> tuple[Tensor, Tensor]:
    """Log-probability and length of each example, [b]; those of a pair are sums over its two responses."""
    return out.sums.view(-1, examples).sum(0), out.lengths.view(-1, examples).sum(0)


def _mismatched(model: Any, step: Step) -> tuple[Tensor, ...]:
    """lp_policy - lp_reference of the mismatched pairs of each micro-batch, [b] each, without gradient."""
    assert step.mismatched, "KTO needs a plan of mismatched pairs"
    with evaluating(model):
        ratios = torch.cat([model(pairs.batch).sums - pairs.reference for pairs in step.mismatched])
    sizes = [len(micro.weights) for micro in step.micro_batches]
    parts: tuple[Tensor, ...] = ratios.split(sizes)  # type: ignore[no-untyped-call]  # torch
    return parts


def start_error(model: Any, step: Step) -> Tensor:
    """Largest |lp_policy - lp_reference| / sqrt(T) over this rank's sequences of a step, mismatched pairs included.

    Before the first update policy and reference are equal, and so are their log-probabilities, except for rounding,
    which grows as sqrt(T).
    """
    scored = [(micro.batch, micro.reference) for micro in step.micro_batches]
    scored += [(pairs.batch, pairs.reference) for pairs in step.mismatched]
    with evaluating(model):
        errors = [((model(b).sums - reference).abs() / b.lengths_S.sqrt()).max() for b, reference in scored]
    return torch.stack(errors).max()


@contextlib.contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """A block in which the model runs without gradient and without dropout."""
    training = model.training
    model.eval()
    with torch.no_grad():
        yield
    model.train(training)


def _scored(data: Data, sequences: Rows, packing: str, device: torch.device) -> Scored:
    values = np.zeros(len(sequences)) if data.reference is None else np.asarray(data.reference[sequences])
    prompts, completions = [data.tokens.prompt(s) for s in sequences], [data.tokens.completion(s) for s in sequences]
    return Scored(
        batch=MAKERS[packing](prompts, completions, device=device),
        reference=on_device(values.astype(np.float32), device),
    )
