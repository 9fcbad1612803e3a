"""Parsing an answer into a Reading: the tree of its value, and what was written around the value."""

import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import lru_cache, wraps
from typing import TypeVar

from east.grading.mathematics import prose
from east.grading.mathematics.answer import Reading
from east.grading.mathematics.assignments import assignments
from east.grading.mathematics.lexer import FUNCTIONS, GREEK, MAX_CHARACTERS, WRITTEN, OutOfBounds, Unreadable
from east.grading.mathematics.notations import option, read_notation
from east.grading.mathematics.parser import Parsed, parse
from east.grading.mathematics.qualifiers import NEGATIVE, qualifiers
from east.grading.mathematics.spelling import clean, plain, split_money, squash
from east.grading.mathematics.tree import EVERYTHING, Tree, symbols
from east.grading.mathematics.units import LETTER_UNITS, mark_units, unit_set

SHORT = 200  # characters; longer answers are rarely repeated

T = TypeVar("T")

_NUMERAL = re.compile(r"-?(?:\d{1,15}(?:\.\d{1,15})?|\.\d{1,15})")
_WORDS = re.compile(r"(?:\\text\{)?(?=.*[a-zA-Z]{2})[a-zA-Z][a-zA-Z' .,;-]*\}?")
_SET_BUILDER = re.compile(r"\\\{\s*([a-z])\s*(?:\\in\s*\\mathbb\s*\{?R\}?\s*)?[:|]\s*(.+)\\\}")
_DIRECTED = re.compile(r"(?:an? )?([a-z]+) of (\\?\$?\d[\d,.]*\\?%?)", re.IGNORECASE)
_DECIMAL = re.compile(r"-?\d*\.\d+")
_MEASURE = re.compile(
    rf"(-?(?:\d{{1,3}}(?:,\d{{3}})+|\d{{1,15}})(?:\.\d{{1,15}})?)(\s?)([{LETTER_UNITS}](?:\^\{{?[23]\}}?)?)"
)
_LINK = re.compile(r"^(?:so|thus|hence|then|therefore|i\.e\.),?\s+", re.IGNORECASE)
_DECIMAL_COMMA = re.compile(r"(-?\d{1,15}),(\d{1,2}|\d{4,15})")
_MATH_WORDS = ("pi", "and", "or", "infinity", "inf", *FUNCTIONS, *WRITTEN, *(name.lower() for name in GREEK))
_TWO_LETTER_WORDS = {"am", "an", "as", "at", "by", "my", "pm", "up", "us"}
_SETS = dict.fromkeys(
    ("\\mathbb{r}", "all real numbers", "all reals", "real numbers", "reals"), EVERYTHING
) | dict.fromkeys(("all integers", "integers"), ("sym", "\\mathbb{Z}"))


def cached_by_length(function: Callable[[str], T]) -> Callable[[str], T]:
    """Cache a function of an answer: 100,000 short answers, and 64 long ones."""
    short, long = lru_cache(maxsize=100_000)(function), lru_cache(maxsize=64)(function)

    @wraps(function)
    def cached(answer: str) -> T:
        return short(answer) if len(answer) <= SHORT else long(answer)

    return cached


def read(answer: str) -> Reading:
    """Parse an answer. Words, and text that the grammar does not cover, have no tree."""
    answer = answer.strip()
    if len(answer) > MAX_CHARACTERS:
        return Reading(answer, out_of_bounds=True)
    return _read(answer)


@cached_by_length
def _read(answer: str) -> Reading:
    if _NUMERAL.fullmatch(answer):
        return Reading(answer, ("num", Fraction(answer)), decimal=answer if "." in answer else None)
    text = clean(answer)
    if not text:
        return Reading(answer)
    if (numbers := _SETS.get(text.casefold())) is not None:
        return Reading(plain(text), numbers)
    if reading := read_notation(text) or _read_set_builder(text) or _read_directed(text):
        return reading
    if _WORDS.fullmatch(text) and not _is_formula(text):
        word = plain(text) or text
        number = prose.number_in_words(word)
        reading = Reading(word, None if number is None else ("num", Fraction(number)))
    else:
        reading = _read_formula(text)
    letter = option(text)
    return reading._replace(others=(*reading.others, letter)) if letter else reading


def _read_set_builder(text: str) -> Reading | None:
    r"""\{x : x < 2\} is x < 2, and \{x : x != 2\} all numbers but 2."""
    match = _SET_BUILDER.fullmatch(text)
    if match is None:
        return None
    inner = read(match[2])
    if inner.tree is None or inner.tree[0] != "rel" or inner.names != (match[1],):
        return None
    if inner.tree[1] == ("!=",):
        return Reading(plain(text), ("without", EVERYTHING, inner.tree[3]))
    return inner


def _read_directed(text: str) -> Reading | None:
    """ "a loss of $5" as "$5 loss"."""
    match = _DIRECTED.fullmatch(text)
    return _read_formula(f"{match[2]} {match[1]}") if match and qualifiers(match[1]) else None


def _is_formula(text: str) -> bool:
    """Whether words are mathematics: pi, xy, inf, "A, B", "B and C"."""
    words = re.findall(r"[a-zA-Z]+", text.replace("\\text", ""))
    return all(len(word) == 1 or word.lower() in _MATH_WORDS or _is_product(word) for word in words)


def _is_product(word: str) -> bool:
    if len(word) == 3:
        return set(word) <= set("abcxyz")
    return len(word) == 2 and set(word) <= set("abcdkmnpqrstuvwxyz") and word not in _TWO_LETTER_WORDS


def _read_formula(text: str) -> Reading:
    bare, money = split_money(_LINK.sub("", text))
    bare = mark_units(bare)
    sentence, out_of_bounds = _is_prose(bare), False
    parsed: Parsed | None = None
    try:
        parsed = None if sentence else parse(bare)
    except (OutOfBounds, RecursionError):
        out_of_bounds = True
    except Unreadable:
        pass
    if parsed is None:
        if not sentence and (named := _read_quantity(bare)):
            return named
        number, words = prose.stated(bare) if sentence else (None, "")
        tree = None if number is None else ("num", number)
        qualified = qualifiers(words) - {NEGATIVE} if tree else frozenset()  # "she earned 40 less" states 40
        found, spelled = tree is not None, plain(bare) or text
        return Reading(spelled, tree, qualifiers=qualified, stated=found, out_of_bounds=out_of_bounds)
    tree, names, relation = assignments(parsed.tree)
    numeral = bare.replace(",", "")
    return Reading(
        " ".join([squash(bare), *sorted(money)]),
        tree,
        names,
        relation,
        _units(parsed) | money,
        frozenset[str]().union(*map(qualifiers, parsed.units)),
        percent=parsed.percent or "percent" in _units(parsed),
        decimal=numeral if _DECIMAL.fullmatch(numeral) else None,
        evaluated=_is_evaluated(tree),
        measure=_measure(bare, spaced=True),
        others=tuple(_other_readings(bare, parsed, tree)),
    )


def _units(parsed: Parsed) -> frozenset[str]:
    units = frozenset[str]().union(*map(unit_set, parsed.units))
    return units | {"percent"} if parsed.percent else units


def _measure(text: str, *, spaced: bool) -> Reading | None:
    """ "5 m" (spaced) or "5m" (not spaced) as a number with a unit."""
    match = _MEASURE.fullmatch(text)
    if match is None or bool(match[2]) != spaced:
        return None
    numeral = match[1].replace(",", "")
    decimal = numeral if "." in numeral else None
    return Reading("", ("num", Fraction(numeral)), units=unit_set(match[3]), decimal=decimal)


def _other_readings(text: str, parsed: Parsed, tree: Tree) -> Iterator[Reading]:
    """Readings that are compared with the gold answer only: 5m as 5 metres, 2,5 as 2.5, j as i, "5 less" as -5."""
    if measure := _measure(text, spaced=False):
        yield measure
    if decimal_comma := _DECIMAL_COMMA.fullmatch(text):
        yield Reading("", ("num", Fraction(".".join(decimal_comma.groups()))))
    if "j" in symbols(tree):
        yield Reading("", _renamed(tree))
    if any(NEGATIVE in qualifiers(words) for words in parsed.units):
        yield Reading("", ("neg", tree), units=_units(parsed), percent=parsed.percent)
    if tree[:2] == ("rel", ("==",)) and len(tree) == 5:  # x = 3 mod 7 as 3
        yield Reading("", tree[3])
    if tree[:2] == ("fn", "pmod"):
        yield Reading("", tree[2])


def _read_quantity(text: str) -> Reading | None:
    """The value of P(A|B) = 1/2, whose left side is a quantity and outside the grammar; None for other equations."""
    left, _, right = text.rpartition("=")
    if not prose.is_quantity(left.strip()):
        return None
    value = read(right)
    if value.tree is None or value.names or value.relation:
        return None
    return value._replace(plain=squash(text), names=(squash(left.strip()),), others=())


def _renamed(tree: Tree) -> Tree:
    """The tree with j replaced by the imaginary unit."""
    if tree == ("sym", "j"):
        return ("const", "i")
    return tuple(_renamed(part) if isinstance(part, tuple) else part for part in tree)


def _is_prose(text: str) -> bool:
    """Whether a text is a sentence, by its words that are not mathematics."""
    text = re.sub(r"^\\text\{([^{}]*)\}", r"\1", text)
    bare = re.sub(r"\\text\{[^{}]*\}|\\(?:begin|end)\{matrix\}|\\[a-zA-Z]+", " ", text)
    runs = re.findall(r"[a-zA-Z]{2,}", bare)
    words = [run for run in runs if not (run.isupper() or run.lower() in _MATH_WORDS or _is_product(run))]
    return prose.is_prose(text, words)


def _is_evaluated(tree: Tree) -> bool:
    """Whether nothing is left to work out: 3, -3/4 and 3 1/2, and everything that is no calculation."""
    if tree[0] == "neg":
        return _is_evaluated(tree[1])
    if tree[0] == "div":
        return all(part[0] == "num" or part[0] == "neg" and part[1][0] == "num" for part in tree[1:])
    if tree[0] == "add":
        return len(tree) == 3 and tree[1][0] == "num" and tree[2][0] == "div" and _is_evaluated(tree[2])
    return tree[0] not in ("mul", "pow", "fact", "fn")
