"""What an answer says: the tree of its value, and beside it what was written around the value."""

import re
from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from east.grading.answer_parser import parse
from east.grading.answer_text import FUNCTION_WORDS, UNITS, clean, mark_units, plain, split_money, squash
from east.grading.answer_tokens import MAX_CHARACTERS, Unreadable
from east.grading.answer_tree import Tree, spell, symbols

MAX_REMEMBERED = 200  # characters of an answer whose reading is kept: longer ones seldom come back

_NUMERAL = re.compile(r"-?(?:\d{1,15}(?:\.\d{1,15})?|\.\d{1,15})")
_BASE = re.compile(r"(-?[0-9A-Z]+(?:\.[0-9A-Z]+)?)\s*_\s*\{?\s*(\d{1,2})\s*\}?")
_TIME = re.compile(r"(\d{1,2})(?::(\d\d))?\s*(?:\\text\s*\{)?\s*([ap])\s*\.?\s*m\b\.?\s*\}?", re.IGNORECASE)
_WORDS = re.compile(r"(?:\\text\{)?(?=.*[a-zA-Z]{2})[a-zA-Z][a-zA-Z' .,;-]*\}?")
_DECIMAL = re.compile(r"-?\d*\.\d+")
_MEASURE = re.compile(r"(-?\d{1,15}(?:\.\d{1,15})?) [mgshl](?:\^\{?[23]\}?)?")
_DECIMAL_COMMA = re.compile(r"(-?\d{1,15}),(\d{1,2}|\d{4,15})")
_PROSE_NUMBER = re.compile(r"(?<![\w.])-?\d[\d,]{0,20}(?:\.\d{1,20})?(?![\w/])")
_RESULT = re.compile(
    r"=\s*(-?\d[\d,]{0,20}(?:\.\d{1,20})?)[\s`\"')}]*(?:[a-zA-Z][a-zA-Z ]{0,60}|\\text\{[^{}]*\})?$"
)
_HEDGE = re.compile(
    r"\b(?:can(?:not|'t)|not?|n't|without|unless|except|least|most|between|about|approximately|"
    r"(?:more|less|fewer) than|times|half|twice|multiples?|root|any|all|every|either|or)\b"
)
_DIGIT_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen twenty"
)
_NUMBER_WORDS = {word: value for value, word in enumerate(_DIGIT_WORDS.split())}
_MATH_WORDS = ("pi", "and", "or", "infinity", "inf")
_TWO_LETTER_WORDS = {"am", "an", "as", "at", "by", "my", "pm", "up", "us"}
_FUNCTION_NAMES = tuple("fghpqFGHPQTSV")
_EVERYTHING = ("seq", "(", ")", ("neg", ("const", "oo")), ("const", "oo"))
_SETS = {"\\mathbb{R}": _EVERYTHING, "\\mathbb R": _EVERYTHING, "all real numbers": _EVERYTHING}


class Reading(NamedTuple):
    """What an answer says. tree is None where it is words or outside the grammar."""

    plain: str
    tree: Tree | None = None
    names: tuple[str, ...] = ()  # of the assignments "x = 3" or "x = 3, y = 4", in order
    relation: Tree | None = None  # the whole of "y = 2x + 3", whose tree is 2x + 3
    units: frozenset[str] = frozenset()
    percent: bool = False
    decimal: str | None = None  # the numeral, where the answer is one with a decimal point
    evaluated: bool = True  # written as a value, not as a calculation
    others: tuple[
        Tree, ...
    ] = ()  # what only a gold can confirm: 5 for "5 m", 2.5 for "2,5", 10:00 for "10 am"


def read(answer: str) -> Reading:
    """Read one answer; words and whatever the grammar does not cover keep only `plain`."""
    answer = answer.strip()
    if len(answer) > MAX_CHARACTERS:
        return Reading(answer)
    return _read_short(answer) if len(answer) <= MAX_REMEMBERED else _read(answer)


@lru_cache(maxsize=100_000)
def _read_short(answer: str) -> Reading:
    return _read(answer)


def _read(answer: str) -> Reading:
    if _NUMERAL.fullmatch(answer):
        return Reading(answer, ("num", Fraction(answer)), decimal=answer if "." in answer else None)
    text = clean(answer)
    if not text:
        return Reading(answer)
    if match := _TIME.fullmatch(text):
        hour, minutes, half = match.groups()
        clock = ("ratio", ("num", Fraction(hour)), ("num", Fraction(minutes or 0)))
        tree = clock if minutes else ("num", Fraction(hour))
        return Reading(squash(text), tree, units=frozenset({half.lower() + "m"}), others=(clock,))
    if match := _BASE.fullmatch(re.sub(r"\\text\{([^{}]*)\}", r"\1", text)):
        return Reading(squash(text), ("base", match.group(1).lstrip("0") or "0", match.group(2)))
    if text.casefold() in _SETS or text in _SETS:
        return Reading(plain(text), _SETS.get(text) or _SETS[text.casefold()])
    if _WORDS.fullmatch(text) and not _is_formula(text):
        word = plain(text) or text
        number = _NUMBER_WORDS.get(word)
        return Reading(word, None if number is None else ("num", Fraction(number)))
    return _read_formula(text)


def _is_formula(text: str) -> bool:
    """Letters that are mathematics all the same: pi, xy, inf, "A, B", "B and C"."""
    words = re.findall(r"[a-zA-Z]+", text.replace("\\text", ""))
    return all(len(word) == 1 or word.lower() in _MATH_WORDS or _is_product(word) for word in words)


def _is_product(word: str) -> bool:
    return len(word) == 2 and set(word) <= set("abcdkmnpqrstuvwxyz") and word not in _TWO_LETTER_WORDS


def _read_formula(text: str) -> Reading:
    bare, money = split_money(text)
    bare = mark_units(bare)
    try:
        parsed = None if _is_prose(bare) else parse(bare)
    except (Unreadable, RecursionError):
        parsed = None
    if parsed is None:
        return Reading(plain(bare) or text, _stated(bare))
    tree, names, relation = _assignments(parsed.tree)
    units = {UNITS[word] for unit in parsed.units for word in _unit_words(unit) if word in UNITS}
    numeral = bare.replace(",", "")
    return Reading(
        squash(bare),
        tree,
        names,
        relation,
        frozenset(units | ({"dollar"} if money else set()) | ({"percent"} if parsed.percent else set())),
        percent=parsed.percent or "percent" in units,
        decimal=numeral if _DECIMAL.fullmatch(numeral) else None,
        evaluated=_is_evaluated(tree),
        others=tuple(_other_readings(bare, tree)),
    )


def _other_readings(text: str, tree: Tree) -> Iterator[Tree]:
    if measure := _MEASURE.fullmatch(text):
        yield ("num", Fraction(measure.group(1)))
    if decimal_comma := _DECIMAL_COMMA.fullmatch(text):
        yield ("num", Fraction(".".join(decimal_comma.groups())))
    if "j" in symbols(tree):
        yield _renamed(tree)


def _renamed(tree: Tree) -> Tree:
    """j as the imaginary unit."""
    if tree == ("sym", "j"):
        return ("const", "i")
    return tuple(_renamed(part) if isinstance(part, tuple) else part for part in tree)


def _is_prose(text: str) -> bool:
    """Three words beside the mathematics and the units, or two at the start."""
    bare = re.sub(r"\\text\{[^{}]*\}|\\[a-zA-Z]+", " ", text)
    runs = re.findall(r"[a-zA-Z]{2,}", bare)
    words = [run for run in runs if not (run.isupper() or run.lower() in FUNCTION_WORDS or _is_product(run))]
    return len(words) >= 3 or (len(words) == 2 and text.startswith(words[0]))


def _stated(prose: str) -> Tree | None:
    """The number that a sentence states: behind its last "=", or its only one; None where it hedges."""
    if result := _RESULT.search(prose):
        return ("num", Fraction(result.group(1).replace(",", "")))
    if not _is_prose(prose) or "\\" in prose.replace("\\text", "") or _HEDGE.search(prose):
        return None
    numbers = _PROSE_NUMBER.findall(prose)
    return ("num", Fraction(numbers[0].replace(",", ""))) if len(numbers) == 1 else None


def _unit_words(unit: str) -> list[str]:
    words = re.findall(r"[a-z]+", unit)
    singular = [word if word in UNITS else word.removesuffix("s") for word in words]
    return [*singular, "hour"] if "mph" in words else singular


def _is_evaluated(tree: Tree) -> bool:
    """A numeral, a fraction of numerals or a mixed number, signed or not; vacuously true of other things."""
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
    if tree[0] != "rel":
        return None, tree, None
    operators, members = tree[1], list(tree[2:])
    if operators == ("in",):
        return spell(members[0]), members[1], None
    if set(operators) - {"=", "~"}:
        return None, tree, None
    if "~" in operators:  # sqrt(5) ~ 2.236 says sqrt(5); x ~ 11 says 11
        cut = operators.index("~") + 1
        members = members[:cut] if cut > 1 or not is_name(members[0]) else members[: cut + 1]
    if len(members) == 1:
        return None, members[0], None
    if len(members) == 2 and is_name(members[1]) and not is_name(members[0]) and not symbols(members[0]):
        members.reverse()
    if is_name(members[0]) and not _named(members[0]) & symbols(members[-1]):
        whole = ("rel", ("=",), members[0], members[-1])
        return spell(members[0]), members[-1], whole if symbols(members[-1]) else None
    if not symbols(members[-1]) and (len(members) > 2 or not symbols(members[0])):
        return None, members[-1], None  # 2 * 3! * 4! = 2 * 6 * 24 = 288
    return None, tree, None


def _named(name: Tree) -> frozenset[str]:
    """The symbols that an assignment defines: f of f(x)."""
    return symbols(name[1] if name[0] == "mul" else name)


def is_name(tree: Tree) -> bool:
    """x, a_n, f(x), AB, |AB|, (p, q), \\sin x: what an answer may be assigned to."""
    if tree[0] == "fn" and tree[1] not in ("root",):
        return all(part[0] in ("num", "sym") or is_name(part) for part in tree[2:]) and bool(symbols(tree))
    if tree[0] == "seq":
        return all(item[0] == "sym" for item in tree[3:])
    if tree[0] == "mul" and all(part[0] == "sym" for part in tree[1:-1]) and tree[-1][0] in ("sym", "num"):
        letters = [part[1] for part in tree[1:] if part[0] == "sym"]
        segment = len(letters) == len(tree) - 1 and all(letter.isupper() for letter in letters)
        return segment or (len(tree) == 3 and letters[0] in _FUNCTION_NAMES)
    return tree[0] == "sym"
