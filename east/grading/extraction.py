r"""From a response to its final answer, and from a solution to its gold answer, in linear time.

Where an answer is looked for, in this order (the `source` of an answer): "boxed", the last \boxed{}; "hash", GSM8K's
`#### 18`; "the answer is", a sentence that announces the answer; "last number", the last number of the text, which is
a guess; "none", no answer.
"""

import hashlib
import re
from typing import Literal, NamedTuple

from east.grading.mathematics.lexer import MAX_CHARACTERS
from east.grading.mathematics.units import is_unit

Source = Literal["boxed", "hash", "the answer is", "last number", "none"]
Extraction = Literal["boxed", "marked", "last number"]
Boxes = Literal["joined", "last"]

SOURCES: tuple[Source, ...] = ("boxed", "hash", "the answer is", "last number", "none")
MAX_ANSWER = MAX_CHARACTERS  # a longer answer is cut and its hash appended: distinct answers stay distinct
MAX_BOXES = 12  # boxes read, from the end of the text
REACH = MAX_ANSWER + 100  # characters before a box that are searched for the box before it
MAX_BOX = 50_000  # characters after the start of a box that are searched for its closing brace
TAIL = 4_000  # characters at the end of a response that are searched for an answer outside a box


class Answer(NamedTuple):
    """The final answer as written (None if there is none) and where it was found."""

    text: str | None
    source: Source


_BOX = re.compile(r"\\(?:boxed|fbox)(?![a-zA-Z])\s*")
_BRACES = re.compile(r"\\.|[{}]", re.DOTALL)
_OPEN_END = re.compile(r"\n|\$|\\\)|\\\]|<\|")
_BETWEEN_BOXES = re.compile(r"(?:\\[()\[\],;!:. ]|\\q?quad|\\text|\\left|\\right|[${}(),;&\s*]|and|[a-zA-Z]\s*=)*\.?")
_HASH = re.compile(r"####[ \t]*(?=[-+−$€£(\\]{0,4}\.?\d)(?!\d+[.)]\s)([^\n]{1,200})")
_LAST_HASH = re.compile(r"####[ \t]*(\S[^\n]{0,199})\s*$")
_ANNOUNCED = re.compile(
    r"(?:answers?|correct (?:option|choice))(?:\*\*)?(?:\s+to\s[^.\n]{0,80}?)?"
    r"(?:\s+(?:is|are|was|would be|should be)(?:\b|(?=n['’]t))|\s+(?=(?:can|could|would)(?:not|n['’]t|\snot))"
    r"|\s*[:=]|(?=\s*(?:\\[(\[]|\$)))[\s:*,]*",
    re.IGNORECASE,
)
_SEGMENT = re.compile(
    r"(?<!\\)\$\$(.{1,1000}?)\$\$|(?<!\\)\$([^$\n]{1,500})(?<!\\)\$"
    r"|\\\((.{1,1000}?)\\\)|\\\[(.{1,1000}?)\\\]",
    re.DOTALL,
)
_NUMBER = re.compile(r"(?:(?<![\w)\]}])[-−])?[$€£]?(?:\d[\d,]*)?\.?\d+(?:/\d+)?(?:\\?%)?")
_SURROGATE = re.compile("[\ud800-\udfff]")
_FINAL = re.compile(r"final answer is:?\s*\$([^$\n]{1,300})\$", re.IGNORECASE)
_SENTENCE_END = re.compile(r"\n|[.!?](?:\s|$)|,? (?:because|since|which|so that|and not|not|rather than)\b")
_WORDS = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z]{2,}")
_LEADING_NUMBER = re.compile(
    r"(-?\\?[$€£]?\d[\d,]*(?:\.\d+)?(?:/\d+)?\\?%?)(?:\s+([a-zA-Z][a-zA-Z /-]*))?(?:[,;(](?!\s*\S{0,3}\d).*)?$"
)
_ADVERB = re.compile(r"(?:therefore|thus|hence|then|simply|just|indeed)\b[\s:,]*")
_JOINED = re.compile(r"\s*(?:,|and|or)\s*(?:\$|\\\()")
_COMPARED = re.compile(r"(?:(?<=\s)[<>]|(?<![<\w])\w[<>]|[≤≥≠]|<=|>=|\\(?:leq?|geq?|lt|gt|neq?))\s*\Z")
_GLUED = re.compile(r"[\w\\^{}()+*/.$%=-]*")
_SPECIAL = re.compile(r"(?:\s*<\|[^|>]{0,60}\|>|\s*</?[a-z_]{1,30}>)+\s*$")


def extract(
    text: str, *, extraction: Extraction = "marked", boxes: Boxes = "joined", truncated: bool = False
) -> Answer:
    """The final answer of a response.

    extraction, boxes: see `options.Grading`. truncated: the response was cut at the token limit; an unclosed box and
    the last number are then not its answer. Time is linear in len(text).
    """
    boxed = _boxed(text, boxes, truncated)
    if boxed and (last := _final(text)):  # after the last box: "\boxed{255} ... The final answer is $455$."
        return Answer(_bounded(last), "the answer is")
    if boxed is not None:
        return Answer(_bounded(boxed), "boxed") if boxed else Answer(None, "none")
    if hashed := _hashed(text):
        return Answer(_bounded(hashed), "hash")
    if extraction == "boxed":
        return Answer(None, "none")
    tail = _SPECIAL.sub("", text[-TAIL:])
    if announced := _announced(tail):
        return Answer(_bounded(announced), "the answer is")
    if extraction == "last number" and not truncated and (last := _last_number(tail)):
        return Answer(_bounded(last), "last number")
    return Answer(None, "none")


def gold_answer(solution: str) -> str | None:
    r"""The gold answer of a worked solution: its last balanced \boxed{}, else the text after `####`.

    None if there is neither, or if the last box is empty.
    """
    gold = _boxed(solution, "last", truncated=True)
    if gold is None and "####" in solution:
        gold = solution.rsplit("####", 1)[1].strip()
    return gold or None


def _boxed(text: str, boxes: Boxes, truncated: bool) -> str | None:
    """The content of the last box that is not empty; "" if every box is empty, None if there is no box."""
    spans: list[tuple[int, int, str]] = []
    unclosed, empty, end = None, False, len(text)
    for _ in range(MAX_BOXES):
        window = max(0, end - REACH) if spans else 0
        start = max(text.rfind("\\boxed", window, end), text.rfind("\\fbox", window, end))
        if start < 0:
            break
        limit, end = end, start  # a box is searched up to the next box only: every character is scanned once
        opening = _BOX.match(text, start)
        if opening is None:
            continue
        stop, content = _box_content(text, opening.end(), limit)
        if stop is None:
            unclosed = unclosed or content
        elif not content:
            empty = True
        elif spans and boxes == "joined" and not _adjacent(text, stop, spans[-1][0]):
            break
        else:
            spans.append((start, stop, content))
            if boxes == "last":
                break
    if spans:
        contents = list(dict.fromkeys(content for _, _, content in reversed(spans)))
        return contents[0] if len(contents) == 1 else ", ".join(contents)
    if unclosed and not truncated:
        return unclosed
    return "" if empty or unclosed is not None else None


def _box_content(text: str, start: int, limit: int) -> tuple[int | None, str]:
    """(end, content) of the box whose argument begins at `start`; end is None if the box is open at `limit`."""
    open_end = _OPEN_END.search(text, start, limit)
    if not text.startswith("{", start):  # TeX without braces: \boxed 3
        end = open_end.start() if open_end else limit
        return end, text[start:end].strip().rstrip(".")
    limit = min(limit, start + MAX_BOX)
    depth = 0
    for brace in _BRACES.finditer(text, start, limit):
        depth += {"{": 1, "}": -1}.get(brace.group(), 0)
        if depth == 0:
            return brace.end(), text[start + 1 : brace.start()].strip()
    return None, text[start + 1 : open_end.start() if open_end else limit].strip()


def _adjacent(text: str, stop: int, start: int) -> bool:
    """Whether there are only connectives between two boxes (and the boxes are not nested)."""
    return 0 <= start - stop <= 40 and _BETWEEN_BOXES.fullmatch(text, stop, start) is not None


def _hashed(text: str) -> str | None:
    """The text after a `####` on the last line, otherwise the number after the last `####`."""
    tail = _SPECIAL.sub("", text[-TAIL:])
    if last := _LAST_HASH.search(tail, max(0, tail.rfind("####"))):
        return last.group(1).strip()
    hashes = _HASH.findall(tail)
    return hashes[-1].strip() if hashes else None


def _final(text: str) -> str | None:
    """The formula of "the final answer is $...$" if no box follows it."""
    if text.find("inal answer is", max(0, len(text) - TAIL)) < 0:  # true of most responses, and fast
        return None
    formulas = _FINAL.findall(text, max(text.rfind("\\boxed"), text.rfind("\\fbox"), len(text) - TAIL))
    return formulas[-1].strip() if formulas else None


def _announced(tail: str) -> str | None:
    """The answer after the last `answer is`, `Answer:` or `Answer $...$`."""
    last = None
    for last in _ANNOUNCED.finditer(tail):  # noqa: B007 - the last match is needed
        pass
    return _from_sentence(tail[last.end() :]) if last else None


def _from_sentence(text: str) -> str | None:
    """The answer in a sentence: the formula it begins with, the text after its last `is`, its number, or all of it.

    A sentence whose words may change its number is returned as it is, and parsed later (`prose`): "between 9 and 10".
    """
    text = _ADVERB.sub("", text.lstrip(" \t\n*:_,"))
    end = _SENTENCE_END.search(text)
    sentence = (text[: end.start()] if end else text).strip(" *_`\"'")
    if (segment := _SEGMENT.match(text)) and _is_formula(segment):
        joined = _JOINED.match(sentence, segment.end())
        return re.sub(r"(?<!\\)\$|\\[()]", "", sentence) if joined else _content(segment)
    if not sentence or len(sentence) > 300:
        return None
    if " is " in sentence:
        return _from_sentence(sentence.rsplit(" is ", 1)[1])
    leading = _LEADING_NUMBER.match(sentence)
    if leading and (leading.group(2) is None or is_unit(leading.group(2))):
        return leading.group(1)
    return sentence


def _last_number(text: str) -> str | None:
    """The last number of a text, or the formula that contains it; None if it is only a bound ("x < 5")."""
    last = None
    for last in _NUMBER.finditer(text):  # noqa: B007 - the last match is needed
        pass
    if last is None:
        return None
    for segment in _SEGMENT.finditer(text):
        if segment.start() <= last.start() < segment.end() and _is_formula(segment):
            return _content(segment)
    if _COMPARED.search(text, max(0, last.start() - 10), last.start()):
        return None
    before = re.search(r"[\w\\^{}()+*/.$=-]*\Z", text[max(0, last.start() - 200) : last.start()])
    behind = _GLUED.match(text, last.end(), last.end() + 200)
    assert before and behind
    glued = f"{before.group()}{last.group()}{behind.group()}".rstrip(".*")
    return glued.strip("*") if re.search(r"\\[a-zA-Z]|[a-zA-Z^]", glued) else last.group()


def _is_formula(segment: re.Match[str]) -> bool:
    """Whether `$...$` contains mathematics, and not the words between two prices ("$5 and $6")."""
    content = segment.group(2)
    return content is None or content == content.strip() or not _WORDS.search(re.sub(r"\\[a-z]+\{[^}]*\}", "", content))


def _content(segment: re.Match[str]) -> str:
    return next(group for group in segment.groups() if group is not None).strip()


def _bounded(answer: str) -> str:
    """The answer without lone surrogates, cut to MAX_ANSWER characters and a hash."""
    answer = _SURROGATE.sub("\ufffd", answer.strip())
    if len(answer) <= MAX_ANSWER:
        return answer
    return f"{answer[:MAX_ANSWER]} [sha256 {hashlib.sha256(answer.encode()).hexdigest()}]"
