"""A random sample of a stream that depends on a seed and on what is in the stream, but not on its order."""

import hashlib
import heapq
import itertools
from typing import Generic, TypeVar

Entry = TypeVar("Entry")


class SeededSample(Generic[Entry]):
    """Keeps the `size` entries whose names have the smallest seeded hashes."""

    def __init__(self, size: int, seed: int) -> None:
        self.size, self.seed = size, seed
        self._heap: list[tuple[int, int, Entry]] = []  # (negated rank, number of the offer, entry)
        self._offers = itertools.count()

    def offer(self, name: str, entry: Entry, *, last: bool = False) -> None:
        """Offer an entry. last: it is kept only while there are too few others."""
        digest = hashlib.blake2b(f"{self.seed}/{name}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
        rank = -int.from_bytes(digest, "big") - (last << 64)
        full = len(self._heap) >= self.size
        if self.size and not (full and rank <= self._heap[0][0]):
            (heapq.heapreplace if full else heapq.heappush)(self._heap, (rank, next(self._offers), entry))

    def entries(self) -> list[Entry]:
        """The entries, by rank."""
        return [entry for _, _, entry in sorted(self._heap, key=lambda kept: -kept[0])]
