"""Keys of values that are not rational: an expression is evaluated to 40 digits at fixed points.

Two expressions are equal exactly when their values are equal at a dozen points, which depend on the names of their
symbols only (the identity test of Schwartz 1980 and Zippel 1979, over the reals). Values are computed with certified
error bounds (the ball arithmetic of Arb, in FLINT), with more digits until 40 of them are certain. Equal values have
equal keys, so no pairs of answers are compared, equality is symmetric and transitive, and no algebra system has to find
a proof. `evaluate_all` runs in a child process (`workers`), called once per answer by `value_cache`.
"""

import hashlib
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache

from flint import acb, arb, ctx

from east.grading.mathematics.balls import DIGITS, TooLarge, Undefined, exponent_of, rational, value_of
from east.grading.mathematics.canonical import Key
from east.grading.mathematics.rational import MAX_BITS, exact
from east.grading.mathematics.tree import Tree, symbols

NEAR, FAR, DISTANT, WHOLE = 4, 4, 4, 1  # points with |x| within 3.1, within 35, within 40,000; a whole number
POINTS = NEAR + FAR + DISTANT + WHOLE
PRIME = 2**48 - 59  # denominator of coordinates: no value is a decimal number that ends where it is rounded
PRECISIONS = (64, 150, 400)  # significant digits of computations; each is tried if the one before is not enough
SPARE = 10  # digits before the point for which the first precision has room
CANCELLED = arb(10) ** -250  # a value of the last precision within this of 0 is 0
MAX_EXPONENT = 3_000  # digits before the decimal point
MAX_EXACT_BITS = 1_000_000  # of a rational; above `rational.MAX_BITS` its hash is its key
MAX_DENOMINATOR = 10**9  # of a rational value that is recognised by its digits: cos(pi/3)

Request = tuple[str, Tree]  # (mode, tree)
OUT_OF_BOUNDS: Key = ("out of bounds",)


def evaluate_all(call: tuple[Request, ...]) -> list[Key | None]:
    """The keys of one answer's expressions; OUT_OF_BOUNDS for a value that is too large."""
    keys: list[Key | None] = []
    for request in call:
        try:
            keys.append(evaluate(request))
        except TooLarge:
            keys.append(OUT_OF_BOUNDS)
        except (ArithmeticError, ValueError, RecursionError):  # the expression has no value
            keys.append(None)
    return keys


def evaluate(request: Request) -> Key | None:
    """The key of an expression; None if it has no value. Raises TooLarge for a constant beyond the bounds.

    Modes: "value" gives ("number", q), ("big number", hash), ("constant", re, im) or ("function", values). "zero-set"
    gives the values of f up to a common factor, the key of f = 0. "half-space" gives them up to a positive factor, the
    key of f < 0.

    A function is real: even roots and logarithms of negative values are undefined. They are complex in a constant, in
    an equation, and in a function that is otherwise defined at fewer than two points.
    """
    mode, tree = request
    names = sorted(symbols(tree))
    if not names:
        return _constant_key(tree) if mode == "value" else None
    values = [_at_point(tree, names, point, mode == "zero-set") for point in range(POINTS)]
    if _defined(values) < 2 and mode == "value":
        values = [_at_point(tree, names, point, True) for point in range(POINTS)]
    if _defined(values) < 2:
        return None
    if mode == "value":
        digits = [None if value is None else _digits(value) for value in values]
        # undefined in the distance is no objection: cosh^2 - sinh^2 needs too many digits there
        if None not in digits[: NEAR + FAR] and len({*digits} - {None}) == 1:
            constant = next(value for value in values if value is not None)
            near = _near(constant)
            return ("constant", *_digits(constant)) if near is None else ("number", near)
        return ("function", tuple(digits))
    scale = next((value for value in values if value is not None and not value.is_zero()), None)
    if scale is None:
        return None
    if mode == "half-space":
        if any(not value.imag.is_zero() for value in values if value is not None):
            return None
        scale = acb(abs(scale))
    with ctx.workdps(PRECISIONS[-1]):
        return tuple(None if value is None else _digits(_chopped(value / scale)) for value in values)


def _constant_key(tree: Tree) -> Key | None:
    if (known := exact(tree, max_bits=MAX_EXACT_BITS)) is not None:
        return ("number", known) if _small(known) else ("big number", _hash(known))
    value = _certain(lambda: value_of(tree, {}, True))
    if value is None:
        return None
    with ctx.workdps(PRECISIONS[-1] + max(0, exponent_of(value))):
        near = _near(value)
        if near is not None and value_of(tree, {}, True).real.contains(rational(near)):
            return ("number", near) if _small(near) else ("big number", _hash(near))
    return ("constant", *_digits(value))


def _defined(values: list[acb | None]) -> int:
    return sum(value is not None for value in values)


def _at_point(tree: Tree, names: list[str], point: int, complex_values: bool) -> acb | None:
    """A function's value at a point; None if it is undefined or too large there."""
    at = {name: _coordinate(name, point) for name in names}
    try:
        return _certain(lambda: value_of(tree, at, complex_values))
    except TooLarge:
        return None


@lru_cache(maxsize=10_000)
def _coordinate(name: str, point: int) -> Fraction:
    """The value of a symbol at a point.

    An analytic function is known by its values at a few points. Absolute values, roots and floors make others: these
    differ from a function without them only far away (|x - 10| and 10 - x), for other signs (|x + y| and |x| + |y|) or
    at whole numbers (ceil x and floor x + 1).
    """
    seed = hashlib.sha256(f"{name}/{point}".encode()).digest()
    fraction = Fraction(int.from_bytes(seed[:6], "big") % PRIME, PRIME)
    if point < NEAR:
        size = Fraction(1, 5) + fraction * Fraction(7, 10) if point % 2 == 0 else Fraction(11, 10) + fraction * 2
        pattern = ord(name) % 3 if len(name) == 1 else seed[6] % 3  # neighbours in the alphabet have unlike signs
        return -size if (pattern, point) in {(0, 2), (1, 3), (2, 2), (2, 3)} else size
    sign = -1 if point % 2 else 1
    if point < NEAR + FAR:
        return (3 + 32 * fraction) * (sign if seed[7] % 4 else -sign)
    if point < NEAR + FAR + DISTANT:
        return (40 + 360 * fraction) * (1 if point < NEAR + FAR + 2 else 100) * sign
    return Fraction(11 + seed[8] % 87)


def _small(value: Fraction) -> bool:
    return max(value.numerator.bit_length(), value.denominator.bit_length()) <= MAX_BITS


def _hash(value: Fraction) -> str:
    return hashlib.sha256(f"{value.numerator:x}/{value.denominator:x}".encode()).hexdigest()


def _certain(compute: Callable[[], acb]) -> acb | None:
    """The value with DIGITS certain digits, and as many as it has before the point; None if it has none.

    A part that vanishes next to the other is exactly 0; so is a value that cancels to CANCELLED at the last precision.
    """
    before_point = 0
    for precision in PRECISIONS:
        with ctx.workdps(precision + before_point):
            try:
                value = compute()
            except (Undefined, ZeroDivisionError):
                return None
            if not value.is_finite():
                continue
            more = max(0, exponent_of(value)) - before_point
        before_point += more
        if before_point > MAX_EXPONENT:
            raise TooLarge("too many digits")
        with ctx.workdps(precision + before_point):
            if more > SPARE:
                value = compute()
            size = abs(value)
            real, imaginary = _part(value.real, size), _part(value.imag, size)
            if real is not None and imaginary is not None and not (real.is_zero() and imaginary.is_zero()):
                return acb(real, imaginary)
            if precision == PRECISIONS[-1] and size < CANCELLED:
                return acb(0)
    return None


def _part(part: arb, size: arb) -> arb | None:
    """A real or imaginary part, 0 if it vanishes next to the size of the value; None if its digits are not certain."""
    digits = DIGITS + max(0, exponent_of(size)) + 5
    if part.contains(0):
        return arb(0) if part.is_zero() or abs(part) < size * arb(10) ** -digits else None
    return part if part.rel_accuracy_bits() > digits * 3.33 else None


def _chopped(value: acb) -> acb:
    """The value without a part that vanishes next to the other."""
    size = abs(value)
    return acb(_part(value.real, size) or 0, _part(value.imag, size) or 0)


def _digits(value: acb) -> tuple[str, str]:
    digits = DIGITS + max(0, exponent_of(value))
    return _decimal(value.real, digits), _decimal(value.imag, digits)


def _decimal(part: arb, digits: int) -> str:
    return "0.0" if part.is_zero() else part.mid().str(digits, radius=False)


def _near(value: acb) -> Fraction | None:
    """The simple rational that a value may be: sqrt(25), cos(pi/3), (1 + i)^100; None if its digits rule it out."""
    if not value.imag.is_zero():
        return None
    digits = DIGITS + 15 + max(0, exponent_of(value))
    near = Fraction(value.real.mid().str(digits, radius=False)).limit_denominator(MAX_DENOMINATOR)
    return near if value.real.contains(rational(near)) else None
