r"""The string by which the authors' release clusters answers: the normalisation of the Qwen2.5-Math evaluation.

Rules, order and faults are those of the original: it removes a trailing \text{...}, so that 4:30 a.m. and 4:30 p.m.
are one string, and it removes the words of a list of units, single letters among them, anywhere in the text. It exists
to reproduce published results; `grading.clusters=value` is the recommended rule. Numbers in words with a decimal point
stay words.
"""

import re
from fractions import Fraction
from functools import lru_cache

from east.grading.rows import GradedQuestion

_UNIT_NAMES = (
    "east|degree|mph|kmph|ft|m sqaure| m east|sq m|deg|mile|q .|monkey|prime|ratio|profit of rs|rd|o|"
    "gm|p . m|lb|tile|per|dm|lt|gain|ab|way|west|a .|b .|c .|d .|e .|f .|g .|h .|t|a|h|no change|men|"
    "soldier|pie|bc|excess|st|inches|noon|percent|by|gal|kmh|c|acre|rise|a . m|th|π r 2|sq|mark|l|toy|"
    "coin|sq . m|gallon|° f|profit|minw|yr|women|feet|am|pm|hr|cu cm|square|v â € ™|are|rupee|rounds|"
    "cubic|cc|mtr|s|ohm|number|kmph|day|hour|minute|min|second|man|woman|sec|cube|mt|sq inch|mp|∏ cm ³|"
    "hectare|more|sec|unit|cu . m|cm 2|rs .|rs|kg|g|month|km|m|cm|mm|apple|liter|loss|yard|pure|year|"
    "increase|decrease|d|less|Surface|litre|pi sq m|s .|metre|meter|inch"
)
_UNITS = _UNIT_NAMES.split("|")
_UNIT_PATTERNS = [re.compile(rf"(^|\W){unit}($|\W)") for unit in [*_UNITS, *(unit + "s" for unit in _UNITS)]]
_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_DIGIT_WORDS = {word: value for value, word in enumerate(_SMALL.split())} | {
    word: 10 * value for value, word in enumerate(_TENS.split(), 2)
}
_SCALE_WORDS = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9}
_BEFORE_UNITS = [
    (re.compile(r"\\begin\{array\}\{.*?\}"), r"\\begin{pmatrix}"),
    (re.compile(r"\\end\{array\}"), r"\\end{pmatrix}"),
]
_TEXT_AT_END = re.compile(r"\\text{.*?}$")
_TEXT = re.compile(r"\\text\{(.*?)\}")
_MBOX = re.compile(r"\\mbox{.*?}")
_ZEROS = [(re.compile(r"(\d+)\.0*([^\d])"), r"\1\2"), (re.compile(r"(\d+)\.0*$"), r"\1")]
_BARE_SQRT = re.compile(r"\\sqrt(\w+)")
_NUMERAL = re.compile(r"-?\d{1,300}(?:\.\d{1,300})?")
_ASSIGNED = [f"{name}{link}" for link in ("=", "\\in", "\\to") for name in "xyz"]


@lru_cache(maxsize=100_000)
def qwen_string(answer: str) -> str:
    """The normalised string of an extracted answer. Not idempotent: apply it once."""
    text = re.sub(r"\n\s*", "", answer).removeprefix(":").removesuffix(".").removesuffix("/").strip()
    text = text.replace("\n", "").rstrip(".").replace("\\!", "")
    for pattern, replacement in _BEFORE_UNITS:
        text = pattern.sub(replacement, text)
    for old, new in (
        ("bmatrix", "pmatrix"), ("tfrac", "frac"), ("dfrac", "frac"), ("\\neq", "\\ne"), ("\\leq", "\\le"),
        ("\\geq", "\\ge"), ("\\left", ""), ("\\right", ""), ("\\{", "{"), ("\\}", "}"),
    ):  # fmt: skip
        text = text.replace(old, new)
    text = _TEXT_AT_END.sub("", text).strip() or text
    text = _without_units(text)
    for old in ("^{\\circ}", "^\\circ", "\\$", "$", "\\(", "\\)"):
        text = text.replace(old, "")
    text = _TEXT.sub(r"\1", _words_to_digits(text))
    for old in _ASSIGNED:
        text = text.replace(old, "")
    for old, new in (
        ("\\emptyset", "{}"), ("(-\\infty,\\infty)", "\\mathbb{R}"), ("\\%", ""), ("%", ""), (" .", " 0."),
        ("{.", "{0."), ("infinity", "\\infty"),
    ):  # fmt: skip
        text = text.replace(old, new)
    if "\\infty" not in text:
        text = text.replace("inf", "\\infty")
    text = _MBOX.sub("", text.replace("+\\inity", "\\infty").replace("and", "").replace("\\mathbf", ""))
    if "j" in text and "i" not in text:
        text = text.replace("j", "i")
    for pattern, replacement in _ZEROS:
        text = pattern.sub(replacement, text)
    return _last_rules(text) if text else text


def same_qwen_string(gold: str, answer: str) -> bool:
    """Whether two normalised strings are equal, or are equal numbers (900,000 and 900000)."""
    numbers = [text.replace(",", "") for text in (gold, answer)]
    if all(_NUMERAL.fullmatch(number) for number in numbers):
        return Fraction(numbers[0]) == Fraction(numbers[1])
    return gold == answer


def with_string_match(row: GradedQuestion) -> GradedQuestion:
    """The row with `string_match`: are the normalised strings of answer and gold answer equal?"""
    gold = qwen_string(row["gold"])
    string_match = [answer is not None and qwen_string(answer) == gold for answer in row["answer"]]
    return {**row, "string_match": string_match}


def _last_rules(text: str) -> str:
    text = f"0{text}" if text[0] == "." else text
    sides = text.split("=")
    if len(sides) == 2 and len(sides[0]) <= 2:
        text = sides[1]
    text = _braced_fractions(_BARE_SQRT.sub(r"\\sqrt{\1}", text).replace(" ", ""))
    sides = text.split("/")
    if len(sides) == 2 and all("sqrt" in side or re.fullmatch(r"0|-?[1-9]\d*", side) for side in sides):
        return f"\\frac{{{sides[0]}}}{{{sides[1]}}}"
    return text


def _without_units(text: str) -> str:
    for _ in range(2):
        for pattern in _UNIT_PATTERNS:
            text = pattern.sub(r"\1\2", text) or text
    return text


def _words_to_digits(text: str) -> str:
    """The number that words give ("forty two" -> "42"; other words are dropped); digits lose leading zeros."""
    spaced = text.replace("-", " ").lower()
    if re.fullmatch(r"[0-9]{1,4000}", spaced):
        return str(int(spaced))
    words = [word for word in spaced.split() if word in _DIGIT_WORDS or word in _SCALE_WORDS]
    if not words or "point" in spaced.split():
        return text
    total = group = 0
    for word in words:
        if word == "hundred":
            group = max(group, 1) * 100
        elif word in _SCALE_WORDS:
            total, group = total + max(group, 1) * _SCALE_WORDS[word], 0
        else:
            group += _DIGIT_WORDS[word]
    return str(total + group)


def _braced_fractions(text: str) -> str:
    r"""\frac12 -> \frac{1}{2}, \frac1{72} -> \frac{1}{72}; the text is unchanged if it has a lone \fracx."""
    head, *parts = text.split("\\frac")
    for part in parts:
        if not part.startswith("{"):
            if len(part) < 2:
                return text
            rest = part[1:] if part[1] == "{" else f"{{{part[1]}}}{part[2:]}"
            part = f"{{{part[0]}}}{rest}"
        head += f"\\frac{part}"
    return head
