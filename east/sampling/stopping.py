"""The stopping rule of `sampling.adaptive`: whether the entropy of a question is known well enough."""

from collections.abc import Iterable, Iterator

from east.grading import Grading, grade
from east.sampling.draw import Settled
from east.sampling.samples import SampledQuestion
from east.weighting import entropy


def stopping_rule(tolerance: float, grading: Grading) -> Settled:
    """A function that says for each question whether its responses are enough, graded as `east grade` grades them.

    tolerance: in nats, see `entropy.settled`.
    """

    def settled(rows: Iterable[SampledQuestion]) -> Iterator[bool]:
        for graded in grade(rows, grading):
            yield entropy.settled([cluster["count"] for cluster in graded["clusters"]], tolerance)

    return settled
