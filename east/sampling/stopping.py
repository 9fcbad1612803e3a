"""The stopping rule of `sampling.adaptive`: is a question's entropy settled?"""

from collections.abc import Iterable, Iterator

from east.grading import Grading, grade
from east.sampling.draw import Settled
from east.sampling.samples import SampledQuestion
from east.weighting import entropy


def stopping_rule(tolerance: float, grading: Grading) -> Settled:
    """A function that says of each row whether its responses, graded as `east grade` will grade them, are enough.

    tolerance: see `entropy.settled`.
    """

    def settled(rows: Iterable[SampledQuestion]) -> Iterator[bool]:
        for graded in grade(rows, grading):
            yield entropy.settled([cluster["count"] for cluster in graded["clusters"]], tolerance)

    return settled
