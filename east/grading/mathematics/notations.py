"""Whole answers with a notation of their own: 4:30 pm, 1011_2, C), 3 to 1, 3 out of 4, "7 and a half"."""

import re
from fractions import Fraction

from east.grading.mathematics.answer import Reading
from east.grading.mathematics.qualifiers import HALF_DAYS
from east.grading.mathematics.spelling import squash
from east.grading.mathematics.tree import Tree

_TIME = re.compile(r"(\d{1,2})(?:\s*:\s*(\d\d))?\s*(?:\\text\s*\{)?\s*([ap])\s*\.?\s*m\b\.?\s*\}?", re.IGNORECASE)
_DATE = re.compile(r"\d{4}-\d{1,2}-\d{1,2}|\d{1,2}[-/]\d{1,2}[-/]\d{4}|\d{1,2}/\d{1,2}/\d{2}")
_BASE = re.compile(r"\(?(-?[0-9A-Z]+(?:\.[0-9A-Z]+)?)\)?\s*_\s*\{?\s*(\d{1,2})\s*\}?")
# 1a_{16} and ff_{16}, but x_{16} is a name
_SMALL_DIGITS = re.compile(r"(-?(?=[a-z]*\d|[a-f]{2})[0-9a-z]+)\s*_\s*\{?\s*(1[1-9]|[23]\d)\s*\}?")
_IN_BASE = re.compile(r"(-?[0-9A-Z]+)\s*\(?\s*(?:in\s+)?base[\s-]+(\d{1,2})\s*\)?", re.IGNORECASE)
_CHOICE = re.compile(r"(?:\\text\{)?\(?([A-J])\)\}?")
_OPTION = re.compile(
    r"(?:(?:the\s+)?(?:option|choice)\s+(?:\\text\{)?\(?([A-J])\)?\}?|\(?(?:\\text\{)?([A-J])\}?(?:[.:]\s|\))\s*\S.*)",
    re.IGNORECASE,
)
_ODDS = re.compile(r"(\d{1,9})\s(?:\\text\{\s*)?(to|out of)(?:\s*\})?\s(\d{1,9})")
_WORDED = re.compile(r"(\d{1,9}) (?:\\text\{\s*)?(?:(squared|cubed)\}?|over(?:\s*\})? (\d{1,9}))")
_AND_A_HALF = re.compile(r"(\d{1,9}) (?:\\text\{\s*)?and (?:a|one) half(?:\s*\})?")
_HALVES = {"half": 2, "a half": 2, "one half": 2, "one-half": 2, "a third": 3, "one third": 3, "one-third": 3,
           "a quarter": 4, "one quarter": 4, "one-quarter": 4, "one fourth": 4, "one-fourth": 4}  # fmt: skip


def read_notation(text: str) -> Reading | None:
    """The reading of an answer in one of the notations; None for other answers. text: cleaned."""
    if _DATE.fullmatch(text):
        return Reading(text)
    return _time(text) or _based(text) or _choice(text) or _in_words(text)


def _time(text: str) -> Reading | None:
    """4:30 pm as 4:30. For comparison with the gold answer, 2:00 pm is also 2, and 2 pm is also 2:00."""
    match = _TIME.fullmatch(text)
    if match is None:
        return None
    hour, minutes, half = match.groups()
    whole: Tree = ("num", Fraction(hour))
    clock = ("ratio", whole, ("num", Fraction(minutes or 0)))
    half_of_day = frozenset({HALF_DAYS[half.lower()]})
    other = clock if not minutes else whole if minutes == "00" else None
    others = (Reading("", other, qualifiers=half_of_day),) if other else ()
    return Reading(squash(text), clock if minutes else whole, qualifiers=half_of_day, others=others)


def _based(text: str) -> Reading | None:
    """1011_2, and "1011 base 2"."""
    bare = re.sub(r"\\text\{([^{}]*)\}", r"\1", text)
    match = _BASE.fullmatch(bare) or _SMALL_DIGITS.fullmatch(bare) or _IN_BASE.fullmatch(bare)
    if match is None:
        return None
    return Reading(squash(f"{match[1]}_{match[2]}"), ("base", match[1].upper().lstrip("0") or "0", match[2]))


def _choice(text: str) -> Reading | None:
    """C) is C. For comparison with the gold answer, "option C" and "C) 12" are also C."""
    if match := _CHOICE.fullmatch(text):
        return Reading(match[1], ("sym", match[1]))
    return None


def option(text: str) -> Reading | None:
    """The letter of "option C" and of "(C) 12", for comparison with the gold answer; None for other answers."""
    match = _OPTION.fullmatch(text)
    return Reading("", ("sym", (match[1] or match[2]).upper())) if match else None


def _in_words(text: str) -> Reading | None:
    """3 to 1 is 3:1; 3 out of 4 is 3/4; 7 and a half is 15/2; 7 squared is 49; "one third" is 1/3."""
    if match := _ODDS.fullmatch(text):
        first, second = (("num", Fraction(match[group])) for group in (1, 3))
        return Reading(squash(text), ("ratio" if match[2] == "to" else "div", first, second))
    if match := _AND_A_HALF.fullmatch(text):
        return Reading(squash(text), ("num", int(match[1]) + Fraction(1, 2)))
    if match := _WORDED.fullmatch(text):
        power = {"squared": 2, "cubed": 3}.get(match[2])
        base, second = ("num", Fraction(match[1])), ("num", Fraction(power or match[3]))
        return Reading(squash(text), ("pow" if power else "div", base, second), evaluated=not power)
    if part := _HALVES.get(text.lower()):
        return Reading(text.lower(), ("num", Fraction(1, part)))
    return None
