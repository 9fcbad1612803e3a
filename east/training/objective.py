"""From example rows to losses: what joins the token store, the model's log-probabilities and the equations.

One optimizer step needs a few numbers over all its examples (mean length, z0, mean perplexity): they are made
first, on every rank alike, so that the loss does not depend on how the step is shared out.
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
from east.training.packing import PackedBatch, on_device, pack

PASS = 4  # micro-batches whose mismatched pairs share a pass: without gradient they take less memory than one with
Reduce = Callable[[Tensor], Tensor]  # element-wise sums over ranks


@dataclasses.dataclass(frozen=True)
class Scored:
    """Packed sequences and what the reference thinks of each."""

    batch: PackedBatch
    reference: Tensor  # [sequences] float32; zero where the loss needs none


@dataclasses.dataclass(frozen=True)
class MicroBatch:
    """b examples of one rank, on the device. Pairs are packed as 2b sequences: the chosen, then the rejected."""

    batch: PackedBatch
    reference: Tensor  # [sequences] float32; zero where the loss needs none
    weights: Tensor  # [b] float32; zero for the stand-in of a rank that has no work
    desirable: Tensor  # [b] bool
    real: bool


@dataclasses.dataclass(frozen=True)
class Step:
    """One optimizer step as this rank sees it."""

    number: int
    epoch: int
    rows: Rows  # of the B examples of the step, over all ranks
    mean_length: float  # of their responses, in tokens
    micro_batches: list[MicroBatch]  # this rank's; equally many on every rank
    mismatched: list[Scored]  # KTO: the prompts of their examples, in order, each with another question's response


@dataclasses.dataclass(frozen=True)
class StepNumbers:
    """What losses need of the whole optimizer step."""

    mean_length: float  # of the responses, in tokens
    z0: float | Tensor = 0.0  # KTO
    mean_perplexity: float | Tensor = 1.0  # LW(P)


def steps(
    data: Data, loss: Loss, train: Train, first: int, last: int, rank: int, ranks: int, device: torch.device
) -> Iterator[Step]:
    """Steps [first, last) of the run; the next one is read and packed while the caller computes."""
    read = partial(load, data, loss, train, rank=rank, ranks=ranks, device=device)
    numbers = iter(range(first, last))
    with ThreadPoolExecutor(1) as pool:
        waiting = [pool.submit(read, number) for number in islice(numbers, 1)]
        while waiting:
            step = waiting.pop().result()
            waiting += [pool.submit(read, number) for number in islice(numbers, 1)]
            yield step


def load(data: Data, loss: Loss, train: Train, number: int, rank: int, ranks: int, device: torch.device) -> Step:
    """Read and pack this rank's share of optimizer step `number`."""
    epoch, rows = schedule.step_rows(data.kept, number, train.batch_size, train.seed)
    examples, lengths = data.tokens.examples[rows], data.tokens.sequences["completion_length"]
    kind = LOSSES[loss.name]
    plan = data.tokens.kl[epoch % len(data.tokens.kl)] if kind.mismatched and data.tokens.kl is not None else None
    if train.micro_tokens is None:
        mine = schedule.share(rows, rank, ranks, train.micro_batch)
    else:
        tokens = lengths[examples["response"]]
        if kind.pair:
            tokens = tokens + lengths[examples["rejected"]]
        tokens = tokens + data.tokens.sequences["prompt_length"][examples["response"]]  # stored once, also for a pair
        mine = schedule.share_tokens(rows, tokens, rank, ranks, train.micro_tokens)
    mean_length = float(lengths[examples["response"]].mean())
    stood_in = [part if len(part) else rows[:1] for part in mine]
    micro_batches = [collate(data, s, loss, len(part) > 0, device) for s, part in zip(stood_in, mine, strict=True)]
    mismatched = []
    if plan is not None:
        passes = [np.concatenate(stood_in[i : i + PASS]) for i in range(0, len(stood_in), PASS)]
        mismatched = [_scored(data, plan[part], device) for part in passes]
    return Step(number, epoch, rows, mean_length, micro_batches, mismatched)


def collate(data: Data, rows: Rows, loss: Loss, real: bool, device: torch.device) -> MicroBatch:
    """Pack the examples `rows`. A rank without work packs one that is not `real`, its weight zero, so that every rank
    makes the same collectives."""
    examples = data.tokens.examples[rows]
    sequences = examples["response"]
    if LOSSES[loss.name].pair:
        sequences = np.concatenate([sequences, examples["rejected"]])
    weights = data.weights[rows] if real else np.zeros(len(rows))
    if averages_micro_batch(loss):
        weights = np.full_like(weights, weights.mean())
    own = _scored(data, sequences, device)
    return MicroBatch(
        batch=own.batch,
        reference=own.reference,
        weights=on_device(weights.astype(np.float32), device),
        desirable=on_device(examples["desirable"], device),
        real=real,
    )


def step_numbers(loss: Loss, model: Any, step: Step, reduce: Reduce) -> list[StepNumbers]:
    """One StepNumbers per micro-batch of this rank; they differ only for KTO with kl: microbatch.

    KTO and LW(P) look at the step with the policy as it is, before any gradient (one forward pass more).
    """
    numbers = [StepNumbers(step.mean_length)] * len(step.micro_batches)
    if loss.local_weight == "lw_p":
        with evaluating(model):
            found = [losses.perplexity(*_per_example(model(m.batch), len(m.weights))) for m in step.micro_batches]
        total, count = reduce(_sums_and_counts(found, step).sum(0))
        numbers = [dataclasses.replace(n, mean_perplexity=total / count) for n in numbers]
    if LOSSES[loss.name].mismatched:
        ratios = _sums_and_counts(_mismatched(model, step), step)  # [micro-batches, 2]
        if loss.kl == "step":
            ratios = reduce(ratios.sum(0)).expand_as(ratios)
        else:  # TRL and HALOs: each rank's mean, averaged over the ranks that have examples
            means = ratios[:, 0] / ratios[:, 1].clamp(min=1)
            ratios = reduce(torch.stack([means, (ratios[:, 1] > 0).double()], dim=1))
        z0 = [losses.kto_reference_point(total, count) for total, count in ratios]
        numbers = [dataclasses.replace(n, z0=z) for n, z in zip(numbers, z0, strict=True)]
    return numbers


def example_losses(
    loss: Loss, out: SequenceLogprobs, micro: MicroBatch, numbers: StepNumbers
) -> tuple[Tensor, dict[str, Tensor]]:
    """Unweighted loss of each example [b], and sums for the log (the row's `logs`), not yet waited for."""
    kind, b = LOSSES[loss.name], len(micro.weights)
    function: losses.LossFunction = pkgutil.resolve_name(kind.function)
    values, report = function(_inputs(loss, out, micro, numbers), loss)
    assert len(out.sums) == (2 if kind.pair else 1) * b and values.shape == (b,), (loss.name, values.shape, b)
    assert report.keys() == set(kind.logs), (loss.name, report.keys())
    if loss.local_weight == "lw_p":
        values = values * losses.local_weight_p(*_per_example(out, b), numbers.mean_perplexity)
    elif loss.local_weight == "lw_w":
        assert out.collision is not None
        factor = losses.local_weight_w(out.collision, out.lengths)
        values = values * (factor if len(factor) == b else factor[:b] * factor[b:])
    return values, report


def averages_micro_batch(loss: Loss) -> bool:
    """The release's SFT: the micro-batch's token mean, times the mean of its weights."""
    return "normalization" in LOSSES[loss.name].settings and loss.normalization == "microbatch"


def _inputs(loss: Loss, out: SequenceLogprobs, micro: MicroBatch, numbers: StepNumbers) -> losses.LossInputs:
    """The packed sequences of a micro-batch as the examples that its loss takes."""
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
    """[micro-batches, 2] float64: sum and number of each micro-batch's values; a stand-in counts nothing."""
    rows = [
        torch.stack([v.double().sum(), v.new_full((), len(v), dtype=torch.float64)]) * micro.real
        for v, micro in zip(values, step.micro_batches, strict=True)
    ]
    return torch.stack(rows)


def _per_example(out: SequenceLogprobs, examples: int) -> tuple[Tensor, Tensor]:
    """Log-probability and length of each example [b]; a DPO pair's are those of both its responses."""
    return out.sums.view(-1, examples).sum(0), out.lengths.view(-1, examples).sum(0)


def _mismatched(model: Any, step: Step) -> tuple[Tensor, ...]:
    """lp_policy - lp_reference of each micro-batch's mismatched pairs."""
    assert step.mismatched, "KTO needs a plan of mismatched pairs"
    with evaluating(model):
        ratios = torch.cat([model(pairs.batch).sums - pairs.reference for pairs in step.mismatched])
    return ratios.split([len(micro.weights) for micro in step.micro_batches])


def start_error(model: Any, step: Step) -> Tensor:
    """Largest |lp_policy - lp_reference| / sqrt(T) over this rank's sequences of a step, mismatched pairs included.

    Before the first update 0 but for rounding, which grows as sqrt(T).
    """
    scored = [(micro.batch, micro.reference) for micro in step.micro_batches]
    scored += [(pairs.batch, pairs.reference) for pairs in step.mismatched]
    with evaluating(model):
        errors = [((model(b).sums - reference).abs() / b.lengths_S.sqrt()).max() for b, reference in scored]
    return torch.stack(errors).max()


@contextlib.contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Without gradient and without dropout."""
    training = model.training
    model.eval()
    with torch.no_grad():
        yield
    model.train(training)


def _scored(data: Data, sequences: Rows, device: torch.device) -> Scored:
    values = np.zeros(len(sequences)) if data.reference is None else np.asarray(data.reference[sequences])
    prompts, completions = [data.tokens.prompt(s) for s in sequences], [data.tokens.completion(s) for s in sequences]
    return Scored(
        batch=pack(prompts, completions, device=device),
        reference=on_device(values.astype(np.float32), device),
    )
