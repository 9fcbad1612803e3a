"""A parsed answer."""

from typing import NamedTuple, Optional

from east.grading.mathematics.tree import Tree


class Reading(NamedTuple):
    """A parsed answer: the tree of its value, and what was written around the value."""

    plain: str  # normalised text
    tree: Tree | None = None  # the value; None for words and for text outside the grammar
    names: tuple[str, ...] = ()  # x of "x = 3" and of "x < 3"; x and y of "x = 3, y = 4"
    relation: Tree | None = None  # the whole equation "y = 2x + 3", whose tree is 2x + 3
    units: frozenset[str] = frozenset()
    qualifiers: frozenset[str] = frozenset()  # words that give the number a direction: north, profit, pm
    stated: bool = False  # the value is that of a sentence: its other words can contradict, but make no other value
    percent: bool = False
    decimal: str | None = None  # the answer as written, if it is a number with a decimal point
    evaluated: bool = True  # written as a value, not as a calculation
    out_of_bounds: bool = False  # too long, too deep or with too many digits to be parsed
    measure: Optional["Reading"] = None  # "5 m" as 5 metres; its tree is the product
    others: tuple["Reading", ...] = ()  # compared with the gold only: 5 for "5m", 2.5 for "2,5", 10:00 for "10 am"
