"""Sets of real numbers as keys: unions, intersections and differences of intervals and points.

A set is a key: ("seq", "(" or "[", ")" or "]", low, high) for an interval, ("list", point, ...) for points. Sets
whose ends are not known as real numbers are left as they are written.
"""

from fractions import Fraction
from math import inf
from typing import Any

from east.grading.mathematics.tree import EMPTY, order, spell

Key = tuple[Any, ...]
MAX_PIECES = 100  # intervals and points of a set; larger sets are not worked out
NOTHING: Key = ("expression", spell(EMPTY))
_OPPOSITE = {"(": "]", "[": ")", ")": "[", "]": "("}


class _Piece:
    """An interval with its ends as numbers, for comparing, and as keys."""

    def __init__(self, opening: str, closing: str, low: Key, high: Key) -> None:
        self.opening, self.closing, self.low, self.high = opening, closing, low, high

    @property
    def start(self) -> tuple[Fraction | float, bool]:
        """Sorts before every other start with fewer points."""
        return _real(self.low), self.opening == "("

    @property
    def end(self) -> tuple[Fraction | float, bool]:
        return _real(self.high), self.closing == "]"

    @property
    def empty(self) -> bool:
        low, high = _real(self.low), _real(self.high)
        return low > high or low == high and (self.opening, self.closing) != ("[", "]")

    def key(self) -> Key:
        return ("seq", self.opening, self.closing, self.low, self.high)


def union(keys: list[Key]) -> Key:
    """The union of sets: overlapping and adjacent intervals joined, points inside intervals dropped."""
    pieces = _pieces(keys)
    if pieces is None:
        return ("union", *sorted(keys, key=order))
    joined: list[_Piece] = []
    for piece in sorted(pieces, key=lambda piece: piece.start):
        if joined and _meet(joined[-1], piece):
            if piece.end > joined[-1].end:
                joined[-1] = _Piece(joined[-1].opening, piece.closing, joined[-1].low, piece.high)
        else:
            joined.append(piece)
    return _key(joined)


def intersection(keys: list[Key]) -> Key | None:
    """The intersection of sets; None if one of them is not known as intervals and points."""
    common: list[_Piece] | None = None
    for key in keys:
        pieces = _pieces([key])
        if pieces is None:
            return None
        common = pieces if common is None else [_overlap(a, b) for a in common for b in pieces]
        common = [piece for piece in common if not piece.empty]
    return _key(sorted(common or [], key=lambda piece: piece.start))


def without(whole: Key, removed: Key) -> Key:
    """A set without the members of another."""
    pieces, others = _pieces([whole]), _pieces([removed])
    if pieces is None or others is None:
        return ("without", whole, removed)
    for other in others:
        below = _Piece("(", _OPPOSITE[other.opening], ("infinity", "-"), other.low)
        above = _Piece(_OPPOSITE[other.closing], ")", other.high, ("infinity", "+"))
        parts = [_overlap(piece, side) for piece in pieces for side in (below, above)]
        pieces = [part for part in parts if not part.empty]
    return _key(sorted(pieces, key=lambda piece: piece.start))


def _overlap(one: _Piece, other: _Piece) -> _Piece:
    low, high = max(one, other, key=lambda piece: piece.start), min(one, other, key=lambda piece: piece.end)
    return _Piece(low.opening, high.closing, low.low, high.high)


def _pieces(keys: list[Key]) -> list[_Piece] | None:
    """The intervals and points of sets; None if a set is another, or an end is no real number."""
    pieces = []
    for key in keys:
        if key[0] == "seq" and len(key) == 5 and all(map(_is_end, key[3:])):
            pieces.append(_Piece(*key[1:]))
        elif key[0] in ("list", "union", "number"):
            key = ("list", key) if key[0] == "number" else key
            inner = _pieces(list(key[1:])) if key[0] == "union" else [_Piece("[", "]", p, p) for p in key[1:]]
            if inner is None or key[0] == "list" and not all(map(_is_real, key[1:])):
                return None
            pieces += inner
        else:
            return None
    return None if len(pieces) > MAX_PIECES or any(piece.empty for piece in pieces) else pieces


def _key(pieces: list[_Piece]) -> Key:
    """The key of disjoint pieces in order."""
    if not pieces:
        return NOTHING
    points = [piece.low for piece in pieces if piece.low == piece.high]
    keys = [piece.key() for piece in pieces if piece.low != piece.high]
    if points:
        keys.append(("list", *sorted(points, key=order)))
    return keys[0] if len(keys) == 1 else ("union", *sorted(keys, key=order))


def _meet(first: _Piece, second: _Piece) -> bool:
    """Whether there is no gap between an interval and one that starts later."""
    end, start = _real(first.high), _real(second.low)
    return start < end or start == end and (first.closing == "]" or second.opening == "[")


def _is_real(key: Key) -> bool:
    return bool(key[0] == "number" or key[0] == "constant" and key[2] == "0.0")


def _is_end(key: Key) -> bool:
    return key[0] == "infinity" or _is_real(key)


def _real(key: Key) -> Fraction | float:
    if key[0] == "infinity":
        return inf if key[1] == "+" else -inf
    return Fraction(key[1])
