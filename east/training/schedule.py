"""Which examples meet in which optimizer step, rank and micro-batch. Pure functions of numbers, numpy only.

The order of examples depends on (seed, epoch) alone. Ranks and micro-batches only share out one step's
examples, so the same run on another topology trains the same steps.
"""

import math

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]


def steps_per_epoch(examples: int, batch_size: int) -> int:
    """Optimizer steps of one pass; the last one may be smaller, none is dropped."""
    return math.ceil(examples / batch_size)


def step_rows(kept: Rows, step: int, batch_size: int, seed: int) -> tuple[int, Rows]:
    """(epoch, example rows of optimizer step `step`), `kept` the rows that are trained, in dataset order.

    Each epoch is a permutation seeded by (seed, epoch).
    """
    epoch, place = divmod(step, steps_per_epoch(len(kept), batch_size))
    order = np.random.default_rng([seed, epoch]).permutation(kept)
    return epoch, order[place * batch_size : (place + 1) * batch_size]


def micro_steps(batch_size: int, ranks: int, micro_batch: int) -> int:
    """Micro-batches per rank that a full step needs."""
    return math.ceil(math.ceil(batch_size / ranks) / micro_batch)


def share(rows: Rows, rank: int, ranks: int, micro_batch: int) -> list[Rows]:
    """This rank's micro-batches of a step; every rank gets equally many, trailing ones may be empty."""
    mine = rows[rank::ranks]
    count = micro_steps(len(rows), ranks, micro_batch)
    return [mine[i * micro_batch : (i + 1) * micro_batch] for i in range(count)]


def share_tokens(rows: Rows, tokens: NDArray[np.int64], rank: int, ranks: int, budget: int) -> list[Rows]:
    """This rank's micro-batches of a step, of at most `budget` tokens each (a longer example stands alone).

    tokens: of each row. The longest example goes first, to the rank with the fewest tokens so far; a rank puts its
    examples, longest first, into the first micro-batch with room. Every rank gets equally many micro-batches,
    trailing ones may be empty.
    """
    longest_first = np.argsort(-tokens, kind="stable")
    loads, shares = [0] * ranks, [list[int]() for _ in range(ranks)]
    for i in longest_first:
        least = loads.index(min(loads))
        loads[least] += int(tokens[i])
        shares[least].append(int(i))
    bins = [_first_fit(share, tokens, budget) for share in shares]
    count = max(len(b) for b in bins)
    return [rows[np.array(b, dtype=np.int64)] for b in bins[rank] + [[]] * (count - len(bins[rank]))]


def _first_fit(share: list[int], tokens: NDArray[np.int64], budget: int) -> list[list[int]]:
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
    """Rate of step `step` (from 0): linear warm-up over ceil(ratio * steps), then linear, cosine or constant.

    The first step has peak / warm-up steps, the last a rate above zero, as in the Hugging Face schedules
    shifted by one step.
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
