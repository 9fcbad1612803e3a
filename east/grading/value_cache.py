"""The values that children computed: asked for by answer, remembered over questions, failures counted."""

from collections import Counter
from collections.abc import Iterable

from east.grading.canonical import Key
from east.grading.numeric import OUT_OF_BOUNDS, Request
from east.grading.tree import Tree, order
from east.grading.workers import Workers

MAX_CACHED = 50_000_000  # characters of the requests whose keys are kept

Requests = frozenset[Request]  # all that one answer asks for


class Values:
    """Keys of expressions: computed in children, cached over questions, failures counted.

    An answer's requests share one call and its deadline, so that an answer of a hundred slow values is as bounded as
    one of a single value. Where the call is lost, the answer is (`lost`): what it asked for stays unknown.
    counts: how many calls were computed, timed out, exhausted memory or failed.
    """

    def __init__(self, *, workers: int = 2, timeout_s: float = 1.0, memory_mb: int = 1024) -> None:
        self.pool = Workers(
            "east.grading.numeric:evaluate_all", count=workers, timeout_s=timeout_s, memory_mb=memory_mb
        )
        self.known: dict[Request, Key | None] = {}
        self.size = 0
        self.counts: Counter[str] = Counter()
        self.lost: set[Requests] = set()  # answers whose child had to be killed
        self.out_of_bounds: set[Request] = set()  # values too large to be computed

    def ask(self, answers: Iterable[Requests]) -> None:
        """Compute what is not known yet; answers: the requests of each."""
        unknown: dict[Requests, list[Requests]] = {}
        for requests in set(answers) - self.lost:
            if missing := requests.difference(self.known):
                unknown.setdefault(missing, []).append(requests)
        calls = {tuple(sorted(missing, key=order)): asked for missing, asked in unknown.items()}
        wanted = sorted(calls, key=order)
        for call, outcome in zip(wanted, self.pool.map(wanted), strict=True):
            self.counts[outcome.status] += 1
            if outcome.status == "ok":
                self._learn(call, outcome.value)
            else:
                self.lost.update(calls[call])
        self.size += sum(len(order(call)) for call in wanted)

    def _learn(self, call: tuple[Request, ...], values: list[Key | None]) -> None:
        for request, value in zip(call, values, strict=True):
            self.known[request] = None if value == OUT_OF_BOUNDS else value
            if value == OUT_OF_BOUNDS:
                self.out_of_bounds.add(request)

    def start(self) -> None:
        """Start the children before anything is asked, so that no deadline includes it."""
        self.pool.start()

    def forget(self) -> None:
        """Drop what is known once it has grown past its bound; called between questions."""
        if self.size > MAX_CACHED:
            self.known.clear()
            self.lost.clear()
            self.out_of_bounds.clear()
            self.size = 0

    def lookup(self, mode: str, tree: Tree) -> Key | None:
        return self.known.get((mode, tree))

    def close(self) -> None:
        self.pool.close()
