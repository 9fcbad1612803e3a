"""The tokens of a cleaned answer, and the names and operators of its grammar."""

import re
from fractions import Fraction
from typing import NamedTuple

MAX_CHARACTERS = 2_000  # of an answer; a longer one is not parsed
MAX_DIGITS = 400  # of a number, and of an exponent's value


class Unreadable(ValueError):
    """The text is outside the grammar or its bounds; it is then compared as text."""


class OutOfBounds(Unreadable):
    """The text is too long, too deep or has too many digits; such answers are counted."""


class Token(NamedTuple):
    kind: str  # num, word, cmd, text, op or end; unit after `units.group`
    value: str
    spaced: bool  # is there white space before it?


RELATIONS = {
    "=": "=", "==": "=", ":=": "=", "<": "<", ">": ">", "<=": "<=", ">=": ">=", "!=": "!=", "\\lt": "<",
    "\\gt": ">", "\\le": "<=", "\\leqslant": "<=", "\\ge": ">=",
    "\\geqslant": ">=", "\\ne": "!=", "\\in": "in", "\\approx": "~", "\\equiv": "==",
    "\\to": "->", "\\implies": "->", "\\Rightarrow": "->", "\\simeq": "~",
}  # fmt: skip
TRIGONOMETRIC = {"sin", "cos", "tan", "cot", "sec", "csc"}
ANGULAR = TRIGONOMETRIC | {"cis"}  # functions of an angle, which may be in degrees
HYPERBOLIC = {"sinh", "cosh", "tanh", "coth", "sech", "csch"}
INVERSES = {f"arc{name}" for name in TRIGONOMETRIC | HYPERBOLIC}
SPELLINGS = {f"{prefix}{name}": f"arc{name}" for name in HYPERBOLIC for prefix in ("ar", "a", "arg")} | {
    "asin": "arcsin", "acos": "arccos", "atan": "arctan", "tg": "tan", "ctg": "cot", "arctg": "arctan", "cosec": "csc",
}  # fmt: skip
FUNCTIONS = TRIGONOMETRIC | HYPERBOLIC | INVERSES | SPELLINGS.keys() | {"cis", "exp", "ln", "log", "lg"}
ACCENTS = {"\\vec", "\\hat", "\\bar", "\\overline", "\\tilde", "\\widehat", "\\widetilde", "\\dot"}
FUNCTIONS_OF_ANYTHING = {"f", "g", "F", "G", "\\Gamma", "\\phi", "\\varphi", "\\sigma", "\\zeta", "\\psi"}
WRITTEN = {
    "sqrt": "\\sqrt", "cbrt": "\\sqrt", "abs": "abs", "floor": "floor", "ceil": "ceil", "binom": "\\binom"
}  # fmt: skip
CONSTANTS = {
    "\\pi": "pi", "pi": "pi", "\\infty": "oo", "infinity": "oo", "inf": "oo", "oo": "oo", "e": "e", "i": "i"
}  # fmt: skip
_GREEK = (
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi omicron rho sigma "
    "varsigma tau upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega"
)
GREEK = frozenset(_GREEK.split())  # with or without a backslash
LETTERS = {f"\\{name}" for name in (*GREEK, "ell", "emptyset")}
OPERATORS = {
    "\\cup", "\\pm", "\\mp", "\\cdot", "\\times", "\\div", "\\ldots", "\\dots", "\\cdots", "\\\\",
    "\\end{matrix}", "\\land", "\\lor", "\\wedge", "\\vee", "\\rangle", "\\rfloor", "\\rceil", "\\setminus",
    "\\cap", "\\bmod", "\\pmod", "\\mod",
}  # fmt: skip
CONNECTIVES = ("and", "or", "", ",")
CLOSING = {"(": (")", "]"), "[": ("]", ")")}
_TOKEN = re.compile(
    r"(?P<space>\s*)(?:"
    r"(?P<num>\d{1,3}(?:,\d{3})+(?![\d,])(?:\.\d+)?(?:[eE][+-]?\d+(?![a-zA-Z\d]))?|\d{1,3}(?: \d{3})+(?!\d)(?:\.\d+)?"
    r"|\d*\.\d*\\overline\s*\{\d{1,20}\}|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+(?![a-zA-Z\d]))?)"
    r"|\\text\{(?P<text>[^{}]*)\}"
    r"|(?P<cmd>\\begin\{matrix\}|\\end\{matrix\}|\\mathbb\s*\{?[A-Z]\}?|\\[a-zA-Z]+|\\\\)"
    r"|(?P<word>[a-zA-Z]+)"
    r"|(?P<op>\\[{}%]|<=|>=|!=|==|\.\.\.|\*\*|:=|[-+*/^_!=<>(){}\[\]|,;:&%'\u2220])"
    r")"
)
_WHOLE = re.compile(r"(?P<space>\s*)(?P<num>\d+)")


def tokenize(text: str) -> list[Token]:
    """The tokens of a cleaned answer. Raises Unreadable for other characters, OutOfBounds for a long text."""
    if len(text) > MAX_CHARACTERS:
        raise OutOfBounds(f"longer than {MAX_CHARACTERS} characters")
    tokens, position, depth = [], 0, 0
    text = text.rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise Unreadable(f"no token begins with {text[position]!r}")
        kind, value = match.lastgroup or "", match.group(match.lastgroup or 0)
        if kind == "num" and depth and "," in value:  # (1,000) is a pair
            value = value.split(",")[0]
            match = _WHOLE.match(text, position) or match
        depth += {"(": 1, "[": 1, "\\{": 1, ")": -1, "]": -1, "\\}": -1}.get(value, 0) if kind == "op" else 0
        tokens.append(Token(kind, value.replace(" ", "") if kind == "cmd" else value, bool(match.group("space"))))
        position = match.end()
    return tokens


def number(text: str) -> Fraction:
    """The exact value of a number as written. Raises OutOfBounds beyond MAX_DIGITS."""
    text = text.replace(",", "").replace(" ", "")
    if len(text) > MAX_DIGITS:
        raise OutOfBounds(f"a number of more than {MAX_DIGITS} digits")
    if "overline" in text:
        head, repeated = text.split("\\overline")
        repeated = repeated.strip("{} ")
        whole, _, fixed = head.partition(".")
        scale = 10 ** len(fixed)
        repeating = Fraction(int(repeated), (10 ** len(repeated) - 1) * scale)
        return Fraction(int(whole or 0)) + Fraction(int(fixed or 0), scale) + repeating
    mantissa, _, exponent = text.lower().partition("e")
    if exponent and abs(int(exponent)) > MAX_DIGITS:
        raise OutOfBounds(f"an exponent beyond {MAX_DIGITS}")
    return Fraction(text)
