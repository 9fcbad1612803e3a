r"""What an answer is to this program: a tree, and how trees are walked, spelled and sorted.

A tree is a nested tuple whose head names the node:
  ("num", Fraction)  ("sym", name)  ("const", "pi" | "e" | "i" | "oo")  ("text", words)
  ("add", a, ...)  ("mul", a, ...)  ("div", a, b)  ("pow", a, b)  ("neg", a)  ("fact", a)  ("pm", sign, a, b)
  ("fn", name, argument, ...)  with name sin, ..., ln, log (base, argument), root (degree, argument), abs,
                               floor, ceil, binom (n, k)
  ("seq", opening, closing, item, ...)  tuple or interval, brackets kept    ("set", item, ...)
  ("list", separators, item, ...)  separators: the connectives found, "," "and" "or"
  ("union", item, ...)  ("rel", operators, member, ...)  ("ratio", item, ...)  ("matrix", row, ...)
"""

from fractions import Fraction
from typing import Any

Tree = tuple[Any, ...]


def depth(tree: Tree) -> int:
    """Levels of nesting, counted without recursion."""
    deepest, waiting = 0, [(tree, 1)]
    while waiting:
        node, level = waiting.pop()
        deepest = max(deepest, level)
        waiting.extend((part, level + 1) for part in node if isinstance(part, tuple))
    return deepest


def symbols(tree: object) -> frozenset[str]:
    """The names of the free symbols of a tree."""
    if not isinstance(tree, tuple):
        return frozenset()
    if tree and tree[0] == "sym":
        return frozenset({tree[1]})
    return frozenset().union(*(symbols(part) for part in tree))


def order(item: Any) -> str:
    """What keys are sorted by."""
    if isinstance(item, tuple):
        return f"({' '.join(order(part) for part in item)})"
    return spell(item)


def spell(tree: Any) -> str:
    """A spelling of a tree in which the order of sums and products does not matter."""
    if isinstance(tree, Fraction):
        return f"{tree.numerator:x}/{tree.denominator:x}"  # decimal digits of large numbers are refused
    if not isinstance(tree, tuple):
        return str(tree)
    parts = [spell(part) for part in tree[1:]]
    return f"{tree[0]}({' '.join(sorted(parts) if tree[0] in ('add', 'mul') else parts)})" if tree else "()"
