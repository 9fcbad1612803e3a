"""Keys of values that are not rational: an expression is evaluated to 40 digits at fixed points.

Two expressions are equal exactly when their values are equal at four points, which depend on the names of their
symbols only (the identity test of Schwartz 1980 and Zippel 1979, over the reals). A value is accepted only if
computations with 60 and with 100 digits (plus its digits before the decimal point) agree. Equal values have equal
keys, so no pairs of answers are compared, equality is symmetric and transitive, and no algebra system has to find a
proof. `evaluate_all` runs in a child process (`workers`), called once per answer by `value_cache`.
"""

import hashlib
from fractions import Fraction
from typing import Any

from east.grading.mathematics.canonical import Key
from east.grading.mathematics.rational import MAX_BITS, exact
from east.grading.mathematics.tree import Tree, symbols

POINTS = 4
FAR_POINTS = 4  # used as well if the function has a value at fewer than two of the first: sqrt(x - 3)
DIGITS = 40  # significant digits in a key
PRECISIONS = (60, 100)  # significant digits of the two computations
MAX_EXPONENT = 3_000  # digits before the decimal point
MAX_EXACT_BITS = 1_000_000  # of a rational; above `rational.MAX_BITS` its hash is its key

Request = tuple[str, Tree]  # (mode, tree)
OUT_OF_BOUNDS: Key = ("out of bounds",)


class Undefined(ArithmeticError):
    """The expression has no value at this point."""


class TooLarge(ArithmeticError):
    """The expression's value is too large to be computed."""


def evaluate_all(call: tuple[Request, ...]) -> list[Key | None]:
    """The keys of one answer's expressions; OUT_OF_BOUNDS for a value that is too large."""
    keys: list[Key | None] = []
    for request in call:
        try:
            keys.append(evaluate(request))
        except TooLarge:
            keys.append(OUT_OF_BOUNDS)
        except (ArithmeticError, ValueError, TypeError, RecursionError):  # the expression has no value
            keys.append(None)
    return keys


def evaluate(request: Request) -> Key | None:
    """The key of an expression; None if it has no stable value. Raises TooLarge for a constant beyond the bounds.

    Modes: "value" gives ("number", q), ("big number", hash), ("constant", re, im) or ("function", values). "zero-set"
    gives the values of f up to a common factor, the key of f = 0. "half-space" gives them up to a positive factor, the
    key of f < 0.
    """
    mode, tree = request
    names = sorted(symbols(tree))
    if mode == "value" and not names:
        if (rational := exact(tree, max_bits=MAX_EXACT_BITS)) is not None:
            return ("number", rational) if _small(rational) else ("big number", _hash(rational))
        value = _stable(tree, {})
        return None if value is None else _constant(value)
    values = [_at_point(tree, names, point) for point in range(POINTS)]
    if len([value for value in values if value is not None]) < 2:
        values += [_at_point(tree, names, point) for point in range(POINTS, POINTS + FAR_POINTS)]
    defined = [value for value in values if value is not None]
    if len(defined) < 2 or not names:
        return None
    if mode == "value":
        if len(defined) == len(values) and len({_digits(value) for value in values}) == 1:
            return _constant(defined[0])
        return ("function", tuple(None if value is None else _digits(value) for value in values))
    scale = next((value for value in defined if value != 0), None)
    if scale is None:
        return None
    if mode == "half-space":
        if any(value.imag for value in defined):
            return None
        scale = abs(scale)
    return tuple(None if value is None else _digits(value / scale) for value in values)


def _at_point(tree: Tree, names: list[str], point: int) -> Any:
    """A function's value at a point; None if it is undefined or too large there."""
    try:
        return _stable(tree, {name: _coordinate(name, point) for name in names})
    except TooLarge:
        return None


def _coordinate(name: str, point: int) -> Fraction:
    """The value of a symbol at a point. The points lie inside and outside the unit interval and have both signs."""
    seed = hashlib.sha256(f"{name}/{point}".encode()).digest()
    fraction = Fraction(int.from_bytes(seed[:6], "big"), 1 << 48)
    size = Fraction(1, 5) + fraction * Fraction(7, 10) if point % 2 == 0 else Fraction(11, 10) + fraction * 2
    if point >= POINTS:
        return (5 + 30 * fraction) * (1 if point < POINTS + FAR_POINTS // 2 else -1)
    flipped = hashlib.sha256(name.encode()).digest()[0] & 1
    return -size if point >= 2 and (point % 2 == flipped) else size


def _small(value: Fraction) -> bool:
    return max(value.numerator.bit_length(), value.denominator.bit_length()) <= MAX_BITS


def _hash(value: Fraction) -> str:
    return hashlib.sha256(f"{value.numerator:x}/{value.denominator:x}".encode()).hexdigest()


def _stable(tree: Tree, at: dict[str, Fraction]) -> Any:
    """The complex value on which both precisions agree; exactly zero if everything cancels; None if they disagree."""
    from mpmath import mp

    values = _at_precisions(tree, at, 0)
    if values is None or not mp.isfinite(values[1]):
        return None
    integer_digits = max(0, int(mp.log10(abs(values[1])))) if values[1] else 0
    if integer_digits > MAX_EXPONENT:
        raise TooLarge("too many digits")
    if integer_digits:
        values = _at_precisions(tree, at, integer_digits)
        if values is None:
            return None
    low, high = values
    with mp.workdps(PRECISIONS[1] + integer_digits):
        size, slack = abs(high), mp.mpf(10) ** (15 - PRECISIONS[0] - integer_digits)
        if abs(low - high) > slack * size:
            cancelled = abs(low) < slack and size < mp.mpf(10) ** (15 - PRECISIONS[1])
            return mp.mpc(0) if cancelled else None
        real = high.real if abs(high.real) > slack * size else mp.mpf(0)
        imaginary = high.imag if abs(high.imag) > slack * size else mp.mpf(0)
        return mp.mpc(real, imaginary)


def _at_precisions(tree: Tree, at: dict[str, Fraction], more: int) -> tuple[Any, Any] | None:
    """The values computed with both of PRECISIONS, plus `more` digits; None if there is none."""
    from mpmath import mp

    values = []
    for digits in PRECISIONS:
        with mp.workdps(digits + more):
            try:
                values.append(mp.mpc(_value(tree, at)))
            except (Undefined, ValueError, ZeroDivisionError, OverflowError, TypeError):
                return None
    return values[0], values[1]


def _digits(value: Any) -> tuple[str, str]:
    from mpmath import mp

    exponent = max(0, int(mp.log10(abs(value)))) if value else 0
    with mp.workdps(PRECISIONS[1] + exponent):
        return mp.nstr(value.real, DIGITS + exponent), mp.nstr(value.imag, DIGITS + exponent)


def _constant(value: Any) -> Key:
    """The key of a constant: a number if it is a simple rational (sqrt(25), cos(pi/3)), otherwise its digits."""
    from mpmath import mp

    with mp.workdps(PRECISIONS[1]):
        if not value.imag and abs(value) < 10**12:
            near = Fraction(mp.nstr(value.real, PRECISIONS[0])).limit_denominator(10_000)
            if abs(value.real - mp.mpf(near.numerator) / near.denominator) < mp.mpf(10) ** (15 - PRECISIONS[0]):
                return ("number", near)
    return ("constant", *_digits(value))


def _value(tree: Tree, at: dict[str, Fraction]) -> Any:
    """The mpmath value of a tree at the current precision."""
    from mpmath import mp, mpf

    head = tree[0]
    if head == "num":
        return mpf(tree[1].numerator) / tree[1].denominator
    if head == "sym":
        return mpf(at[tree[1]].numerator) / at[tree[1]].denominator
    if head == "const":
        if tree[1] == "oo":
            raise Undefined("infinity")
        return {"pi": +mp.pi, "e": +mp.e, "i": mp.j}[tree[1]]
    if head not in ("add", "mul", "div", "neg", "pow", "fact", "fn"):
        raise Undefined(f"{head} has no numeric value")
    parts = [_value(part, at) for part in tree[2 if head == "fn" else 1 :]]
    if head == "add":
        return _sum(parts)
    if head == "mul":
        return mp.fprod(parts)
    if head == "div":
        return parts[0] / parts[1]
    if head == "neg":
        return -parts[0]
    if head == "pow":
        return _power(tree, *parts)
    return _function("fact" if head == "fact" else tree[1], tree, parts)


def _sum(parts: list[Any]) -> Any:
    from mpmath import mp

    sizes = [abs(part) for part in parts if part]
    if sizes and min(sizes) < max(sizes) * mp.mpf(10) ** (15 - mp.dps):
        raise Undefined("a term is too small next to another")
    return mp.fsum(parts)


def _power(tree: Tree, base: Any, exponent: Any) -> Any:
    from mpmath import mp

    if base == 0:
        return base if mp.re(exponent) > 0 else base**exponent
    if abs(exponent * mp.log(abs(base), 2)) > 1e8:
        raise TooLarge("a power")
    rational = exact(tree[2])
    if mp.im(base) == 0 and mp.re(base) < 0 and rational is not None and rational.denominator > 1:
        return _real_root(tree[1], base, rational)
    return base**exponent


def _real_root(radicand: Tree, value: Any, power: Fraction) -> Any:
    """(-8)^(1/3) is -2. An even root of a negative number is complex in a constant and undefined in a function."""
    from mpmath import mp

    if power.denominator % 2:
        size = mp.power(-value, mp.mpf(power.numerator) / power.denominator)
        return -size if power.numerator % 2 else size
    if symbols(radicand):
        raise Undefined("even root of a negative value")
    return mp.power(value, mp.mpf(power.numerator) / power.denominator)


def _function(name: str, tree: Tree, parts: list[Any]) -> Any:
    from mpmath import mp

    first = parts[0]
    if any(abs(part) > 1e9 for part in parts) and name not in ("abs", "ln", "log", "root"):
        raise TooLarge("an argument")
    if name in ("ln", "log") and mp.im(parts[-1]) == 0 and mp.re(parts[-1]) <= 0 and (not parts[-1] or symbols(tree)):
        raise Undefined("logarithm outside its domain")
    if name == "root":
        degree = first
        if mp.im(parts[1]) == 0 and mp.re(parts[1]) < 0 and degree == int(mp.re(degree)) and degree > 0:
            return _real_root(tree[3], parts[1], Fraction(1, int(degree)))
        return mp.power(parts[1], 1 / degree) if parts[1] else parts[1]
    if name == "log":
        return mp.log(parts[1]) / mp.log(first)
    if name == "binom":
        return mp.binomial(*parts)
    table = {
        "sin": mp.sin, "cos": mp.cos, "tan": mp.tan, "cot": mp.cot, "sec": mp.sec, "csc": mp.csc,
        "arcsin": mp.asin, "arccos": mp.acos, "arctan": mp.atan, "sinh": mp.sinh, "cosh": mp.cosh,
        "tanh": mp.tanh, "exp": mp.exp, "ln": mp.log, "abs": abs, "floor": mp.floor, "ceil": mp.ceil,
        "fact": mp.factorial,
    }  # fmt: skip
    return table[name](first)
