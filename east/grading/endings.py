r"""The answer at the end of a response that marks none: bold, in the last sentence, or the last number.

The last sentence is that of the last line which says something: "I hope this helps!" and "---" do not.
"""

import re
from collections.abc import Iterator

from east.grading.sentences import CLOSING, SEGMENT, bold_values, content, is_formula, result, sentences

_NUMBER = re.compile(r"(?:(?<![\w)\]}])[-−])?[$€£]?(?:\d[\d,]*)?\.?\d+(?:/\d+)?(?:\\?%)?")
_COMPARED = re.compile(r"(?:(?<=\s)[<>]|(?<![<\w])\w[<>]|[≤≥≠]|<=|>=|\\(?:leq?|geq?|lt|gt|neq?))\s*\Z")
_GLUED = re.compile(r"[\w\\^{}()+*/.$%=-]*")
_ITEM = re.compile(r"\s*(?:[-•*+]|\d{1,2}[.)])\s")
_CONCLUDES = re.compile(r"=|\b(?:total|therefore|so|thus|hence|final(?:ly)?|result|answer|altogether)\b", re.IGNORECASE)
_DATA = re.compile(r"[\"']\s*:|^\s*[{}|<]")
_ROWS = re.compile(r"\\(?:begin|end)\{(?:align|aligned|gather|gathered|split|equation)\*?\}|&")
_DISPLAYS = (("\\]", "\\["), ("$$", "$$"), ("\\end{align*}", "\\begin{align*}"), ("\\end{align}", "\\begin{align}"))
_CHOICE = re.compile(r"[\s*]*\(?([A-J])\)?\.?[\s*]*")
_QUOTED = re.compile(r"\s*[-−$€£]?[\d,]*\.?\d+\s*%?\s*")


def bold(said: list[str]) -> Iterator[str]:
    """The bold numbers and formulas of the last sentence, the last one first. said: `last_sentences`."""
    for sentence in said:
        yield from bold_values(sentence)


def last_sentence(tail: str, said: list[str]) -> Iterator[str]:
    """The number or formula that the last sentence states. said: the `last_sentences` of `tail`."""
    if display := _display(tail):
        yield display
    elif choice := _CHOICE.fullmatch(tail.rstrip().rpartition("\n")[2]):
        yield choice.group(1)
    for sentence in () if display else said:
        if "answer" not in sentence.lower() and (value := result(sentence)):  # else it is an announcement
            yield value


def last_number(tail: str) -> Iterator[str]:
    """The last number of a text, or the formula that contains it; none if it is only a bound ("x < 5")."""
    last = None
    for last in _NUMBER.finditer(tail):  # noqa: B007 - the last match is needed
        pass
    if last is None:
        return
    for segment in SEGMENT.finditer(tail):
        if segment.start() <= last.start() < segment.end() and is_formula(segment):
            yield content(segment)
            return
    if _COMPARED.search(tail, max(0, last.start() - 10), last.start()):
        return
    before = re.search(r"[\w\\^{}()+*/.$=-]*\Z", tail[max(0, last.start() - 200) : last.start()])
    behind = _GLUED.match(tail, last.end(), last.end() + 200)
    assert before and behind
    glued = f"{before.group()}{last.group()}{behind.group()}".rstrip(".*")
    yield glued.strip("*") if re.search(r"\\[a-zA-Z]|[a-zA-Z^]", glued) else last.group()


def last_sentences(tail: str) -> list[str]:
    """The last sentence of the last line that says something; none for data, for code and for an item of a list.

    A list of one sentence, or of none.
    """
    lines = [line for line in tail.splitlines() if line.strip()]
    while lines and CLOSING.match(lines[-1]) and not lines[-1].strip().startswith("```"):
        lines.pop()
    if not lines:
        return []
    if lines[-1].strip().startswith("```"):  # code, or output
        return lines[-2:-1] if len(lines) > 1 and _QUOTED.fullmatch(lines[-2]) else []
    line = lines[-1]
    if _DATA.search(line) or _ITEM.match(line) and not _CONCLUDES.search(line):
        return []
    said = [sentence for sentence in sentences(line) if not CLOSING.match(sentence)]
    return said[-1:]


def _display(tail: str) -> str | None:
    """The last row of the displayed formula that a text ends with."""
    tail = tail.rstrip(" \t\n.,*")
    for closing, opening in _DISPLAYS:
        if tail.endswith(closing):
            start = tail.rfind(opening, 0, len(tail) - len(closing))
            row = (
                _ROWS.sub("", tail[start + len(opening) : -len(closing)]).strip().removesuffix("\\\\").split("\\\\")[-1]
            )
            return result(f"${' '.join(row.split())}$") if start >= 0 else None
    return None
