"""The score book: log-probabilities that the starting model has given, so that only new sequences are scored.

    scores/<digest>/   plan.json   the model and settings that the digest stands for
                       *.bin       records (key of a sequence, log-probability), appended as scoring goes on

Every process appends to a file of its own: none waits for another, and no lock is needed. A record torn by a kill
is left out on reading.
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
    """Every whole record of a book, [records] of RECORD; none when there is no book."""
    parts = [np.fromfile(path, RECORD) for path in sorted(folder.glob("*.bin"))]
    return np.concatenate(parts) if parts else np.empty(0, RECORD)


def look_up(records: NDArray[Any], keys: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Log-probability of each key (see `IndexedDataset.keys`), [keys]; NaN where the book has none.

    A key whose first half is also another key's may be taken for unknown, never for the other.
    """
    if not len(records):
        return np.full(len(keys), np.nan)
    ordered = records[np.argsort(records["key"][:, 0], kind="stable")]
    places = np.searchsorted(ordered["key"][:, 0], keys[:, 0])
    found = ordered[np.minimum(places, len(ordered) - 1)]
    return np.where((found["key"] == keys).all(axis=1), found["logprob"], np.nan)


@contextlib.contextmanager
def appending(folder: Path) -> Iterator[Append]:
    """A function that adds (keys [n, 2], log-probabilities [n]) to the book, each call out of this process at once.

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
