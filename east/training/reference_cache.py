"""The cache of reference log-probabilities, so that a sequence is scored only once by the same model.

    scores/<digest>/   plan.json   the model and settings that the digest is computed from
                       *.bin       records (key of a sequence, log-probability), appended while sequences are scored

Each process appends to its own file, so that no lock is needed. A record that a killed process left incomplete is
ignored on reading.
"""

import contextlib
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from east.run import files

RECORD = np.dtype([("key", "<u8", 2), ("logprob", "<f8")])
Append = Callable[[NDArray[np.uint64], NDArray[np.float64]], None]


def read(folder: Path) -> NDArray[Any]:
    """All complete records of a cache folder, [records] of RECORD; empty if there is no such folder."""
    parts = [np.fromfile(path, RECORD) for path in sorted(folder.glob("*.bin"))]
    return np.concatenate(parts) if parts else np.empty(0, RECORD)


def look_up(records: NDArray[Any], keys: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Log-probability of each key (see `IndexedDataset.keys`), [keys] float64; NaN for keys without a record.

    If two keys agree in their first 64 bits, one of them may get NaN and be scored again; it never gets the other's
    value.
    """
    if not len(records):
        return np.full(len(keys), np.nan)
    ordered = records[np.argsort(records["key"][:, 0], kind="stable")]
    positions = np.searchsorted(ordered["key"][:, 0], keys[:, 0])
    nearest = ordered[np.minimum(positions, len(ordered) - 1)]
    return np.where((nearest["key"] == keys).all(axis=1), nearest["logprob"], np.nan)


@contextlib.contextmanager
def appending(folder: Path) -> Iterator[Append]:
    """A function that appends (keys [n, 2], log-probabilities [n]) to the cache and flushes them to the operating
    system, so that a kill loses no finished call.

    Raises ValueError when the disk is full or not writable.
    """
    with files.disk_errors(folder), (folder / f"{uuid.uuid4().hex}.bin").open("xb") as file:

        def append(keys: NDArray[np.uint64], logprobs: NDArray[np.float64]) -> None:
            records = np.empty(len(keys), RECORD)
            records["key"], records["logprob"] = keys, logprobs
            file.write(records.tobytes())
            file.flush()

        yield append
        files.flush(file)
