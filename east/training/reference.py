"""The `reference` stage: log-probability of every stored sequence under the starting model.

There is one value per sequence, not per example, and training only reads them: the reference model is not in memory
then. A sequence that the same model has scored before, for this dataset or another one of the round, is read from the
cache (`reference_cache`).
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

from east import models
from east.data import training_data
from east.data.indexed_dataset import IndexedDataset
from east.run import artifacts, pipeline, summaries
from east.run.config import Config
from east.training import deepspeed_engine, objective, reference_cache, schedule
from east.training.logprobs import CompletionLogprobs
from east.training.packing import MAKERS

TOKENS = 8192  # per forward pass
REMAKE = f"delete the round's folders reference/ and scores/ and run `{pipeline.COMMANDS['reference']}`"
CHECKED = 4  # sequences that `check` scores again
Rows = NDArray[np.int64]


def forward_passes(dataset: IndexedDataset, rows: Rows, tokens: int, packing: str) -> list[Rows]:
    """The sequences `rows` divided into forward passes of at most `tokens` tokens; a longer one has a pass of its own.

    Sequences with the same prompt are next to each other, because a pass stores their prompt once. The longest come
    first: if memory runs out, it does so in the first pass. With packing `none` a pass is padded to its longest.
    """
    if not len(rows):
        return []
    s = dataset.sequences[rows]
    if packing == "none":
        total = (s["prompt_length"] + s["completion_length"]).astype(np.int64)
        return [rows[group] for group in schedule.fit_padded(np.argsort(-total, kind="stable"), total, tokens)]
    _, prompt = np.unique(s["prompt_offset"], return_inverse=True)
    longest = np.zeros(len(rows), dtype=np.int64)
    np.maximum.at(longest, prompt, s["prompt_length"] + s["completion_length"])
    order = np.lexsort((prompt, -longest[prompt]))
    starts, total, last = [0], 0, -1
    fields = (prompt[order], s["prompt_length"][order], s["completion_length"][order])
    for i, (group, p_length, c_length) in enumerate(zip(*(f.tolist() for f in fields), strict=True)):
        more = c_length + (p_length if group != last else 0)
        if i > starts[-1] and total + more > tokens:
            starts.append(i)
            total, more = 0, p_length + c_length
        total, last = total + more, group
    return np.split(rows[order], starts[1:])


@torch.no_grad()
def score(
    module: CompletionLogprobs | nn.Module,
    dataset: IndexedDataset,
    passes: list[Rows],
    packing: str,
    device: torch.device,
) -> Iterator[tuple[Rows, NDArray[np.float64]]]:
    """(rows, log-probabilities [rows]) of each pass: sums over the tokens of the completion, in nats."""
    for rows in passes:
        prompts, completions = [dataset.prompt(r) for r in rows], [dataset.completion(r) for r in rows]
        batch = MAKERS[packing](prompts, completions, device=device)
        yield rows, module(batch).sums.double().cpu().numpy()


def check(
    module: nn.Module,
    dataset: IndexedDataset,
    column: NDArray[Any],
    rows: Rows,
    packing: str,
    device: torch.device,
    dtype: str,
    seed: int,
) -> None:
    """Score a few of the rows again, drawn by the seed (the same ones on every rank), and compare with `column`.

    Raises ValueError when one differs by more than another packing explains: the column is not of this model.
    """
    sampled = np.random.default_rng(seed).choice(rows, min(CHECKED, len(rows)), replace=False)
    with objective.evaluating(module):  # no dropout, as when the column was computed
        passes = forward_passes(dataset, sampled, 4096, packing)
        scored = list(score(module, dataset, passes, packing, device))
    sampled, logprobs = (np.concatenate(parts) for parts in zip(*scored, strict=True))
    allowed = models.TOLERANCE[dtype]
    worst = float(np.max(np.abs(logprobs - column[sampled]) / np.sqrt(dataset.sequences["completion_length"][sampled])))
    if not worst <= allowed:
        raise ValueError(
            f"reference: {len(sampled)} sequences scored again differ by up to {worst:.2g} sqrt(T) nats (T tokens), "
            f"expected at most {allowed:g} sqrt(T); {REMAKE}"
        )


def run(config: Config) -> None:
    """Write reference/ from dataset/ and the starting model. With several ranks, each scores a share of the sequences.

    It scores only the sequences that are not in the cache, after a kill and for another dataset of the round alike.
    """
    dataset = IndexedDataset(pipeline.dataset(config))
    start, packing = models.resolve(*config.starting_model), config.model.packing
    trust = config.model.trust_remote_code
    training_data.check_lengths(dataset, models.context_limit(start, trust))
    model, kernel = artifacts.model_digest(start), training_data.kernel()
    artifact = pipeline.reference(config, kernel, model, dataset.fingerprint)
    if artifact.complete():
        print(f"reference: {artifact.folder} is complete")
        return
    rank, ranks, device = deepspeed_engine.start()
    cache, keys = pipeline.scores(config, kernel, model), dataset.keys()
    column = np.zeros(len(keys))
    with deepspeed_engine.together():
        if rank == 0:
            cache.claim()
            column = reference_cache.look_up(reference_cache.read(cache.folder), keys)
    column = _sum_over_ranks(column, device)  # the other ranks add zeros; NaN where the cache has no value
    known, missing = np.flatnonzero(~np.isnan(column)), np.flatnonzero(np.isnan(column))
    if rank == 0:
        print(f"reference: {len(known)} of {len(keys)} sequences are in the cache, {len(missing)} to score")
    if len(missing):
        policy = models.load(start, dtype=config.train.dtype, attention=config.model.training_attention, trust=trust)
        module = CompletionLogprobs(policy, config.train.head_chunk, device=device).eval()
        if len(known):
            check(module, dataset, column, known, packing, device, config.train.dtype, config.train.seed)
        with reference_cache.appending(cache.folder) as append:
            passes = share(dataset, missing, packing, rank, ranks)
            scored = score_and_append(module, dataset, passes, keys, append, packing, device, show=rank == 0)
        column[missing] = _sum_over_ranks(scored[missing], device)
    with deepspeed_engine.together():
        if rank == 0:
            with artifact.writing() as (scratch, summary):
                np.save(scratch / "logprobs.npy", column)
                per_token = column / dataset.sequences["completion_length"]
                summary.update(sequences=len(column), mean_logprob_per_token=float(per_token.mean()))
            summaries.show("reference", artifact.folder, summary)


def share(dataset: IndexedDataset, rows: Rows, packing: str, rank: int, ranks: int) -> list[Rows]:
    """The forward passes of one rank. Ranks take passes in turn, so that their numbers of tokens differ by about one
    pass at most."""
    s = dataset.sequences[rows]
    total = int(s["prompt_length"].sum() + s["completion_length"].sum())
    return forward_passes(dataset, rows, min(TOKENS, total // ranks + 1), packing)[rank::ranks]


def score_and_append(
    module: nn.Module,
    dataset: IndexedDataset,
    passes: list[Rows],
    keys: NDArray[np.uint64],
    append: reference_cache.Append,
    packing: str,
    device: torch.device,
    show: bool,
) -> NDArray[np.float64]:
    """Log-probabilities of the rows of all passes, [sequences] float64, 0 for the other rows. The values of each pass
    are appended to the cache when it is finished.

    Raises ValueError for a log-probability that is not finite.
    """
    column = np.zeros(len(dataset.sequences))
    with tqdm(total=sum(map(len, passes)), desc="reference", unit="seq", disable=not show) as bar:
        for rows, values in score(module, dataset, passes, packing, device):
            if not np.isfinite(values).all():
                row = int(rows[~np.isfinite(values)][0])
                raise ValueError(
                    f"reference: sequence {row} of {dataset.folder} has log-probability {values[rows == row][0]}; "
                    "the model is broken or overflows in train.dtype"
                )
            append(keys[rows], values)
            column[rows] = values
            bar.update(len(rows))
    return column


def _sum_over_ranks(values: NDArray[np.float64], device: torch.device) -> NDArray[np.float64]:
    return deepspeed_engine.reduce_sum(torch.from_numpy(values).to(device)).cpu().numpy()
