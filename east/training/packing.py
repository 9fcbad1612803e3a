"""Batches of sequences; the only place where labels are shifted.

Each sequence is a prompt and a completion. `pack` puts all sequences of a batch into one row of T tokens without
padding. With `share_prompts`, sequences with the same prompt share one copy of it:

    prompt  completion 0  completion 1        tokens
    0 1 2   3 4 5         3 4                 position ids: each completion continues its prompt
    [--- segment 0 ---]  [segment 1, whose queries also see the prompt, never completion 0]

`pad` gives each sequence a row of its own, for models that carry state from token to token otherwise than by attention
(recurrent ones), or whose attention cannot run a packed row. Rows are filled up at their end, which no earlier token
sees.

The hidden state that predicts completion token t is that of token t-1 of the same sequence, and that of the prompt's
last token for t = 0.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[Any]
TokenIds = Sequence[int] | Array


@dataclass(frozen=True, eq=False)
class Segment:
    """Consecutive tokens [start, stop) that attend causally to themselves, and to all of the prefix
    [prefix_start, prefix_stop). The prefix is empty unless the prompt is part of an earlier segment."""

    start: int
    stop: int
    prefix_start: int = 0
    prefix_stop: int = 0


class PackedSegments:
    """The segments of a packed batch, and the same as arguments of the varlen kernels.

    cu_q, cu_k: [segments + 1] int32, cumulative numbers of queries and of keys. key_rows: [sum of key lengths] int64,
    row indices that gather keys and values, with prompts repeated; None if they are the identity. max_q, max_k: largest
    number of queries and of keys of a segment.

    It is a plain object, so that torch.compile does not specialise on its contents.
    """

    def __init__(self, spans: tuple[Segment, ...], device: torch.device | str):
        self.spans = spans
        n_q = np.array([s.stop - s.start for s in spans])
        n_k = n_q + np.array([s.prefix_stop - s.prefix_start for s in spans])
        self.max_q, self.max_k = int(n_q.max()), int(n_k.max())
        self.cu_q, self.cu_k = (on_device(np.append(0, n.cumsum()).astype(np.int32), device) for n in (n_q, n_k))
        ranges = [(s.prefix_start, s.prefix_stop, s.start, s.stop) for s in spans]
        rows = [np.append(np.arange(a, b), np.arange(c, d)) for a, b, c, d in ranges]
        self.key_rows = None if np.array_equal(n_q, n_k) else on_device(np.concatenate(rows), device)


@dataclass(frozen=True, eq=False)
class Batch:
    """S sequences in R rows of T positions, with N completion tokens in all. R is 1 if they are packed, else S.

    input_ids: [R, T] int64. position_ids: [R, T] int64, and segments: they cover [0, T) of the row in order; both are
    None if each sequence has a row of its own.
    rows: [N] int64, indices of the R * T positions whose hidden state predicts a completion token. targets: [N] int64,
    the token that is predicted. Both are in the order of the sequences given to `pack` or `pad`: the first lengths[0]
    entries belong to sequence 0. lengths: the S completion lengths; lengths_S: the same, [S] int64 on the device.
    tokens: number of positions that are not padding.
    """

    input_ids: Tensor
    position_ids: Tensor | None
    segments: PackedSegments | None
    rows: Tensor
    targets: Tensor
    lengths: tuple[int, ...]
    lengths_S: Tensor
    tokens: int


def pack(
    prompts: Sequence[TokenIds],
    completions: Sequence[TokenIds],
    share_prompts: bool = True,
    device: torch.device | str = "cpu",
) -> Batch:
    """Pack the sequences prompts[i] + completions[i] into one row. The inputs are not changed.

    Raises ValueError when the numbers of prompts and completions differ or are zero, or when a prompt or a completion
    is empty (the first completion token needs a token before it).
    """
    prompt_ids, completion_ids = _checked(prompts, completions)
    groups: dict[object, list[int]] = {}
    for i, ids in enumerate(prompt_ids):
        groups.setdefault(ids.tobytes() if share_prompts else i, []).append(i)

    tokens: list[Array] = []
    positions: list[Array] = []
    segments: list[Segment] = []
    rows: list[Array] = [np.empty(0)] * len(prompt_ids)
    start = 0
    for members in groups.values():
        prompt = prompt_ids[members[0]]
        prompt_start, prompt_stop = start, start + len(prompt)
        for i in members:
            completion = completion_ids[i]
            if i == members[0]:
                completion_start, prefix = prompt_stop, (0, 0)
                tokens.append(prompt)
                positions.append(np.arange(len(prompt)))
            else:
                completion_start, prefix = start, (prompt_start, prompt_stop)
            stop = completion_start + len(completion)
            tokens.append(completion)
            positions.append(np.arange(len(prompt), len(prompt) + len(completion)))
            segments.append(Segment(start, stop, *prefix))
            rows[i] = np.append(prompt_stop - 1, np.arange(completion_start, stop - 1))
            start = stop

    lengths = tuple(len(ids) for ids in completion_ids)
    return Batch(
        input_ids=on_device(np.concatenate(tokens)[None], device),
        position_ids=on_device(np.concatenate(positions)[None], device),
        segments=PackedSegments(tuple(segments), device),
        rows=on_device(np.concatenate(rows), device),
        targets=on_device(np.concatenate(completion_ids), device),
        lengths=lengths,
        lengths_S=on_device(np.array(lengths), device),
        tokens=start,
    )


def pad(prompts: Sequence[TokenIds], completions: Sequence[TokenIds], device: torch.device | str = "cpu") -> Batch:
    """The sequences prompts[i] + completions[i], each in a row of its own, filled up to the longest with token 0.

    Raises ValueError as `pack` does.
    """
    prompt_ids, completion_ids = _checked(prompts, completions)
    sequences = [np.append(p, c) for p, c in zip(prompt_ids, completion_ids, strict=True)]
    longest = max(map(len, sequences))
    lengths = tuple(len(ids) for ids in completion_ids)
    ends = [len(ids) - 1 for ids in sequences]  # the last token predicts nothing
    rows = [np.arange(r * longest + e - n, r * longest + e) for r, (e, n) in enumerate(zip(ends, lengths, strict=True))]
    return Batch(
        input_ids=on_device(np.stack([np.pad(ids, (0, longest - len(ids))) for ids in sequences]), device),
        position_ids=None,
        segments=None,
        rows=on_device(np.concatenate(rows), device),
        targets=on_device(np.concatenate(completion_ids), device),
        lengths=lengths,
        lengths_S=on_device(np.array(lengths), device),
        tokens=sum(map(len, sequences)),
    )


MAKERS: dict[str, Callable[..., Batch]] = {"shared_prompts": pack, "none": pad}  # model.packing


def on_device(values: Array, device: torch.device | str) -> Tensor:
    """A tensor of the same shape and dtype; to a GPU the copy is from pinned memory and asynchronous."""
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    return tensor.pin_memory().to(device, non_blocking=True) if torch.device(device).type == "cuda" else tensor


def _checked(prompts: Sequence[TokenIds], completions: Sequence[TokenIds]) -> tuple[list[Array], list[Array]]:
    """Both as arrays. Raises ValueError when they do not belong together, or one of them is empty."""
    prompt_ids = [np.asarray(ids, dtype=np.int64) for ids in prompts]
    completion_ids = [np.asarray(ids, dtype=np.int64) for ids in completions]
    if len(prompt_ids) != len(completion_ids):
        raise ValueError(f"found {len(prompt_ids)} prompts but {len(completion_ids)} completions: give one per prompt")
    if not prompt_ids:
        raise ValueError("found nothing to pack: give at least one sequence")
    for name, sequences in (("prompt", prompt_ids), ("completion", completion_ids)):
        for i, ids in enumerate(sequences):
            if ids.ndim != 1 or len(ids) == 0:
                raise ValueError(f"{name} {i} has shape {ids.shape}: expected a non-empty list of token ids")
    return prompt_ids, completion_ids
