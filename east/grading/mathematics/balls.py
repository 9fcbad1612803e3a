"""The value of an expression in ball arithmetic: digits with a certified bound of their error (Arb, in FLINT).

The precision is that of `flint.ctx`. A value whose error is too large to say anything is not finite.
"""

import functools
from collections.abc import Callable
from fractions import Fraction
from math import log10

from flint import acb, arb, fmpq

from east.grading.mathematics.rational import exact
from east.grading.mathematics.tree import Tree

DIGITS = 40  # significant digits that make two values equal
EXPONENT_OF_ZERO = -(10**6)  # below that of any value that is told from 0
TINY = arb(10) ** -20  # a value next to which cosh(x) and x^0 cannot be told from 1, and sin(x) from x


class Undefined(ArithmeticError):
    """The expression has no value at this point."""


class TooLarge(ArithmeticError):
    """The expression's value is too large to be computed."""


def exponent_of(value: acb | arb) -> int:
    """The decimal exponent of a value's size; very negative for 0."""
    size = abs(value).mid()
    if size.is_zero():
        return EXPONENT_OF_ZERO
    mantissa, exponent = size.man_exp()
    return int((int(exponent) + int(mantissa).bit_length()) * log10(2))


def rational(value: Fraction) -> fmpq:
    """A fraction as FLINT's."""
    return fmpq(value.numerator, value.denominator)


def value_of(tree: Tree, at: dict[str, Fraction], complex_values: bool) -> acb:
    """The value of a tree at the current precision; not finite where more digits are needed.

    at: the values of its symbols. complex_values: whether even roots and logarithms of negative values are complex or
    raise Undefined. Raises TooLarge for powers and arguments beyond the bounds.
    """
    head = tree[0]
    if head == "num":
        return acb(rational(tree[1]))
    if head == "sym":
        return acb(rational(at[tree[1]]))
    if head == "const":
        if tree[1] == "oo":
            raise Undefined("infinity")
        return acb.pi() if tree[1] == "pi" else acb(0, 1) if tree[1] == "i" else acb(1).exp()
    if head not in ("add", "mul", "div", "neg", "pow", "fact", "fn"):
        raise Undefined(f"{head} has no numeric value")
    terms = tree[2 if head == "fn" else 1 :]
    parts = [value_of(term, at, complex_values) for term in terms]
    if head == "add":
        return _sum(_without_opposites(terms, parts))
    if head == "mul":
        product = parts[0]
        for part in parts[1:]:
            product *= part
        return product
    if head == "div":
        return parts[0] / parts[1]
    if head == "neg":
        return -parts[0]
    if head == "pow":
        return _power(tree, parts[0], parts[1], complex_values)
    return _function("fact" if head == "fact" else tree[1], parts, complex_values)


def _without_opposites(terms: tuple[Tree, ...], parts: list[acb]) -> list[acb]:
    """The values of a sum's terms without those of x and -x, whose difference may need too many digits.

    Raises Undefined if there is such a pair and a term has no value.
    """
    left = dict(enumerate(terms))
    for place, term in enumerate(terms):
        opposite = next((other for other, x in left.items() if term == ("neg", x)), None)
        if opposite is not None and place in left:
            del left[place], left[opposite]
    if len(left) < len(terms) and not all(part.is_finite() for part in parts):
        raise Undefined("a term has no value")
    return [parts[place] for place in left] or [acb(0)]


def _sum(parts: list[acb]) -> acb:
    if not all(part.is_finite() for part in parts):  # 1 / sin(pi): more digits, or no value
        return acb("nan")
    sizes = [abs(part) for part in parts if not part.is_zero()]
    largest = max((exponent_of(size) for size in sizes), default=0)
    if any(exponent_of(size) < largest - DIGITS for size in sizes if not size.contains(0)):
        raise Undefined("a term is too small next to another")
    total = parts[0]
    for part in parts[1:]:
        total += part
    return total


def _power(tree: Tree, base: acb, exponent: acb, complex_values: bool) -> acb:
    if base.is_zero():
        return base if exponent.real > 0 else base**exponent
    change = abs(exponent) * abs(abs(base).log())
    if change > 1e8:
        raise TooLarge("a power")
    if change < TINY and not change.contains(0):
        raise Undefined("a power is too close to 1")
    power = exact(tree[2])
    if power is None or power.denominator == 1 or not (base.imag.is_zero() and base.real < 0):
        return base**exponent
    return _real_root(base, power, complex_values)


def _real_root(value: acb, power: Fraction, complex_values: bool) -> acb:
    """(-8)^(1/3) is -2. An even root of a negative number is complex or undefined."""
    if power.denominator % 2:
        size = (-value) ** acb(rational(power))
        return -size if power.numerator % 2 else size
    if not complex_values:
        raise Undefined("even root of a negative value")
    return value ** acb(rational(power))


_FUNCTIONS: dict[str, Callable[[acb], acb]] = {
    "sin": acb.sin, "cos": acb.cos, "tan": acb.tan, "cot": acb.cot, "sec": acb.sec, "csc": acb.csc,
    "sinh": acb.sinh, "cosh": acb.cosh, "tanh": acb.tanh, "coth": acb.coth, "sech": acb.sech, "csch": acb.csch,
    "arcsin": acb.asin, "arccos": acb.acos, "arctan": acb.atan, "arccot": lambda x: (1 / x).atan(),
    "arcsec": lambda x: (1 / x).acos(), "arccsc": lambda x: (1 / x).asin(),
    "arcsinh": acb.asinh, "arccosh": acb.acosh, "arctanh": acb.atanh, "arccoth": lambda x: (1 / x).atanh(),
    "arcsech": lambda x: (1 / x).acosh(), "arccsch": lambda x: (1 / x).asinh(),
    "exp": acb.exp, "ln": acb.log, "abs": lambda x: acb(abs(x)), "fact": lambda x: (x + 1).gamma(),
    "floor": lambda x: acb(_real(x).floor()), "ceil": lambda x: acb(_real(x).ceil()),
}  # fmt: skip


def _real(value: acb) -> arb:
    if not value.imag.is_zero():
        raise Undefined("a complex value has no floor")
    return value.real


def _function(name: str, parts: list[acb], complex_values: bool) -> acb:
    if name not in ("abs", "ln", "log", "root") and any(abs(part) > 1e9 for part in parts):
        raise TooLarge("an argument")
    if name not in ("abs", "ln", "log", "root", "binom") and abs(parts[0]) < TINY and not parts[0].contains(0):
        raise Undefined("an argument is too close to 0")
    positive = parts if name in ("ln", "log") and not complex_values else []  # the base of a logarithm as well
    if any(part.imag.is_zero() and part.real <= 0 for part in positive):
        raise Undefined("logarithm outside its domain")
    if name == "root":
        return _root(parts[0], parts[1], complex_values)
    if name == "log":
        return parts[1].log() / parts[0].log()
    if name in ("max", "min"):
        return acb(functools.reduce(arb.max if name == "max" else arb.min, map(_real, parts)))
    if name == "binom":
        n, k = parts
        if k.is_exact() and k.imag.is_zero() and (whole := k.real.unique_fmpz()) is not None and 0 <= whole <= 1000:
            return (n - k + 1).rising(k) * (k + 1).rgamma()
        return (n + 1).gamma() * (k + 1).rgamma() * (n - k + 1).rgamma()
    if name not in _FUNCTIONS:
        raise Undefined(f"{name} has no numeric value")
    return _FUNCTIONS[name](parts[0])


def _root(degree: acb, value: acb, complex_values: bool) -> acb:
    if value.is_zero():
        return value
    whole = degree.real.unique_fmpz() if degree.imag.is_zero() and degree.is_exact() else None
    if value.imag.is_zero() and value.real < 0 and whole is not None and whole > 0:
        return _real_root(value, Fraction(1, int(whole)), complex_values)
    if abs(degree) > 1 / TINY:
        raise Undefined("a root is too close to 1")
    return value ** (1 / degree)
