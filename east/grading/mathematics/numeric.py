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
from math import log10

from flint import acb, arb, ctx, fmpq

from east.grading.mathematics.canonical import Key
from east.grading.mathematics.rational import MAX_BITS, exact
from east.grading.mathematics.tree import Tree, symbols

NEAR, FAR, DISTANT, WHOLE = 4, 4, 2, 1  # points within 3.1, within 35, within 400, and a whole number
POINTS = NEAR + FAR + DISTANT + WHOLE
PRIME = 2**48 - 59  # denominator of coordinates: no value is a decimal number that ends where it is rounded
DIGITS = 40  # significant digits in a key
PRECISIONS = (64, 150, 400)  # significant digits of computations; each is tried if the one before is not enough
CANCELLED = arb(10) ** -250  # a value of the last precision within this of 0 is 0
TINY = arb(10) ** -20  # a value next to which cosh(x) and x^0 cannot be told from 1, and sin(x) from x
MAX_EXPONENT = 3_000  # digits before the decimal point
MAX_EXACT_BITS = 1_000_000  # of a rational; above `rational.MAX_BITS` its hash is its key
MAX_DENOMINATOR = 10_000  # of a rational value that is recognised by its digits: cos(pi/3)

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
        if None not in digits and len(set(digits)) == 1:
            return _constant(next(value for value in values if value is not None))
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
    rational = exact(tree, max_bits=MAX_EXACT_BITS)
    if rational is not None:
        return ("number", rational) if _small(rational) else ("big number", _hash(rational))
    value = _certain(lambda: _value(tree, {}, True))
    return None if value is None else _constant(value)


def _defined(values: list[acb | None]) -> int:
    return sum(value is not None for value in values)


def _at_point(tree: Tree, names: list[str], point: int, complex_values: bool) -> acb | None:
    """A function's value at a point; None if it is undefined or too large there."""
    at = {name: _coordinate(name, point) for name in names}
    try:
        return _certain(lambda: _value(tree, at, complex_values))
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
    fraction = Fraction(
        int.from_bytes(seed[:6], "big") % PRIME, PRIME
    )  # no decimal number: nothing is rounded at a tie
    if point < NEAR:
        size = Fraction(1, 5) + fraction * Fraction(7, 10) if point % 2 == 0 else Fraction(11, 10) + fraction * 2
        pattern = ord(name) % 3 if len(name) == 1 else seed[6] % 3  # neighbours in the alphabet have unlike signs
        return -size if (pattern, point) in {(0, 2), (1, 3), (2, 2), (2, 3)} else size
    sign = -1 if point % 2 else 1
    if point < NEAR + FAR:
        return (3 + 32 * fraction) * (sign if seed[7] % 4 else -sign)
    if point < NEAR + FAR + DISTANT:
        return (40 + 360 * fraction) * sign
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
            before_point = max(0, _exponent(value))
            if before_point > MAX_EXPONENT:
                raise TooLarge("too many digits")
        with ctx.workdps(precision + before_point):
            if before_point:
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
    digits = DIGITS + max(0, _exponent(size)) + 5
    if part.contains(0):
        return arb(0) if part.is_zero() or abs(part) < size * arb(10) ** -digits else None
    return part if part.rel_accuracy_bits() > digits * 3.33 else None


def _chopped(value: acb) -> acb:
    """The value without a part that vanishes next to the other."""
    size = abs(value)
    return acb(_part(value.real, size) or 0, _part(value.imag, size) or 0)


def _exponent(value: acb | arb) -> int:
    """The decimal exponent of a value's size; very negative for 0."""
    size = abs(value).mid()
    if size.is_zero():
        return -MAX_EXPONENT
    mantissa, exponent = size.man_exp()
    return int((int(exponent) + int(mantissa).bit_length()) * log10(2))


def _digits(value: acb) -> tuple[str, str]:
    digits = DIGITS + max(0, _exponent(value))
    return _decimal(value.real, digits), _decimal(value.imag, digits)


def _decimal(part: arb, digits: int) -> str:
    return "0.0" if part.is_zero() else part.mid().str(digits, radius=False)


def _constant(value: acb) -> Key:
    """The key of a constant: a number if it is a simple rational (sqrt(25), cos(pi/3)), otherwise its digits."""
    if value.imag.is_zero() and abs(value) < 10**12:
        near = Fraction(value.real.mid().str(DIGITS + 20, radius=False)).limit_denominator(MAX_DENOMINATOR)
        if value.real.contains(_rational(near)):
            return ("number", near)
    return ("constant", *_digits(value))


def _rational(value: Fraction) -> fmpq:
    return fmpq(value.numerator, value.denominator)


def _value(tree: Tree, at: dict[str, Fraction], complex_values: bool) -> acb:
    """The value of a tree at the current precision; not finite where more digits are needed."""
    head = tree[0]
    if head == "num":
        return acb(_rational(tree[1]))
    if head == "sym":
        return acb(_rational(at[tree[1]]))
    if head == "const":
        if tree[1] == "oo":
            raise Undefined("infinity")
        return acb.pi() if tree[1] == "pi" else acb(0, 1) if tree[1] == "i" else acb(1).exp()
    if head not in ("add", "mul", "div", "neg", "pow", "fact", "fn"):
        raise Undefined(f"{head} has no numeric value")
    terms = _without_opposites(tree[1:]) if head == "add" else tree[2 if head == "fn" else 1 :]
    parts = [_value(part, at, complex_values) for part in terms]
    if head == "add":
        return _sum(parts)
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


def _without_opposites(terms: tuple[Tree, ...]) -> list[Tree]:
    """The terms of a sum without x and -x, whose digits may be too many to cancel."""
    left = list(terms)
    for term in terms:
        if term[0] == "neg" and term[1] in left:
            left.remove(term)
            left.remove(term[1])
    return left or [("num", Fraction(0))]


def _sum(parts: list[acb]) -> acb:
    sizes = [abs(part) for part in parts if not part.is_zero()]
    largest = max((_exponent(size) for size in sizes), default=0)
    if any(_exponent(size) < largest - DIGITS for size in sizes if not size.contains(0)):
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
    rational = exact(tree[2])
    if rational is None or rational.denominator == 1 or not (base.imag.is_zero() and base.real < 0):
        return base**exponent
    return _real_root(base, rational, complex_values)


def _real_root(value: acb, power: Fraction, complex_values: bool) -> acb:
    """(-8)^(1/3) is -2. An even root of a negative number is complex or undefined."""
    if power.denominator % 2:
        size = (-value) ** acb(_rational(power))
        return -size if power.numerator % 2 else size
    if not complex_values:
        raise Undefined("even root of a negative value")
    return value ** acb(_rational(power))


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
    if name in ("ln", "log") and parts[-1].imag.is_zero() and parts[-1].real <= 0 and not complex_values:
        raise Undefined("logarithm outside its domain")
    if name == "root":
        return _root(parts[0], parts[1], complex_values)
    if name == "log":
        return parts[1].log() / parts[0].log()
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
