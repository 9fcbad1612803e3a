"""Numbers in sentences: the number that a sentence states, and numbers written in words.

A sentence states a number if it is the only one and no word or sign can change or negate it: "x is greater than 5",
"The value isn't 5", "the square of 5" and "sqrt(5)" state no number.
"""

import re
from fractions import Fraction

from east.grading.mathematics.units import CALENDAR, FRACTIONS, NEVER_UNITS, is_unit

_NUMBER = r"-?\d[\d,]{0,20}(?:\.\d{1,20})?(?:/\d{1,15})?"
_ALONE = re.compile(rf"(?<![\w.,/+*^=<>()|-])({_NUMBER})(?![\w/^*+=<>()|%!-]|\.\d)")
_RESULT = re.compile(rf"=\s*({_NUMBER})[\s`\"')}}]*([a-zA-Z][a-zA-Z ]{{0,60}}|\\text\{{[^{{}}]*\}})?$")
_SENTENCE_START = re.compile(r"(?:[.;:!?]|\\n|\n)\s|=>|\\(?:Rightarrow|implies|to)(?![a-z])")
_CLAUSE_START = re.compile(r",\s|\b(?:and|so|where|then)\b")
_TIMES = re.compile(r"(?<=[\w)])\s+x(?=\s+[$\d(])|\\(?:times|cdot|div|frac|text)(?![a-z])")
_VARIABLE = re.compile(r"(?<![a-zA-Z\\'])[b-zB-HJ-Z](?![a-zA-Z])|\\")
_GROUP = re.compile(r"\([^()=<>]*\)|\[[^\[\]=<>]*\]|\{[^{}=<>]*\}")
_OPERAND = re.compile(r"[a-zA-Z]|.*[\d+*/^=<>|(-]")  # before a name: 2 x = 5 and a + x = 5 state no number
_QUANTITY = re.compile(
    r"(?:\\(?:lim|i?int|sum|prod)(?![a-zA-Z])[^-+=<>*/|]{0,60}|\|[^|=<>]{1,40}\|"
    r"|(?:\\(?:text|operatorname|gcd|lcm|det|tr|dim|deg|arg|Re|Im|Pr)(?![a-zA-Z])|[a-zA-Z]{1,20})(?:_\w{1,5})?'{0,3}"
    r"(?:\s\\?[a-zA-Z]{1,3})?)"
)
_SENTENCE = re.compile(r"[a-zA-Z\s.,;:'\"!?$-]*")
_TO_NINETEEN = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_TEENS = _TO_NINETEEN.split()
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_SMALL = {word: value for value, word in enumerate(_TEENS)} | {word: 20 + 10 * n for n, word in enumerate(_TENS)}
_LARGE = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
# Words before a number, or directly after it, with which a sentence does not state the number or states another one.
_HEDGING = (
    "no never neither nor without cannot can't unknown undetermined impossible unclear about approximately around "
    "nearly almost roughly exceeds exceed within beyond times thrice multiple multiples roots any all every either or "
    "if suppose assume maybe perhaps might could guess doubt unlike instead rather hundred thousand million "
    "billion trillion anything everything nothing pair pairs tens hundreds thousands millions squares cubes "
    "fewer"
)
_BEHIND = (NEVER_UNITS - CALENDAR - {"and", "to", "is"}) | {*_HEDGING.split()}
_BEFORE = _BEHIND - FRACTIONS
_NEGATED = re.compile(r"n't\b|\b(?:not|no|never|false|wrong|incorrect|impossible|cannot)\b")
_COMPARED = re.compile(r"\b(?:less|more|fewer|greater|larger|smaller|higher|lower|bigger) than\b|\bthan\s+\S?$")
_CHANGED = re.compile(
    r"\b(?:decreas|reduc|lower|fall|fell|drop|chang|divisib|differ|far|prime|close|next|relat)\w*\s+(?:by|from|to)\s*\S?$"
)
_DATE = re.compile(rf"\b(?:{'|'.join(CALENDAR)})\b,?(?: the)? 7|7 (?:of )?(?:{'|'.join(CALENDAR)})\b")
_FUNCTION_OF = re.compile(
    r"\b(?:cosine|sine|tangent|successor|predecessor|maximum|minimum|square|cube|sum|product|difference|quotient|"
    r"ratio|reciprocal|inverse|opposite|logarithm|log|value|double|"
    r"power|multiple|factor|divisor|fraction|part|all|any|each|every|out|up|instead)s?\s+(?:of|to|from)\s*\S?$"
)
_LETTER = re.compile(r"(?<!')\b[b-zB-HJ-Z]\b")
_STATED = re.compile(r"(?:\b(?:is|are|was|be|equals?|gives?|gets?|got|has|have|of)|[:=])\s*\S?$")


def is_prose(text: str, words: list[str]) -> bool:
    """Whether a text is a sentence: three words that are no mathematics, or two with one at the start. words: these."""
    return len(words) >= 3 or (len(words) == 2 and text.startswith(words[0]))


def is_quantity(left: str) -> bool:
    r"""Whether the left side of an equation names one number: P(A|B), E[X], \det A, |A \cap B|, an integral."""
    for _ in range(4):
        left = _GROUP.sub("", left)
    return _QUANTITY.fullmatch(left) is not None


def stated(text: str) -> tuple[Fraction | None, str]:
    """(the number that a sentence states, the words around it): its only one, or a result after "="; None for none.

    A result is the number after one name or calculation: "so x = 5", "the total is 2 * 3 = 6", and not "the circle is
    x^2 + y^2 = 109" or "x = 1 and x = 2".
    """
    if result := _RESULT.search(text):
        words = (result.group(2) or "").removeprefix("\\text").strip("{} ")
        stands = _names_one(text[: result.start()]) and (not words or is_unit(words))
        return (_value(result.group(1)) if stands else None), words
    text = re.sub(r"\\text\{([^{}]*)\}", r" \1 ", text)
    numbers = list(_ALONE.finditer(text))
    if len(numbers) != 1:
        return None, ""
    before, after = text[: numbers[0].start()], text[numbers[0].end() :]
    if _DATE.search(f"{before.lower()}7{after.lower()}"):
        return None, ""
    sentence, lead = f"{before} {after}".lower(), before.lower()
    if not _SENTENCE.fullmatch(sentence) or _NEGATED.search(sentence):
        return None, ""
    if _BEFORE & set(re.findall("[a-z]+", lead)) or _BEHIND & set(re.findall("[a-z]+", after.lower())[:3]):
        return None, ""
    if _COMPARED.search(lead) or _COMPARED.search(after.lower()) or _CHANGED.search(lead) or _FUNCTION_OF.search(lead):
        return None, ""
    if _LETTER.search(after) or _LETTER.search(before) and not _STATED.search(lead):
        return None, ""
    return _value(numbers[0].group(1)), f"{before} {after}"


def _names_one(left: str) -> bool:
    """Whether the text before a result ends with a calculation, or with the only name in its sentence."""
    sentence = _SENTENCE_START.split(left)[-1]
    clause = _CLAUSE_START.split(sentence)[-1]
    if _NEGATED.search(clause.lower()):
        return False
    part = clause.rsplit("=", 1)[-1]
    if re.search(r"\d", part) and not _VARIABLE.search(_TIMES.sub("*", part)):
        return True
    *before, last = part.split() or [""]
    return "=" not in sentence and is_quantity(last) and not (before and _OPERAND.fullmatch(before[-1]))


def _value(numeral: str) -> Fraction | None:
    top, _, bottom = numeral.replace(",", "").partition("/")
    return Fraction(top) / int(bottom or 1) if int(bottom or 1) else None


def number_in_words(text: str) -> int | None:
    """123 for "one hundred twenty-three"; None for anything else ("one two", "twenty and thirty")."""
    total, current, last = 0, 0, ""
    words = re.findall(r"[a-z]+", text.lower())
    sign = -1 if words[:1] in (["negative"], ["minus"]) else 1
    words = words[1:] if sign < 0 else words
    for word in words:
        if word in _SMALL:
            size = 10 if _SMALL[word] < 10 else 100
            if current % size or last in _TEENS:
                return None
            current += _SMALL[word]
        elif word == "hundred" and 0 < current < 10:
            current *= 100
        elif word in _LARGE and current > 0 and total % (1000 * _LARGE[word]) == 0:
            total, current = total + current * _LARGE[word], 0
        elif not (word == "and" and last in ("hundred", *_LARGE)):
            return None
        last = word
    return sign * (total + current) if words and last != "and" else None
