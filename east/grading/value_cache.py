"""Values computed in child processes: one call per answer, cached across questions, failures counted."""

from collections import Counter
from collections.abc import Iterable

from east.grading.mathematics.canonical import Key
from east.grading.mathematics.numeric import OUT_OF_BOUNDS, Request
from east.grading.mathematics.tree import Tree, order
from east.grading.workers import Workers

MAX_CACHED = 50_000_000  # characters of the cached requests

Requests = frozenset[Request]  # all values of one answer


class ValueCache:
    """Keys of expressions, computed in child processes and cached.

    All requests of an answer share one call and its limit, so an answer with a hundred slow values takes no longer
    than an answer with one. If a call does not finish, its answers are added to `lost`, and their values stay unknown.
    counts: calls by outcome (`workers.Status`).
    """

    def __init__(self, *, workers: int = 2, timeout_s: float = 1.0, memory_mb: int = 1024) -> None:
        self.pool = Workers(
            "east.grading.mathematics.numeric:evaluate_all", count=workers, timeout_s=timeout_s, memory_mb=memory_mb
        )
        self.known: dict[Request, Key | None] = {}
        self.size = 0
        self.counts: Counter[str] = Counter()
        self.done: set[Requests] = set()  # answers whose values are known
        self.lost: set[Requests] = set()  # answers whose call did not finish
        self.out_of_bounds: set[Request] = set()  # values too large to be computed

    def compute(self, answers: Iterable[Requests]) -> None:
        """Compute the values of answers that are not in the cache. answers: the requests of each.

        All values of an answer are computed in its own call, known ones too: whether an answer exceeds its limit does
        not depend on the answers before it.
        """
        calls = {tuple(sorted(requests, key=order)): requests for requests in set(answers) - self.lost - self.done}
        ordered = sorted(filter(None, calls), key=order)
        for call, outcome in zip(ordered, self.pool.map(ordered), strict=True):
            self.counts[outcome.status] += 1
            if outcome.status == "ok":
                self._store(call, outcome.value)
                self.done.add(calls[call])
            else:
                self.lost.add(calls[call])
        self.size += sum(len(order(call)) for call in ordered)

    def _store(self, call: tuple[Request, ...], values: list[Key | None]) -> None:
        for request, value in zip(call, values, strict=True):
            self.known[request] = None if value == OUT_OF_BOUNDS else value
            if value == OUT_OF_BOUNDS:
                self.out_of_bounds.add(request)

    def start(self) -> None:
        """Start the child processes, so that the first call's deadline does not include their start."""
        self.pool.start()

    def trim(self) -> None:
        """Empty the cache if it is too large. Called between questions, whose values must stay known."""
        if self.size > MAX_CACHED:
            self.known.clear()
            self.done.clear()
            self.lost.clear()
            self.out_of_bounds.clear()
            self.size = 0

    def lookup(self, mode: str, tree: Tree) -> Key | None:
        """The key of an expression, as `canonical.Lookup`; None if it has none, or if it was not computed."""
        return self.known.get((mode, tree))

    def close(self) -> None:
        self.pool.close()
