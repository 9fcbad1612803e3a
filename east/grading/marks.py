r"""Marks that announce an answer. Each function yields the answers behind one kind of mark, the last one first.

`tail` is the end of a response. With `truncated` the response was cut there: an answer that runs into the end is left
out.
"""

import re
from collections.abc import Iterator

from east.grading.announced import FENCE, after_mark
from east.grading.endings import bold, last_sentence, last_sentences
from east.grading.sentences import sentences, word_count

MAX_MARKS = 12  # marks read, from the end of the text

_HASH = re.compile(r"####[ \t]*(?=[-+−$€£(\\*]{0,4}\.?\d)(?!\d+[.)]\s)([^\n\"<]{1,200})")
_LAST_HASH = re.compile(r"####[ \t]*([^\s\"][^\n\"]{0,199})\s*$")
_HEADED = re.compile(r"(?:the )?(?:final )?answer(?: is)?\b\s*:?", re.IGNORECASE)
_SECTION = re.compile(r"(?:step|part|conclusion|solution|summary|explanation|verification|check|note|final answer)\b",
                      re.IGNORECASE)  # fmt: skip
_SPECIAL = re.compile(r"(?:<\|[^|>]{0,60}\|>|</?[a-z_]{1,30}>)$")
_TAG = re.compile(r"<(/?)(?:(?:final[_ ]?)?answer|solution)\s?>", re.IGNORECASE)
_PLACEHOLDER = re.compile(r"[^\w∞∅]*|(?:your|the|final|my|answer|here|value|number|[\W_])*", re.IGNORECASE)
_LABEL = re.compile(
    r"^(?:grand |final )?(?:total|result|sum|answer|solution)[a-z ]{0,20}:\s+(?=[$\\]?-?\d)", re.IGNORECASE
)
_OPTION = re.compile(r"\(?[A-J][).:]\s")
_HEADING = re.compile(
    r"^[ \t]{0,3}(?:#{1,6}[ \t]*)?(?:\*\*|__)?[✅ ]{0,2}(?:the )?((?:final )?answer)"
    r"[ \t]?:?(?:\*\*|__)?[ \t]?:?[ \t]*\n\s*",
    re.IGNORECASE | re.MULTILINE,
)
_ANNOUNCED = re.compile(
    r"(?:(?:\banswers?|\bcorrect (?:option|choice))(?:\*\*)?(?:,\s\w{1,12},)?(?:\s+to\s[^.\n]{0,80}?)?"
    r"(?:\s+(?:is|are|was|equals|(?:would|should|must|will) be|comes (?:out )?to|turns out to be)"
    r"(?:\b|(?=n['’]t))|\s+(?=(?:can|could|would)(?:not|n['’]t|\snot))"
    r"|(?P<label>\s*[:：=]|\s[-–—](?=\s))|(?=\s*(?:\\[(\[]|\$))|(?<=inal answer)(?=\s+-?\d))"
    r"|(?P<line>^A:(?=\s)(?![^\n]*\n+\(?B\b))"
    r"|(?P<language>réponse|respuesta|resposta|risposta|antwort|ответ|الإجابة|उत्तर|jawaban|đáp án"
    r"|答案|答え|정답|[答답](?=\s*[:：]))"
    r"(?: finale?)?(?:\*\*)?(?:\s*[:：]|\s*[是为為は]|\s(?:est|es|ist|é|è|هي)\b))[\s:：*,]*",
    re.IGNORECASE | re.MULTILINE,
)
_SUPPOSED = re.compile(
    r"\b(?:(?:if|suppose|assum\w+|whether|unless)\s+(?:the|your|our|my)?\s*(?:final |correct )?"
    r"|(?:wrong|incorrect|false|not the|not an)\s)\Z",
    re.IGNORECASE,
)
_SAID = re.compile(r"(?<=\s)(?:is|as) (?:(?:the|our|my) (?:final |correct |only )?(?:answer|solution)|(correct))\b")
_BEFORE = re.compile(r"(\$[^$\n]{1,200}\$|[^\s$]{1,60})\s+\Z")
_VALUE = re.compile(r".*\d.*|\$.*\$|\(?[A-J]\)?")
_LETTER = re.compile(r"\(?[A-J]\)?")
_ANNOUNCING = (  # one of these is in every announcement; to search for them is fast
    "nswer", "NSWER", "orrect o", "orrect c", "A:", "épon", "espu", "espo", "ispo", "ntwor", "твет", "جابة", "उत्तर",
    "awaban", "áp án", "答", "정답", "답",
)  # fmt: skip
_SAYING = ("nswer", "olution", "orrect")


def hashes(tail: str, truncated: bool) -> Iterator[str]:
    """The text behind a `####` on the last line, then the numbers behind others."""
    tail = without_special(tail)
    last = None if truncated else _LAST_HASH.search(tail, max(0, tail.rfind("####")))
    if last and (text := _HEADED.sub("", last.group(1), count=1).strip()) and not _SECTION.match(text):
        yield text
    for found in reversed(list(_HASH.finditer(tail))[-MAX_MARKS:]):
        if not (last and last.start() == found.start()) and not (truncated and found.end() == len(tail)):
            yield found.group(1).strip()


def tags(tail: str, truncated: bool) -> Iterator[str]:
    """The text in <answer>...</answer>. The last tag may be open: a stop text is left out of a response."""
    end = None if truncated else len(tail)
    for tag in reversed(list(_TAG.finditer(tail))[-2 * MAX_MARKS :]):
        if tag.group(1):
            end = tag.start()
        elif end is not None:
            text, end = tail[tag.end() : end].strip(), None
            if answer := field(text):
                yield answer


def field(text: str) -> str | None:
    """The answer in the text of a tag or of a JSON value: a few words as they are, or what a sentence states."""
    text = _LABEL.sub("", FENCE.sub(r"\1", text).strip())
    if _PLACEHOLDER.fullmatch(text):
        return None
    if "\n" not in text and word_count(text) <= 2 and not _OPTION.match(text):
        return text.strip("*` ")
    if len(sentences(text)) == 1 and "\n" not in text:
        return after_mark(text)
    said = last_sentences(text)
    found = (next(find, None) for find in (announcements(text, False), bold(said), last_sentence(text, said)))
    return next((answer for answer in found if answer), None) or _behind(text, prose_counts=False)


def headings(tail: str, truncated: bool) -> Iterator[str]:
    """What the line after a line "### Answer" or "**Final Answer:**" states."""
    if "nswer" not in tail and "NSWER" not in tail:  # true of many responses, and fast
        return
    tail = _finished(tail) if truncated else without_special(tail)
    for heading in reversed(list(_HEADING.finditer(tail))[-MAX_MARKS:]):
        below = re.sub(r"^[-•>]\s+", "", tail[heading.end() :])
        if answer := _behind(below, prose_counts=heading.group(1).lower() != "answer"):
            yield answer


def announcements(tail: str, truncated: bool) -> Iterator[str]:
    """What "the answer is", "Answer:" and "42 is the answer" announce."""
    tail = _finished(tail) if truncated else without_special(tail)
    found: list[tuple[int, re.Match[str]]] = []
    for words, pattern in ((_ANNOUNCING, _ANNOUNCED), (_SAYING, _SAID)):
        if any(word in tail for word in words):
            found += [(mark.start(), mark) for mark in pattern.finditer(tail)]
    for _, mark in sorted(found, key=lambda pair: pair[0], reverse=True)[:MAX_MARKS]:
        answer = _said(tail, mark) if mark.re is _SAID else _announced(tail, mark)
        if answer:
            yield answer


def _said(tail: str, mark: re.Match[str]) -> str | None:
    """42 of "42 is the answer", B of "(B) is correct"."""
    said = _BEFORE.search(tail, max(0, mark.start() - 210), mark.start())
    text = said.group(1).strip("*`") if said else ""
    return text.strip("$") if (_LETTER if mark.group(1) else _VALUE).fullmatch(text) else None


def _announced(tail: str, mark: re.Match[str]) -> str | None:
    before = tail[max(0, mark.start() - 40) : mark.start()]
    if _SUPPOSED.search(before):
        return None
    label = mark.group("label") or mark.group("line")
    return _behind(tail[mark.end() :], prose_counts=not label or before.lower().endswith("final "))


def _behind(text: str, prose_counts: bool) -> str | None:
    answer = after_mark(text, prose_counts=prose_counts)
    return answer if answer and re.search(r"[\w∞∅]", answer) else None


def without_special(tail: str) -> str:
    """A text without special tokens and tags at its end."""
    tail = tail.rstrip()
    while tail.endswith(">") and (special := _SPECIAL.search(tail, max(0, len(tail) - 64))):
        tail = tail[: special.start()].rstrip()
    return tail


def _finished(tail: str) -> str:
    """The sentences of a cut text that are finished."""
    return tail[: max(tail.rfind(end) for end in ("\n", ". ", "! ", "? ")) + 1]
