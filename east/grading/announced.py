r"""What stands behind a mark that announces an answer: "Answer:", "the answer is", `### Final Answer`."""

import re

from east.grading.mathematics.units import is_unit
from east.grading.sentences import (
    BOLD,
    FOREIGN,
    NUMERAL,
    SEGMENT,
    UNCERTAIN,
    bold_values,
    closes,
    content,
    is_formula,
    result,
    states_value,
    without_accents,
    word_count,
)

_SENTENCE_END = re.compile(
    r"\n|[.!?](?:\s|$)|[。！？]|,? \(?(?:because|since|which|so that|as (?:we|it|the)|and not|not|rather than)\b"
)
FENCE = re.compile(r"```[ \t]*[a-zA-Z]{0,12}[ \t]*\n([^`]{1,300})(?:```)?")
_OPENING = " \t\n*:：_,`=>→"
_LEADING_NUMBER = re.compile(
    r"(-?\\?[$€£]?\d[\d,]*(?:\.\d+)?(?:/\d+)?\\?%?)(?:\s+([a-zA-Z][a-zA-Z /-]*))?"
    r"(?:[,;(](?!\s*\S{0,3}\d).*| \([^()]*[=*×+][^()]*\)| [-–—] [A-Z].*)?$"
)
_FIRST_ITEM = re.compile(r"1[.)]\s+\S")
_SUBJECT = re.compile(rf"({NUMERAL})\s+(?:is|are)\s")  # 4 is the number of apples
_CHOICE = re.compile(r"(?:(\([A-J]\)|[A-J]\)|[A-J](?=[.:]\s))(?=[.:]?\s)|([A-J])(?=,\s+[a-z]{2}|\s+[-–—]\s|\s+\(|$))")
_ADVERB = re.compile(
    r"(?:therefore|thus|hence|then|so|simply|just|indeed|actually|really|exactly|now|for sure"
    r"|definitely|clearly|obviously|certainly|surely"
    r"|equal to|option|choice|letter)\b(?! of)[\s:,*]*",
    re.IGNORECASE,
)
_CONNECTED = re.compile(
    r"(?:as follows|the following|(?:given |shown |found |calculated )?(?:as )?below|given(?: by)?)\b[\s:,*]*",
    re.IGNORECASE,
)
_SPOKEN = re.compile(r"(?:let|we|i|you|there|first|step|it)\b", re.IGNORECASE)  # no value begins with these
_JOINED = re.compile(r"\s*(?:,|and|or)\s*(?:\$|\\\()")
_NO_ANSWER = re.compile(
    r"(?:(?:in)?correct|right|wrong|helpful|useful|(?:not )?clear|reasonable|exact|here|above|it|this|that|null|none"
    r"|n/a|\?+|(?:\\begin\{\w+\*?\}|your|my|the|final|insert|answer|here|only|number|goes|\W)*)\W*"
    r"|(?:the (?:\w+ ){0,2}(?:number|step|weight|sum|total"
    r"|product|difference|amount|value|ratio|same|one|result|answer|solution|cost)"
    r"|what|how|whether|that|to|in (?:the|a|this)|an? (?:\w+ )?(?:number|integer|fraction|decimal|percentage|list)"
    r"|(?:found|obtained|calculated|determined|derived|computed|reached) (?:by|from|in|as|using|through)"
    r"|given|rounded|expressed|written|left|simplified|reported|correct|wrong)"
    r"(?:'s)?(?:\s(?!.*=)(?!.*\b(?:is|are|was)\s+\S{0,3}\d).*)?",
    re.IGNORECASE | re.DOTALL,
)


def after_mark(text: str, *, prose_counts: bool = True) -> str | None:
    """The answer behind a mark: a fence, formula, choice, bold part or number, or else the sentence.

    A sentence whose words may change its number is returned as it is, and parsed later (`prose`): "between 9 and 10".
    prose_counts: may it be in a sentence that others follow? Behind "Answer:" a worked solution may begin.
    """
    if fence := FENCE.match(text.lstrip(" \t\n*:：")):
        return after_mark(fence.group(1).strip())
    if (bold := BOLD.match(text.lstrip(" \t\n:：_,"))) and states_value(bold.group(1)):
        return after_mark(bold.group(1))
    text = _stripped(text)
    if connected := _CONNECTED.match(text):
        text, prose_counts = text[connected.end() :].lstrip(_OPENING), False
    if (segment := SEGMENT.match(text)) and is_formula(segment):
        end = _SENTENCE_END.search(text)
        joined = _JOINED.match(text, segment.end(), end.start() if end else len(text))
        if not joined:
            return content(segment)
        return re.sub(r"(?<!\\)\$|\\[()]", "", text[: end.start()] if end else text).strip(" *_`\"'")
    return _in_sentence(text, prose_counts)


def _stripped(text: str) -> str:
    text = text.lstrip(_OPENING)
    while adverb := _ADVERB.match(text):
        text = text[adverb.end() :].lstrip(_OPENING)
    return text


def _in_sentence(text: str, prose_counts: bool) -> str | None:
    end = _SENTENCE_END.search(text)
    written, rest = (text[: end.start()], text[end.end() :]) if end else (text, "")
    sentence = re.sub(r"(?<!\w)\*\*|\*\*(?!\w)", "", written).strip(" *_`\"'")
    if not prose_counts and _FIRST_ITEM.match(text) and re.search(r"\n\s*2[.)]\s", text):
        return None
    if choice := _CHOICE.match(text):
        return choice.group(1) or choice.group(2)
    if len(sentence) > 300 or _NO_ANSWER.fullmatch(sentence):
        return None
    words = word_count(sentence)
    if words > 2 and _SPOKEN.match(sentence):
        return result(sentence, announced=True) if prose_counts or closes(rest) else None
    if not prose_counts and (words > 2 or _is_calculation(sentence)) and not closes(rest):
        return None
    if bold := next(bold_values(written), None):
        return bold
    leading = _LEADING_NUMBER.match(without_accents(sentence))
    if leading and (leading.group(2) is None or is_unit(leading.group(2))):
        return leading.group(1)
    if subject := _SUBJECT.match(sentence):
        return subject.group(1)
    if " is " in sentence:
        return after_mark(sentence.rsplit(" is ", 1)[1])
    if words > 2 and UNCERTAIN.search(sentence):
        return None
    if words > 2 or FOREIGN.search(sentence):
        return result(sentence, announced=True) or sentence
    return sentence


def _is_calculation(sentence: str) -> bool:
    return re.search(r"\d\D*=\D*\d", sentence) is not None
