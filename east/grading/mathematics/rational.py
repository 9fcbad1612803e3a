"""Exact rational values of trees, computed within bounds that keep every computation short."""

from fractions import Fraction
from math import gcd, isqrt, lcm, prod

from flint import fmpz

from east.grading.mathematics.tree import Tree

MAX_BITS = 2_000  # of a numerator or denominator: an operation takes microseconds; child processes go further
MAX_ROOT_BITS = 1_000


def exact(tree: Tree, *, max_bits: int = MAX_BITS) -> Fraction | None:
    """The rational value of a tree without symbols; None if it has none of at most max_bits."""
    head = tree[0]
    if head == "num":
        assert isinstance(tree[1], Fraction)
        return tree[1]
    if head not in ("add", "mul", "div", "neg", "pow", "fact", "fn"):
        return None
    values: list[Fraction] = []
    for part in tree[2 if head == "fn" else 1 :]:
        value = exact(part, max_bits=max_bits)
        if value is None:
            return None
        values.append(value)
    result: Fraction | None = values[0]
    if tree[1] in ("max", "min"):
        return max(values) if tree[1] == "max" else min(values)
    if tree[1] in ("gcd", "lcm"):
        common = gcd if tree[1] == "gcd" else lcm
        return Fraction(common(*map(int, values))) if all(value.denominator == 1 for value in values) else None
    if head in ("add", "mul"):
        for value in values[1:]:
            assert result is not None
            result = result + value if head == "add" else result * value
            if _bits(result) > max_bits:
                return None
    else:
        result = _apply(tree[1] if head == "fn" else head, values[0], values[-1], max_bits)
    return result if result is not None and _bits(result) <= max_bits else None


def _bits(value: Fraction) -> int:
    return max(value.numerator.bit_length(), value.denominator.bit_length())


def _apply(name: str, a: Fraction, b: Fraction, max_bits: int) -> Fraction | None:
    """The value of an operation on a and b; for an operation on one number, b is a."""
    whole = a.denominator == b.denominator == 1
    if name == "neg":
        return -a
    if name == "div":
        return a / b if b else None
    if name == "pow":
        return _power(a, b, max_bits)
    if name == "mod":
        return a % b if b else None
    if name == "root":
        return _root(b, a)
    if name == "abs":
        return abs(a)
    if name in ("floor", "ceil"):
        return Fraction(a.__floor__() if name == "floor" else a.__ceil__())
    if name == "fact" and whole and 0 <= a <= max_bits and a * int(a).bit_length() <= max_bits:
        return Fraction(int(fmpz.fac_ui(fmpz(int(a)))))
    if name == "double factorial" and whole and 0 <= a <= max_bits and a * int(a).bit_length() <= 2 * max_bits:
        return Fraction(prod(range(int(a), 0, -2)))
    if name == "binom" and whole and 0 <= b <= a <= max_bits:
        return Fraction(int(fmpz.bin_uiui(int(a), int(b))))
    return None


def _power(base: Fraction, exponent: Fraction, max_bits: int) -> Fraction | None:
    if exponent.denominator != 1:
        powered = _power(base, Fraction(exponent.numerator), max_bits)
        return None if powered is None else _root(powered, Fraction(exponent.denominator))
    if base == 0:
        return Fraction(int(exponent == 0)) if exponent >= 0 else None
    if abs(base) == 1:
        return base ** int(exponent % 2)
    return base ** int(exponent) if abs(exponent) * (_bits(base) - 1) <= max_bits else None


def _root(value: Fraction, degree: Fraction) -> Fraction | None:
    """The real root if it is rational."""
    if degree.denominator != 1 or not 2 <= degree <= 12 or _bits(value) > MAX_ROOT_BITS:
        return None
    if value < 0 and degree % 2 == 0:
        return None
    parts = [_integer_root(abs(part), int(degree)) for part in (value.numerator, value.denominator)]
    if parts[0] is None or parts[1] is None:
        return None
    return Fraction(parts[0], parts[1]) * (-1 if value < 0 else 1)


def _integer_root(value: int, degree: int) -> int | None:
    if degree == 2:
        root = isqrt(value)
    else:
        low, high = 0, 1 << (value.bit_length() // degree + 1)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if middle**degree <= value else (low, middle - 1)
        root = low
    return root if root**degree == value else None
