"""Inequalities as sets, and unions, intersections and differences of sets: against membership at many points."""

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from east.grading.mathematics import intervals
from east.grading.mathematics.canonical import Key, answer_key
from east.grading.mathematics.reading import read

POINTS = [Fraction(n, 4) for n in range(-60, 61)]
small = st.integers(-5, 5)


def key(answer: str) -> Key:
    """The key without symbolic values."""
    return answer_key(read(answer), lambda mode, tree: None)


def number(value: int | str) -> Key:
    return ("number", Fraction(value))


LOW: Key = ("infinity", "-")
HIGH: Key = ("infinity", "+")


def contains(solution: Key, x: Fraction) -> bool:
    """Whether x is in the set of a key."""
    if solution[0] == "union":
        return any(contains(part, x) for part in solution[1:])
    if solution[0] == "list":
        return ("number", x) in solution[1:]
    assert solution[0] in ("seq", "expression"), solution
    if solution[0] == "expression":
        assert "emptyset" in solution[1]
        return False
    low = None if solution[3][0] == "infinity" else solution[3][1]
    high = None if solution[4][0] == "infinity" else solution[4][1]
    above = low is None or x > low or (x == low and solution[1] == "[")
    below = high is None or x < high or (x == high and solution[2] == "]")
    return above and below


@pytest.mark.parametrize(
    ("answer", "solution"),
    [
        ("x < 2", ("seq", "(", ")", LOW, number(2))),
        ("-2x >= 6", ("seq", "(", "]", LOW, number(-3))),
        ("|x-5| < 3", ("seq", "(", ")", number(2), number(8))),
        (r"|2x-4| \le 6", ("seq", "[", "]", number(-1), number(5))),
        ("3|x+1| - 2 < 4", ("seq", "(", ")", number(-3), number(1))),
        (r"|x| \le 0", ("list", number(0))),
        (r"|x-7| \ge 0", ("seq", "(", ")", LOW, HIGH)),
        (r"|x| > 2", ("union", ("seq", "(", ")", LOW, number(-2)), ("seq", "(", ")", number(2), HIGH))),
        ("1 < 2x+1 < 5", ("seq", "(", ")", number(0), number(2))),
        ("5 >= 1-x > 2", ("seq", "[", ")", number(-4), number(-1))),
        (r"(1,2]\cup[2,3)", ("seq", "(", ")", number(1), number(3))),
        (r"[1,2)\cup\{2\}", ("seq", "[", "]", number(1), number(2))),
        (r"(-\infty,1)\cup(-1,\infty)", ("seq", "(", ")", LOW, HIGH)),
        (r"\{3\}\cup(2,4)", ("seq", "(", ")", number(2), number(4))),
    ],
)
def test_solutions_worked_out_by_hand(answer: str, solution: Key) -> None:
    assert key(answer) == solution


@pytest.mark.parametrize(
    "answer",
    ["x^2 < 4", "x^3-3x^2+3x < 5", r"\lfloor x\rfloor < 2", "|x|+|x-1| < 3", "|x|+x < 3", r"\sqrt{x} < 2", "x^x > 1",
     "||x|-1| < 2", "|x^2-1| < 3", "1/x < 2", "|x| < y"],
)  # fmt: skip
def test_other_inequalities_are_no_sets(answer: str) -> None:
    """Without symbolic values they are compared as they are written."""
    assert key(answer)[0] == "expression"


@given(a=small, b=small, c=small, sign=st.sampled_from(["<", "<=", ">", ">="]), absolute=st.booleans(), scale=small)
def test_a_solution_contains_the_points_at_which_the_inequality_holds(
    a: int, b: int, c: int, sign: str, absolute: bool, scale: int
) -> None:
    if a == 0 or scale == 0:
        return
    inner = f"|{a}x + {b}|" if absolute else f"({a}x + {b})"
    solution = key(f"{scale}{inner} {sign} {c}")
    for x in POINTS:
        value = scale * (abs(a * x + b) if absolute else a * x + b)
        holds = {"<": value < c, "<=": value <= c, ">": value > c, ">=": value >= c}[sign]
        assert contains(solution, x) == holds, x


def piece(ends: tuple[int, int], opening: str, closing: str) -> Key:
    return ("seq", opening, closing, number(min(ends)), number(max(ends) + 1))


pieces = st.builds(piece, st.tuples(small, small), st.sampled_from("(["), st.sampled_from(")]"))


@given(st.lists(pieces, min_size=1, max_size=5), small)
def test_unions_intersections_and_differences_keep_their_points(parts: list[Any], point: int) -> None:
    union, both = intervals.union(parts), intervals.intersection(parts)
    less = intervals.without(union, number(point))
    for x in POINTS:
        inside = [contains(part, x) for part in parts]
        assert contains(union, x) == any(inside)
        assert (both is not None and contains(both, x)) == all(inside)
        if less[0] != "without":
            assert contains(less, x) == (any(inside) and x != point)
    assert intervals.union(parts[::-1]) == union, "one key for one set"
