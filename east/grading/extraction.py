r"""From a response to its final answer, and from a solution to its gold answer, in linear time.

Where an answer is looked for, in this order (the `source` of an answer):

- "boxed": the last \boxed{},
- "hash": GSM8K's `#### 18`,
- "tag": `<answer>18</answer>`,
- "json": `{"answer": "18"}`,
- "heading": a line `### Final Answer` and the answer on the next,
- "the answer is": a sentence or a label that announces the answer,
- "bold": a bold number or formula in the last sentence,
- "last sentence": the number or the formula that the last sentence states,
- "last number": the last number of the text, which is a guess,
- "none": no answer.
"""

import hashlib
import re
from collections.abc import Iterator
from typing import Literal, NamedTuple, get_args

from east.grading import endings, marks
from east.grading.json_replies import json_answers
from east.grading.mathematics.lexer import MAX_CHARACTERS
from east.grading.thoughts import answer_start

Source = Literal[
    "boxed", "hash", "tag", "json", "heading", "the answer is", "bold", "last sentence", "last number", "none"
]
Extraction = Literal["boxed", "marked", "last number"]
Boxes = Literal["joined", "last"]

SOURCES: tuple[Source, ...] = get_args(Source)
MAX_ANSWER = MAX_CHARACTERS  # a longer answer is cut and its hash appended: distinct answers stay distinct
MAX_BOXES = 12  # boxes read, from the end of the text
REACH = MAX_ANSWER + 100  # characters before a box that are searched for the box before it
MAX_BOX = 50_000  # characters after the start of a box that are searched for its closing brace
TAIL = 4_000  # characters at the end of a response that are searched for an answer outside a box


class Answer(NamedTuple):
    """The final answer as written (None if there is none) and where it was found."""

    text: str | None
    source: Source
    conflict: bool = False  # is there another mark of this source with another answer?


NO_ANSWER = Answer(None, "none")

_BOX = re.compile(r"\\(?:boxed|fbox)(?![a-zA-Z])\s*")
_BRACES = re.compile(r"\\.|[{}]", re.DOTALL)
_OPEN_END = re.compile(r"\n|\$|\\\)|\\\]|<\|")
_BETWEEN_BOXES = re.compile(r"(?:\\[()\[\],;!:. ]|\\q?quad|\\text|\\left|\\right|[${}(),;&\s*]|and|[a-zA-Z]\s*=)*\.?")
_TURN = re.compile(r"\n(?:(?:Question|Q|Problem|Human|User):|### Instruction)")  # the next turn begins
_END_TOKEN = re.compile(r"<\|(?:im_end|endoftext|eot_id|end_of_text|user|im_start\|>user)|<end_of_turn>|</s>|\[INST\]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_FINAL = re.compile(r"final answer is:?\s*\$([^$\n]{1,300})\$", re.IGNORECASE)


def extract(
    text: str,
    *,
    extraction: Extraction = "marked",
    boxes: Boxes = "joined",
    truncated: bool = False,
    thinking: bool = False,
) -> Answer:
    """The final answer of a response, behind the end of its last thought if it has thoughts.

    extraction, boxes: see `options.Grading`. truncated: the response was cut at the token limit; a mark that is not
    finished and the last sentence are then not its answer. thinking: the response begins inside a thought. A response
    that does not end its thought has no answer. Time is linear in len(text).
    """
    start = answer_start(text, thinking)
    if start is None:
        return NO_ANSWER
    text = text[start:]
    end = _own_end(text)
    if end != len(text):
        answer = _extract(text[:end], extraction, boxes, truncated=False)
        if answer.text is not None:
            return answer
    return _extract(text, extraction, boxes, truncated)


def _extract(text: str, extraction: Extraction, boxes: Boxes, truncated: bool) -> Answer:
    boxed, other_box = _boxed(text, boxes, truncated)
    if boxed and (last := _final(text)):  # after the last box: "\\boxed{255} ... The final answer is $455$."
        return Answer(_bounded(last), "the answer is")
    if boxed is not None:
        return Answer(_bounded(boxed), "boxed", other_box) if boxed else NO_ANSWER
    for source, answers in _found(text[-TAIL:], extraction, truncated):
        answer = next(answers, None)
        if answer is not None:
            conflict = any(_squashed(other) != _squashed(answer) for other in answers)
            return Answer(_bounded(answer), source, conflict) if answer else NO_ANSWER  # "": the model gave none
    return NO_ANSWER


def _found(tail: str, extraction: Extraction, truncated: bool) -> Iterator[tuple[Source, Iterator[str]]]:
    """The answers of each source, the last one first, in the order of rank."""
    yield "hash", marks.hashes(tail, truncated)
    if extraction == "boxed":
        return
    yield "tag", marks.tags(tail, truncated)
    yield "json", json_answers(tail, truncated)
    yield "heading", marks.headings(tail, truncated)
    yield "the answer is", marks.announcements(tail, truncated)
    if truncated:
        return
    tail = marks.without_special(tail)
    said = endings.last_sentences(tail)
    yield "bold", endings.bold(said)
    yield "last sentence", endings.last_sentence(tail, said)
    if extraction == "last number":
        yield "last number", endings.last_number(tail)


def _own_end(text: str) -> int:
    """Where the response's own answer ends: before the next turn that a base model invents."""
    first = len(text) - len(text.lstrip()) + 1
    end = turn.start() if (turn := _TURN.search(text, first)) else len(text)
    if "<" not in text and "INST]" not in text:
        return end
    token = _END_TOKEN.search(text, first, end)
    return token.start() if token else end


def _squashed(answer: str) -> str:
    return re.sub(r"[\s*$]|\\[()\[\]]", "", answer).rstrip(".")


def gold_answer(solution: str) -> str | None:
    r"""The gold answer of a worked solution: its last balanced \boxed{}, else the text after `####`.

    None if there is neither, or if the last box is empty.
    """
    gold, _ = _boxed(solution, "last", truncated=True)
    if gold is None and "####" in solution:
        gold = solution.rsplit("####", 1)[1].strip()
    return gold or None


def _boxed(text: str, boxes: Boxes, truncated: bool) -> tuple[str | None, bool]:
    """The content of the last box that is not empty; "" if every box is empty, None if there is no box.

    And whether the box before it, or before the list that it ends, is another one.
    """
    spans: list[tuple[int, int, str]] = []
    unclosed, empty, conflict, end = None, False, False, len(text)
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
        elif spans and not (boxes == "joined" and _adjacent(text, stop, spans[-1][0])):
            conflict = _squashed(content) not in [_squashed(other) for _, _, other in spans]
            break
        else:
            spans.append((start, stop, content))
    if spans:
        contents = list(dict.fromkeys(content for _, _, content in reversed(spans)))
        return contents[0] if len(contents) == 1 else ", ".join(contents), conflict
    if unclosed and not truncated:
        return unclosed, False
    return "" if empty or unclosed is not None else None, False


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


def _final(text: str) -> str | None:
    """The formula of "the final answer is $...$" if no box follows it."""
    if text.find("inal answer is", max(0, len(text) - TAIL)) < 0:  # true of most responses, and fast
        return None
    formulas = _FINAL.findall(text, max(text.rfind("\\boxed"), text.rfind("\\fbox"), len(text) - TAIL))
    return formulas[-1].strip() if formulas else None


def _bounded(answer: str) -> str:
    """The answer without lone surrogates, cut to MAX_ANSWER characters and a hash."""
    answer = _SURROGATE.sub("\ufffd", answer.strip())
    if len(answer) <= MAX_ANSWER:
        return answer
    return f"{answer[:MAX_ANSWER]} [sha256 {hashlib.sha256(answer.encode()).hexdigest()}]"
