"""Equations and inequalities in one variable, solved exactly where they are linear or linear in one absolute value.

x < 2, -2 < x <= 7, 1 < 2x + 1 < 5, -x >= -1, |x - 5| < 3, 2|x| >= 4. All others (polynomials, floors, several absolute
values) have no set here: `canonical` compares them as inequalities.
"""

from fractions import Fraction

from east.grading.mathematics.rational import exact
from east.grading.mathematics.tree import (
    EMPTY,
    EVERYTHING,
    MINUS_INFINITY,
    PLUS_INFINITY,
    Tree,
    is_variable,
    symbols,
)


def solve(operators: tuple[str, ...], members: tuple[Tree, ...]) -> tuple[Tree, ...] | None:
    """The sets whose intersection solves a relation of "<" and "<="; None for other relations.

    A chain has one set for each of its signs. Only one member may have a variable.
    """
    free = [place for place, member in enumerate(members) if symbols(member)]
    solvable = len(members) == 2 and len(free) == 1 or len(members) == 3 and free == [1]  # a < x, x < b, a < x < b
    if not set(operators) <= {"<", "<="} or not solvable:
        return None
    sets = [_solve_one(operator, *members[place : place + 2]) for place, operator in enumerate(operators)]
    return tuple(one for one in sets if one is not None) if None not in sets else None


def root(left: Tree, right: Tree) -> Tree | None:
    """The x of an equation that is linear in its one variable, with rational coefficients; None for others."""
    difference = ("add", left, ("neg", right))
    linear = _linear(difference) if len(symbols(difference)) == 1 else None
    return ("num", -linear[1] / linear[0]) if linear and linear[0] else None


def _solve_one(operator: str, left: Tree, right: Tree) -> Tree | None:
    """The set of left < right or left <= right."""
    if is_variable(left):
        return ("seq", "(", "]" if operator == "<=" else ")", MINUS_INFINITY, right)
    if is_variable(right):
        return ("seq", "[" if operator == "<=" else "(", ")", left, PLUS_INFINITY)
    difference = ("add", left, ("neg", right))
    names, absolute = symbols(difference), _absolutes(difference)
    if len(names) != 1 or len(absolute) > 1:
        return None
    if not absolute:
        linear = _linear(difference)
        return _below(operator, *linear) if linear and linear[0] else None
    (inner,) = absolute
    argument, linear = _linear(inner[2]), _linear(_replaced(difference, inner))
    if argument is None or linear is None or not argument[0] or not linear[0]:
        return None
    return _absolute_below(operator, argument, *linear)


def _below(operator: str, slope: Fraction, offset: Fraction) -> Tree:
    """The interval of slope x + offset < 0."""
    root: Tree = ("num", -offset / slope)
    if slope > 0:
        return ("seq", "(", "]" if operator == "<=" else ")", MINUS_INFINITY, root)
    return ("seq", "[" if operator == "<=" else "(", ")", root, PLUS_INFINITY)


def _absolute_below(operator: str, argument: tuple[Fraction, Fraction], slope: Fraction, offset: Fraction) -> Tree:
    """The set of slope |a x + b| + offset < 0; argument: (a, b)."""
    a, b = argument
    bound = -offset / slope
    low, high = sorted(((-bound - b) / a, (bound - b) / a))
    opening, closing = ("[", "]") if operator == "<=" else ("(", ")")
    if slope > 0:  # |a x + b| < bound
        if bound > 0:
            return ("seq", opening, closing, ("num", low), ("num", high))
        return ("set", ("num", low)) if bound == 0 and operator == "<=" else EMPTY
    if bound < 0 or bound == 0 and operator == "<=":  # |a x + b| > bound
        return EVERYTHING
    below = ("seq", "(", closing, MINUS_INFINITY, ("num", low))
    return ("union", below, ("seq", opening, ")", ("num", high), PLUS_INFINITY))


def _linear(tree: Tree) -> tuple[Fraction, Fraction] | None:
    """(slope, offset) of a tree that is linear in its one variable, with rational coefficients; None for others."""
    if not symbols(tree):
        value = exact(tree)
        return None if value is None else (Fraction(0), value)
    head = tree[0]
    if head == "sym":
        return Fraction(1), Fraction(0)
    if head not in ("add", "neg", "mul", "div"):
        return None
    parts = [_linear(part) for part in tree[1:]]
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    if head in ("add", "neg"):
        sign = -1 if head == "neg" else 1
        slopes, offsets = zip(*known, strict=True)
        return sign * sum(slopes, Fraction(0)), sign * sum(offsets, Fraction(0))
    if head == "div":
        (slope, offset), (variable, divisor) = known
        return None if variable or not divisor else (slope / divisor, offset / divisor)
    slope, offset = Fraction(0), Fraction(1)
    for variable, factor in known:
        if slope and variable:
            return None
        slope, offset = slope * factor + offset * variable, offset * factor
    return slope, offset


def _absolutes(tree: Tree) -> set[Tree]:
    """The outermost absolute values of a variable in a tree."""
    if tree[:2] == ("fn", "abs") and symbols(tree):
        return {tree}
    return set().union(*(_absolutes(part) for part in tree if isinstance(part, tuple)))


def _replaced(tree: Tree, inner: Tree) -> Tree:
    """The tree with an absolute value as its variable. Another variable beside it makes it non-linear."""
    if tree == inner:
        return ("sym", "|")
    if tree[0] == "sym":
        return ("pow", tree, ("num", Fraction(2)))
    return tuple(_replaced(part, inner) if isinstance(part, tuple) else part for part in tree)
