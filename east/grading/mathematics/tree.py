r"""The tree of an answer: a nested tuple whose first item names the node.

("num", Fraction)  ("sym", name)  ("const", "pi" | "e" | "i" | "oo")  ("text", words)
("add", a, ...)  ("mul", a, ...)  ("div", a, b)  ("pow", a, b)  ("neg", a)  ("fact", a)  ("pm", sign, a, b)
("fn", name, argument, ...)  with name sin, ..., ln, log (base, argument), root (degree, argument), abs,
                             floor, ceil, binom (n, k), gcd, lcm, max, min, mod and pmod (a, m), cross (a, b),
                             product (of matrices, where it is not defined), double factorial
("seq", opening, closing, item, ...)  tuple or interval, brackets as written    ("set", item, ...)
("list", separators, item, ...)  separators: the connectives used, of "," "and" "or"
("union", item, ...)  ("intersection", item, ...)  ("without", item, item)  a set difference    ("base", digits, base)
("rel", operators, member, ...)  ("ratio", item, ...)  ("matrix", row, ...)
"""

from fractions import Fraction
from typing import Any

Tree = tuple[Any, ...]

PLUS_INFINITY: Tree = ("const", "oo")
MINUS_INFINITY: Tree = ("neg", PLUS_INFINITY)
EVERYTHING: Tree = ("seq", "(", ")", MINUS_INFINITY, PLUS_INFINITY)
EMPTY: Tree = ("sym", "\\emptyset")


def depth(tree: Tree) -> int:
    """Levels of nesting, counted without recursion."""
    deepest, waiting = 0, [(tree, 1)]
    while waiting:
        node, level = waiting.pop()
        deepest = max(deepest, level)
        waiting.extend((part, level + 1) for part in node if isinstance(part, tuple))
    return deepest


def is_larger(tree: Tree, nodes: int) -> bool:
    """Whether a tree has more nodes than a number, counted up to it."""
    count, waiting = 0, [tree]
    while waiting and count <= nodes:
        node = waiting.pop()
        count += 1
        waiting.extend(part for part in node if isinstance(part, tuple))
    return count > nodes


def symbols(tree: object) -> frozenset[str]:
    """The names of the free symbols of a tree."""
    if not isinstance(tree, tuple):
        return frozenset()
    if tree and tree[0] == "sym":
        return frozenset({tree[1]})
    return frozenset().union(*(symbols(part) for part in tree))


def is_variable(tree: Tree) -> bool:
    """Whether a tree stands for one number: x, a_n, f(x), and the segment AB."""
    if tree[0] == "mul":
        return all(part[0] == "sym" and part[1].isupper() for part in tree[1:])
    return bool(tree[0] == "sym")


def substituted(tree: Tree, name: Tree, value: Tree) -> Tree:
    """The tree with a value for a name."""
    if tree == name:
        return value
    return tuple(substituted(part, name, value) if isinstance(part, tuple) else part for part in tree)


def order(item: Any) -> str:
    """The text by which keys and trees are sorted."""
    if isinstance(item, tuple):
        return f"({' '.join(order(part) for part in item)})"
    return spell(item)


def spell(tree: Any) -> str:
    """A tree as text that does not depend on the order of terms and factors."""
    if isinstance(tree, Fraction):
        return f"{tree.numerator:x}/{tree.denominator:x}"  # hexadecimal: Python limits the length of decimal numbers
    if not isinstance(tree, tuple):
        return str(tree)
    parts = [spell(part) for part in tree[1:]]
    unordered = tree[:1] in (("add",), ("mul",)) or tree[:2] in (("fn", "max"), ("fn", "min"))
    return f"{tree[0]}({' '.join(sorted(parts) if unordered else parts)})" if tree else "()"
