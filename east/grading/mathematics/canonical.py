r"""Canonical typed keys: two answers have the same value exactly when they have the same key.

`answer_key` is the key of an answer, `tree_key` the key of a value's tree:
  ("number", Fraction)  ("big number", hash)  ("constant", re, im)  ("expression", spelling)
  ("function", values at fixed points)
  ("seq", opening, closing, key, ...)  tuple or interval    ("list", key, ...)  unordered, sorted
  ("union", ...)  ("ratio", ...)  ("matrix", ...)  ("equation", ...)  ("<", ...)  ("text", words)
Rational values are computed here, exactly and within bounds. All other values come from `lookup`: child processes
have computed them with `numeric`.
"""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

from east.grading.mathematics.rational import exact
from east.grading.mathematics.reading import EVERYTHING, Reading, is_name
from east.grading.mathematics.tree import Tree, order, spell, symbols

Key = tuple[Any, ...]
Lookup = Callable[[str, Tree], Key | None]  # (mode, tree) -> key; the modes are those of `numeric.evaluate`


def answer_key(reading: Reading, lookup: Lookup, *, ordered: bool = False) -> Key:
    """The key of an answer. Names, units, currency and percent signs are not part of it.

    ordered: whether lists keep their order.
    """
    if reading.tree is None:
        return ("text", reading.plain)
    if reading.relation is not None:
        return tree_key(reading.relation, lookup, ordered=ordered)
    if len(reading.names) == 1 and reading.tree[0] == "rel" and "(" in reading.names[0]:
        return ("named", (reading.names[0], tree_key(reading.tree, lookup)))  # f(x) < 3 is not x < 3
    if len(reading.names) > 1:
        keys = [tree_key(item, lookup) for item in reading.tree[2:]]
        return ("named", *sorted(zip(reading.names, keys, strict=True), key=order))
    halves = reading.units & {"am", "pm"}
    key = tree_key(reading.tree, lookup, ordered=ordered)
    return ("time", *sorted(halves), key) if halves else key


def tree_key(tree: Tree, lookup: Lookup, *, ordered: bool = False) -> Key:
    """The key of a tree. ordered: whether lists keep their order."""
    head = tree[0]
    if head in ("list", "set"):
        items = [k for item in tree[2 if head == "list" else 1 :] for k in _signs(item, lookup)]
        if head == "list" and tree[1] == "or" and all(k[0] in ("seq", "union") for k in items):
            return ("union", *sorted(items, key=order))
        if head == "list" and tree[1] == "and" and any(item[0] == "rel" for item in tree[2:]):
            return _both(items) or ("and", *sorted(items, key=order))
        return ("list", *(items if ordered else sorted(items, key=order)))
    if head == "seq":
        return _sequence(tree, lookup)
    if head in ("union", "ratio"):
        keys = [tree_key(item, lookup) for item in tree[1:]]
        return (head, *(sorted(keys, key=order) if head == "union" else keys))
    if head == "without":
        whole = EVERYTHING if tree[1] == ("sym", "\\mathbb{R}") else tree[1]
        return _without(tree_key(whole, lookup), tree_key(tree[2], lookup))
    if head == "matrix":
        return ("matrix", *(("row", *(tree_key(entry, lookup) for entry in row)) for row in tree[1:]))
    if head == "rel":
        return _relation(tree, lookup)
    if head in ("base", "text"):
        return tree
    if (spread := _spread(tree)) is not None:
        return tree_key(spread, lookup)
    signs = _signs(tree, lookup)
    return signs[0] if len(signs) == 1 else ("list", *sorted(signs, key=order))


def _signs(tree: Tree, lookup: Lookup) -> list[Key]:
    """The keys of an item: two if it contains ±, one otherwise."""
    if tree[0] in ("list", "set", "seq", "union", "ratio", "matrix", "rel", "base", "text", "without"):
        return [tree_key(tree, lookup)]
    plus, minus = _choose(tree, 1), _choose(tree, -1)
    return [_expression(plus, lookup)] + ([_expression(minus, lookup)] if plus != minus else [])


def _choose(tree: Tree, sign: int) -> Tree:
    """The tree with + (sign 1) or - (sign -1) for every ±, and the opposite for every ∓."""
    if tree[0] == "pm":
        left, right = _choose(tree[2], sign), _choose(tree[3], sign)
        return ("add", left, right if tree[1] == sign else ("neg", right))
    return tuple(_choose(part, sign) if isinstance(part, tuple) else part for part in tree)


def _expression(tree: Tree, lookup: Lookup) -> Key:
    if tree in (("const", "oo"), ("neg", ("const", "oo"))):
        return ("infinity", "-" if tree[0] == "neg" else "+")
    if (value := exact(tree)) is not None:
        return ("number", value)
    return lookup("value", tree) or ("expression", spell(tree))


def _sequence(tree: Tree, lookup: Lookup) -> Key:
    opening, closing, items = tree[1], tree[2], [tree_key(item, lookup) for item in tree[3:]]
    if len(items) == 2:  # no interval is closed at infinity
        opening = "(" if items[0][0] == "infinity" else opening
        closing = ")" if items[1][0] == "infinity" else closing
    return ("seq", opening, closing, *items)


def _spread(tree: Tree) -> Tree | None:
    """A scalar times a matrix (or its negative, or a matrix over a scalar) as a matrix; None for other trees."""
    matrices = [part for part in tree[1:] if isinstance(part, tuple) and part and part[0] == "matrix"]
    divided_by = tree[0] == "div" and tree[2] in matrices
    if tree[0] not in ("mul", "div", "neg") or len(matrices) != 1 or divided_by:
        return None

    def inside(entry: Tree) -> Tree:
        return (tree[0], *(entry if part is matrices[0] else part for part in tree[1:]))

    return ("matrix", *(tuple(inside(entry) for entry in row) for row in matrices[0][1:]))


def _both(items: list[Key]) -> Key | None:
    """The keys of x > 1 and x < 2 as the key of the interval (1, 2); None for other keys."""
    if len(items) != 2 or any(item[0] != "seq" or len(item) != 5 for item in items):
        return None
    low, high = sorted(items, key=lambda item: item[3] == ("infinity", "-"))
    if low[4] != ("infinity", "+") or high[3] != ("infinity", "-") or {low[3][0], high[4][0]} != {"number"}:
        return None
    return ("seq", low[1], high[2], low[3], high[4]) if low[3][1] < high[4][1] else None


def _without(interval: Key, points: Key) -> Key:
    """The key of an interval without some of its inner points: a union."""
    removed = list(points[1:]) if points[0] == "list" else [points]
    if interval[0] == "seq" and len(interval) == 5 and all(point[0] == "number" for point in removed):
        low, high = interval[3:]
        ends = {"number", "infinity"}
        inside = all(
            (low[0] == "infinity" or low[1] < point[1]) and (high[0] == "infinity" or point[1] < high[1])
            for point in removed
        )
        if low[0] in ends and high[0] in ends and inside:
            bounds = [low, *sorted(set(removed)), high]
            openings = [interval[1], *"(" * len(bounds[2:])]
            closings = [*")" * len(bounds[2:]), interval[2]]
            pieces = [("seq", *piece) for piece in zip(openings, closings, bounds[:-1], bounds[1:], strict=True)]
            return ("union", *sorted(pieces, key=order))
    return ("without", interval, points)


def _relation(tree: Tree, lookup: Lookup) -> Key:
    operators, members = tree[1], tree[2:]
    if set(operators) <= {">", ">="}:  # rewritten with < and <=
        operators = tuple(operator.replace(">", "<") for operator in reversed(operators))
        members = members[::-1]
    interval = _interval(operators, members)
    if interval is not None:
        return tree_key(interval, lookup)
    if len(operators) == 1 and operators[0] in ("=", "!=", "<", "<="):
        difference = ("add", members[0], ("neg", members[1]))
        mode = "zero-set" if operators[0] in ("=", "!=") else "half-space"
        if (values := lookup(mode, difference)) is not None:
            return ("equation" if operators[0] == "=" else operators[0], *values)
    return ("expression", spell(("rel", operators, *members)))


def _interval(operators: tuple[str, ...], members: tuple[Tree, ...]) -> Tree | None:
    """The interval of "x <= 2", "-2 < x <= 7", "-x > -1"; None if the relation has none."""
    if not set(operators) <= {"<", "<="} or len(operators) > 2:
        return None
    free = [member for member in members if symbols(member)]
    if len(free) != 1:
        return None
    place = members.index(free[0])
    if is_name(free[0]):
        low = members[place - 1] if place else ("neg", ("const", "oo"))
        high = members[place + 1] if place + 1 < len(members) else ("const", "oo")
        opening = "[" if place and operators[place - 1] == "<=" else "("
        closing = "]" if place < len(operators) and operators[place] == "<=" else ")"
        return ("seq", opening, closing, low, high) if len(members) == 2 or place == 1 else None
    if len(members) > 2 or len(symbols(free[0])) > 1:
        return None
    return _solve_linear(operators[0], ("add", members[0], ("neg", members[1])))


def _solve_linear(operator: str, difference: Tree) -> Tree | None:
    """The interval of a x + b < 0 with rational a and b; None for other functions of x."""
    (name,) = symbols(difference)
    at = [exact(difference, {name: Fraction(point)}) for point in (0, 1, 2)]
    values = [value for value in at if value is not None]
    if len(values) < 3 or values[2] - values[1] != values[1] - values[0] or values[1] == values[0]:
        return None
    root: Tree = ("num", -values[0] / (values[1] - values[0]))
    if values[1] > values[0]:
        return ("seq", "(", "]" if operator == "<=" else ")", ("neg", ("const", "oo")), root)
    return ("seq", "[" if operator == "<=" else "(", ")", root, ("const", "oo"))
