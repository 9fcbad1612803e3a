"""Which examples are in which optimizer step, rank and micro-batch, and the learning rate. Pure functions, numpy only.

The order of examples depends on (seed, epoch) alone. Ranks and micro-batches only divide the examples of a step, so
that the same run on another number of ranks has the same steps.
"""

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]


def steps_per_epoch(examples: int, batch_size: int) -> int:
    """Optimizer steps of one epoch. The last one may have fewer examples; no example is dropped."""
    return math.ceil(examples / batch_size)


def step_rows(kept: Rows, step: int, batch_size: int, seed: int) -> tuple[int, Rows]:
    """(epoch, example rows of optimizer step `step`). kept: the rows that are trained, in the order of the dataset.

    Each epoch is a permutation seeded by (seed, epoch).
    """
    epoch, step_of_epoch = divmod(step, steps_per_epoch(len(kept), batch_size))
    order = np.random.default_rng([seed, epoch]).permutation(kept)
    return epoch, order[step_of_epoch * batch_size : (step_of_epoch + 1) * batch_size]


def micro_steps(batch_size: int, ranks: int, micro_batch: int) -> int:
    """Micro-batches per rank that a full step needs."""
    return math.ceil(math.ceil(batch_size / ranks) / micro_batch)


def share(rows: Rows, rank: int, ranks: int, micro_batch: int) -> list[Rows]:
    """This rank's micro-batches of the step whose examples are `rows`. All ranks get the same number of them; the last
    ones may be empty."""
    own = rows[rank::ranks]
    count = micro_steps(len(rows), ranks, micro_batch)
    return [own[i * micro_batch : (i + 1) * micro_batch] for i in range(count)]


def share_tokens(
    rows: Rows, tokens: NDArray[np.int64], rank: int, ranks: int, budget: int, padded: bool = False
) -> list[Rows]:
    """This rank's micro-batches of a step, of at most `budget` tokens each; an example that is longer is alone in its
    micro-batch.

    tokens: number of tokens of each row. Examples are assigned longest first, each to the rank with the fewest tokens
    so far; a rank puts its examples, longest first, into the first micro-batch that has room (first fit decreasing).
    All ranks get the same number of micro-batches; the last ones may be empty. padded: every example of a micro-batch
    takes the tokens of its longest.
    """
    longest_first = np.argsort(-tokens, kind="stable")
    loads, shares = [0] * ranks, [list[int]() for _ in range(ranks)]
    for i in longest_first:
        least = loads.index(min(loads))
        loads[least] += int(tokens[i])
        shares[least].append(int(i))
    fit = fit_padded if padded else _first_fit
    bins = [fit(share, tokens, budget) for share in shares]
    count = max(len(b) for b in bins)
    return [rows[np.array(b, dtype=np.int64)] for b in bins[rank] + [[]] * (count - len(bins[rank]))]


def fit_padded(share: Iterable[int], tokens: NDArray[np.int64], budget: int) -> list[list[int]]:
    """The examples of `share`, longest first, in groups of which each takes at most `budget` tokens once its examples
    are padded to the first, or has one example."""
    groups = list[list[int]]()
    for i in share:
        if groups and (len(groups[-1]) + 1) * tokens[groups[-1][0]] <= budget:
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups


def _first_fit(share: list[int], tokens: NDArray[np.int64], budget: int) -> list[list[int]]:
    """The examples of `share` in micro-batches, each example in the first one with room for it."""
    bins, room = list[list[int]](), list[int]()
    for i in share:
        length = int(tokens[i])
        place = next((b for b, left in enumerate(room) if length <= left), len(bins))
        if place == len(bins):
            bins.append([])
            room.append(budget)
        bins[place].append(i)
        room[place] -= length
    return bins


def learning_rate(step: int, steps: int, peak: float, warmup_ratio: float, schedule: str) -> float:
    """Learning rate of step `step` (from 0): linear warm-up over W = ceil(warmup_ratio * steps) steps, then a linear or
    cosine decay, or constant.

    The first step has the rate peak / W, and the last one a rate above zero: the schedules of transformers, shifted by
    one step.
    """
    warmup = math.ceil(warmup_ratio * steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    factor = {"linear": 1 - progress, "cosine": 0.5 * (1 + math.cos(math.pi * progress)), "constant": 1.0}
    return peak * factor[schedule]


def total_steps(examples: int, batch_size: int, epochs: int) -> int:
    """Optimizer steps of the whole run."""
    return epochs * steps_per_epoch(examples, batch_size)
