"""Parsing an answer into a Reading: the tree of its value, and what was written around the value."""

import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import lru_cache, wraps
from typing import NamedTuple, Optional, TypeVar

from east.grading.mathematics import prose
from east.grading.mathematics.lexer import FUNCTIONS, GREEK, MAX_CHARACTERS, WRITTEN, OutOfBounds, Unreadable
from east.grading.mathematics.parser import Parsed, parse
from east.grading.mathematics.spelling import clean, plain, split_money, squash
from east.grading.mathematics.tree import Tree, spell, symbols
from east.grading.mathematics.units import LETTER_UNITS, mark_units, unit_set

SHORT = 200  # characters; longer answers are rarely repeated

T = TypeVar("T")

_NUMERAL = re.compile(r"-?(?:\d{1,15}(?:\.\d{1,15})?|\.\d{1,15})")
_BASE = re.compile(r"\(?(-?[0-9A-Z]+(?:\.[0-9A-Z]+)?)\)?\s*_\s*\{?\s*(\d{1,2})\s*\}?")
_IN_BASE = re.compile(r"(-?[0-9A-Z]+)\s*\(?\s*(?:in\s+)?base[\s-]+(\d{1,2})\s*\)?", re.IGNORECASE)
_TIME = re.compile(r"(\d{1,2})(?:\s*:\s*(\d\d))?\s*(?:\\text\s*\{)?\s*([ap])\s*\.?\s*m\b\.?\s*\}?", re.IGNORECASE)
_WORDS = re.compile(r"(?:\\text\{)?(?=.*[a-zA-Z]{2})[a-zA-Z][a-zA-Z' .,;-]*\}?")
_CHOICE = re.compile(r"(?:\\text\{)?\(?([A-J])\)\}?")
_SET_BUILDER = re.compile(r"\\\{\s*([a-z])\s*(?:\\in\s*\\mathbb\s*\{?R\}?\s*)?[:|]\s*(.+)\\\}")
_DECIMAL = re.compile(r"-?\d*\.\d+")
_MEASURE = re.compile(
    rf"(-?(?:\d{{1,3}}(?:,\d{{3}})+|\d{{1,15}})(?:\.\d{{1,15}})?)(\s?)([{LETTER_UNITS}](?:\^\{{?[23]\}}?)?)"
)
_DECIMAL_COMMA = re.compile(r"(-?\d{1,15}),(\d{1,2}|\d{4,15})")
_MATH_WORDS = ("pi", "and", "or", "infinity", "inf", *FUNCTIONS, *WRITTEN, *(name.lower() for name in GREEK))
_TWO_LETTER_WORDS = {"am", "an", "as", "at", "by", "my", "pm", "up", "us"}
_FUNCTION_NAMES = tuple("fghpqFGHPQTSV")
EVERYTHING = ("seq", "(", ")", ("neg", ("const", "oo")), ("const", "oo"))
_SETS = dict.fromkeys(("\\mathbb{R}", "\\mathbb R", "all real numbers", "all reals"), EVERYTHING)
_INEQUALITIES = {"<", "<=", ">", ">=", "!="}


class Reading(NamedTuple):
    """A parsed answer."""

    plain: str  # normalised text
    tree: Tree | None = None  # the value; None for words and for text outside the grammar
    names: tuple[str, ...] = ()  # x of "x = 3" and of "x < 3"; x and y of "x = 3, y = 4"
    relation: Tree | None = None  # the whole equation "y = 2x + 3", whose tree is 2x + 3
    units: frozenset[str] = frozenset()
    percent: bool = False
    decimal: str | None = None  # the answer as written, if it is a number with a decimal point
    evaluated: bool = True  # written as a value, not as a calculation
    out_of_bounds: bool = False  # too long, too deep or with too many digits to be parsed
    measure: Optional["Reading"] = None  # "5 m" as 5 metres; its tree is the product
    others: tuple["Reading", ...] = ()  # compared with the gold only: 5 for "5m", 2.5 for "2,5", 10:00 for "10 am"


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
    if text.casefold() in _SETS or text in _SETS:
        return Reading(plain(text), _SETS.get(text) or _SETS[text.casefold()])
    if reading := _read_time(text) or _read_based(text) or _read_choice(text) or _read_set_builder(text):
        return reading
    if _WORDS.fullmatch(text) and not _is_formula(text):
        word = plain(text) or text
        number = prose.number_in_words(word)
        return Reading(word, None if number is None else ("num", Fraction(number)))
    return _read_formula(text)


def _read_time(text: str) -> Reading | None:
    """4:30 pm as 4:30. For comparison with the gold answer, 2:00 pm is also 2, and 2 pm is also 2:00."""
    match = _TIME.fullmatch(text)
    if match is None:
        return None
    hour, minutes, half = match.groups()
    whole: Tree = ("num", Fraction(hour))
    clock = ("ratio", whole, ("num", Fraction(minutes or 0)))
    units = frozenset({half.lower() + "m"})
    other = clock if not minutes else whole if minutes == "00" else None
    others = (Reading("", other, units=units),) if other else ()
    return Reading(squash(text), clock if minutes else whole, units=units, others=others)


def _read_based(text: str) -> Reading | None:
    """1011_2, and "1011 base 2"."""
    bare = re.sub(r"\\text\{([^{}]*)\}", r"\1", text)
    match = _BASE.fullmatch(bare) or _IN_BASE.fullmatch(bare)
    if match is None:
        return None
    return Reading(squash(f"{match[1]}_{match[2]}"), ("base", match[1].upper().lstrip("0") or "0", match[2]))


def _read_choice(text: str) -> Reading | None:
    """C) is C."""
    match = _CHOICE.fullmatch(text)
    return _read(match[1]) if match else None


def _read_set_builder(text: str) -> Reading | None:
    r"""\{x : x < 2\} is x < 2."""
    match = _SET_BUILDER.fullmatch(text)
    if match is None:
        return None
    inner = read(match[2])
    return inner if inner.tree and inner.tree[0] == "rel" and inner.names == (match[1],) else None


def _is_formula(text: str) -> bool:
    """Whether words are mathematics: pi, xy, inf, "A, B", "B and C"."""
    words = re.findall(r"[a-zA-Z]+", text.replace("\\text", ""))
    return all(len(word) == 1 or word.lower() in _MATH_WORDS or _is_product(word) for word in words)


def _is_product(word: str) -> bool:
    if len(word) == 3:
        return set(word) <= set("abcxyz")
    return len(word) == 2 and set(word) <= set("abcdkmnpqrstuvwxyz") and word not in _TWO_LETTER_WORDS


def _read_formula(text: str) -> Reading:
    bare, money = split_money(text)
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
        number = prose.stated(bare) if sentence or "=" in bare else None
        tree = None if number is None else ("num", number)
        return Reading(plain(bare) or text, tree, out_of_bounds=out_of_bounds)
    tree, names, relation = _assignments(parsed.tree)
    numeral = bare.replace(",", "")
    return Reading(
        squash(bare),
        tree,
        names,
        relation,
        _units(parsed) | (frozenset({"dollar"}) if money else frozenset()),
        percent=parsed.percent or "percent" in _units(parsed),
        decimal=numeral if _DECIMAL.fullmatch(numeral) else None,
        evaluated=_is_evaluated(tree),
        measure=_measure(bare, spaced=True),
        others=tuple(_other_readings(bare, tree)),
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


def _other_readings(text: str, tree: Tree) -> Iterator[Reading]:
    """Readings that are compared with the gold answer only: 5m as 5 metres, 2,5 as 2.5, j as i."""
    if measure := _measure(text, spaced=False):
        yield measure
    if decimal_comma := _DECIMAL_COMMA.fullmatch(text):
        yield Reading("", ("num", Fraction(".".join(decimal_comma.groups()))))
    if "j" in symbols(tree):
        yield Reading("", _renamed(tree))


def _renamed(tree: Tree) -> Tree:
    """The tree with j replaced by the imaginary unit."""
    if tree == ("sym", "j"):
        return ("const", "i")
    return tuple(_renamed(part) if isinstance(part, tuple) else part for part in tree)


def _is_prose(text: str) -> bool:
    """Whether a text is a sentence, by its words that are not mathematics."""
    text = re.sub(r"^\\text\{([^{}]*)\}", r"\1", text)
    bare = re.sub(r"\\text\{[^{}]*\}|\\[a-zA-Z]+", " ", text)
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


def _assignments(tree: Tree) -> tuple[Tree, tuple[str, ...], Tree | None]:
    """(value, names, relation) of "x = 3", of "x = 3, y = 4" and of "x = 1, x = 2"."""
    if tree[0] == "list":
        parts = [_assignment(item) for item in tree[2:]]
        names = [name for name, _, _ in parts if name]
        if len(names) == len(parts) and len(set(names)) == len(names):
            return (*tree[:2], *(value for _, value, _ in parts)), tuple(names), None
        if names and len(set(names)) == 1 and (len(names) == len(parts) or parts[0][0]):
            return (*tree[:2], *(value for _, value, _ in parts)), (names[0],), None
        return tree, (), None
    name, value, relation = _assignment(tree)
    return value, (name,) if name else (), relation


def _assignment(tree: Tree) -> tuple[str | None, Tree, Tree | None]:
    """(name, value, relation) of "x = 3", whose value is 3, and of "x < 3", whose value is the whole inequality."""
    if tree[0] != "rel":
        return None, tree, None
    operators, members = tree[1], list(tree[2:])
    if operators == ("in",):
        return name_of(members[0]), members[1], None
    if set(operators) <= _INEQUALITIES:
        free = [member for member in members if symbols(member)]
        return name_of(free[0]) if len(free) == 1 and is_name(free[0]) else None, tree, None
    if set(operators) - {"=", "~"}:
        return None, tree, None
    if "~" in operators:  # the value of sqrt(5) ~ 2.236 is sqrt(5); of x ~ 11 it is 11
        cut = operators.index("~") + 1
        members = members[:cut] if cut > 1 or not is_name(members[0]) else members[: cut + 1]
    if len(members) == 1:
        return None, members[0], None
    if len(members) == 2 and is_name(members[1]) and not is_name(members[0]) and not symbols(members[0]):
        members.reverse()
    if is_name(members[0]) and not _named(members[0]) & symbols(members[-1]):
        whole = ("rel", ("=",), members[0], members[-1])
        return name_of(members[0]), members[-1], whole if symbols(members[-1]) else None
    if not symbols(members[-1]) and (len(members) > 2 or not symbols(members[0])):
        return None, members[-1], None  # 2 * 3! * 4! = 2 * 6 * 24 = 288
    return None, tree, None


def _named(name: Tree) -> frozenset[str]:
    """The symbols that an assignment defines: f for f(x)."""
    return symbols(name[1] if name[0] == "mul" else name)


def name_of(tree: Tree) -> str:
    """The name in an assignment: x, f(x), f'(x), and AB for the segment AB and for its length |AB|."""
    if tree[0] == "fn" and tree[1] == "abs" and is_name(tree[2]) and tree[2][0] == "mul":
        return name_of(tree[2])
    if is_function(tree):
        return f"{name_of(tree[1])}({name_of(tree[2])})"
    return tree[1] if tree[0] == "sym" else spell(tree)


def is_function(tree: Tree) -> bool:
    """Whether a tree is a function of a variable or number: f(x), f'(x), f^{-1}(x), f(2)."""
    if tree[0] != "mul" or len(tree) != 3 or tree[2][0] not in ("sym", "num"):
        return False
    head = tree[1][1] if tree[1][0] == "pow" and tree[1][2] == ("neg", ("num", Fraction(1))) else tree[1]
    return head[0] == "sym" and head[1].rstrip("'") in _FUNCTION_NAMES


def is_name(tree: Tree) -> bool:
    """Whether a value may be assigned to a tree: x, a_n, f(x), AB, |AB|, (p, q), \\sin x."""
    if tree[0] == "fn" and tree[1] not in ("root",):
        return all(part[0] in ("num", "sym") or is_name(part) for part in tree[2:]) and bool(symbols(tree))
    if tree[0] == "seq":
        return all(item[0] == "sym" for item in tree[3:])
    if tree[0] == "mul":
        letters = [part[1] for part in tree[1:] if part[0] == "sym"]
        segment = len(letters) == len(tree) - 1 and all(letter.isupper() for letter in letters)
        return segment or is_function(tree)
    return bool(tree[0] == "sym")
