r"""Canonical typed keys: two answers have the same value exactly when they have the same key.

`answer_key` is the key of an answer, `tree_key` the key of a value's tree:
  ("number", Fraction)  ("big number", hash)  ("constant", re, im)  ("expression", spelling)
  ("function", values at fixed points)
  ("seq", opening, closing, key, ...)  tuple or interval    ("list", key, ...)  unordered, sorted
  ("union", ...)  ("ratio", ...)  ("matrix", ...)  ("equation", ...)  ("<", ...)  ("text", words)
  ("or", key, ...)  A or B    ("named", (name, key), ...)  x = 1, y = 2    ("named one", ...)  x = 1 or y = 2
  ("qualified", direction, ..., key)  5 miles north    ("intersection", ...) and ("without", ...) of what is no interval
Rational values are computed here, exactly and within bounds. All other values come from `lookup`: child processes
have computed them with `numeric`.
"""

from collections.abc import Callable
from typing import Any

from east.grading.mathematics import inequalities, intervals, matrices
from east.grading.mathematics.answer import Reading
from east.grading.mathematics.rational import exact
from east.grading.mathematics.tree import EMPTY, EVERYTHING, MINUS_INFINITY, PLUS_INFINITY, Tree, order, spell

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
        named = sorted(zip(reading.names, keys, strict=True), key=order)
        return ("named one", *named) if reading.tree[1] == "or" else ("named", *named)  # x = 1 or y = 2
    key = tree_key(reading.tree, lookup, ordered=ordered)
    directed = reading.qualifiers and not reading.stated
    return ("qualified", *sorted(reading.qualifiers), key) if directed else key


def tree_key(tree: Tree, lookup: Lookup, *, ordered: bool = False) -> Key:
    """The key of a tree. ordered: whether lists keep their order."""
    head = tree[0]
    if head in ("list", "set"):
        items = [k for item in tree[2 if head == "list" else 1 :] for k in _signs(item, lookup)]
        if head == "list" and tree[1] == "or" and all(k[0] in ("seq", "union") for k in items):
            return intervals.union(items)
        if head == "list" and tree[1] == "and" and any(item[0] == "rel" for item in tree[2:]):
            return intervals.intersection(items) or ("and", *sorted(items, key=order))
        if head == "set":
            return ("list", *sorted(set(items), key=order))
        one_of = head == "list" and tree[1] == "or" and all(item[0] == "sym" for item in tree[2:])  # A or B
        return ("or" if one_of else "list", *(items if ordered else sorted(items, key=order)))
    if head == "seq":
        plus, minus = _choose(tree, 1), _choose(tree, -1)
        both = [_sequence(plus, lookup)] + ([_sequence(minus, lookup)] if plus != minus else [])
        return both[0] if len(both) == 1 else ("list", *sorted(both, key=order))
    if head == "union":
        return intervals.union([tree_key(item, lookup) for item in tree[1:]])
    if head == "intersection":
        keys = [tree_key(item, lookup) for item in tree[1:]]
        return intervals.intersection(keys) or ("intersection", *sorted(keys, key=order))
    if head == "ratio":
        return ("ratio", *(tree_key(item, lookup) for item in tree[1:]))
    if head == "without":
        whole = EVERYTHING if tree[1] == ("sym", "\\mathbb{R}") else tree[1]
        return intervals.without(tree_key(whole, lookup), tree_key(tree[2], lookup))
    if head == "matrix":
        return ("matrix", *(("row", *(tree_key(entry, lookup) for entry in row)) for row in tree[1:]))
    if head == "rel":
        return _relation(tree, lookup)
    if head in ("base", "text"):
        return tree
    if tree[:2] == ("fn", "abs") and tree[2][0] == "matrix" and (value := matrices.determinant(tree[2])) is not None:
        return tree_key(value, lookup)
    if head in ("add", "neg", "mul", "div") and (whole := matrices.worked_out(tree)) is not None:
        return ("expression", spell(whole)) if whole[0] == "fn" else tree_key(whole, lookup)
    signs = _signs(tree, lookup)
    return signs[0] if len(signs) == 1 else ("list", *sorted(signs, key=order))


_SETS = {"list", "set", "seq", "union", "intersection", "ratio", "matrix", "rel", "base", "text", "without"}


def _signs(tree: Tree, lookup: Lookup) -> list[Key]:
    """The keys of an item: two if it contains ±, one otherwise."""
    if tree[0] in _SETS:
        return [tree_key(tree, lookup)]
    plus, minus = _choose(tree, 1), _choose(tree, -1)
    return [_expression(tree, lookup)] if plus == minus else [tree_key(plus, lookup), tree_key(minus, lookup)]


def _choose(tree: Tree, sign: int) -> Tree:
    """The tree with + (sign 1) or - (sign -1) for every ±, and the opposite for every ∓."""
    if tree[0] == "pm":
        left, right = _choose(tree[2], sign), _choose(tree[3], sign)
        signed = right if tree[1] == sign else ("neg", right)
        return signed if left == ("num", 0) else ("add", left, signed)
    return tuple(_choose(part, sign) if isinstance(part, tuple) else part for part in tree)


def _expression(tree: Tree, lookup: Lookup) -> Key:
    if tree in (PLUS_INFINITY, MINUS_INFINITY):
        return ("infinity", "-" if tree[0] == "neg" else "+")
    if tree == EMPTY:
        return intervals.NOTHING
    if (value := exact(tree)) is not None:
        return ("number", value)
    return lookup("value", tree) or ("expression", spell(tree))


def _sequence(tree: Tree, lookup: Lookup) -> Key:
    opening, closing, items = tree[1], tree[2], [tree_key(item, lookup) for item in tree[3:]]
    if len(items) == 2:  # no interval is closed at infinity
        opening = "(" if items[0][0] == "infinity" else opening
        closing = ")" if items[1][0] == "infinity" else closing
    return ("seq", opening, closing, *items)


def _relation(tree: Tree, lookup: Lookup) -> Key:
    operators, members = tree[1], tree[2:]
    if set(operators) <= {">", ">="}:  # rewritten with < and <=
        operators = tuple(operator.replace(">", "<") for operator in reversed(operators))
        members = members[::-1]
    if (solution := inequalities.solve(operators, members)) is not None:
        sets = [tree_key(one, lookup) for one in solution]
        if len(sets) == 1:
            return sets[0]
        if (both := intervals.intersection(sets)) is not None:
            return both
    if len(operators) == 1 and operators[0] in ("=", "!=", "<", "<="):
        difference = ("add", members[0], ("neg", members[1]))
        mode = "zero-set" if operators[0] in ("=", "!=") else "half-space"
        if (values := lookup(mode, difference)) is not None:
            return ("equation" if operators[0] == "=" else operators[0], *values)
    return ("expression", spell(("rel", operators, *members)))
