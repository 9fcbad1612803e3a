"""Responses without an answer: how many there are, how they end, and the line that tells a user.

Responses that were cut at the token limit have an obvious reason to have no answer; the others have "ended".
"""

import re
from typing import TypedDict

from east.grading.extraction import Extraction, extract

SHARE = 0.1  # of the ended responses without an answer, above which the user is told
SHOWN = 3  # endings
WIDTH = 60  # characters of an ending
LAST = 4_000  # characters at the end of a response that are searched for its last line
MOST = 10_000  # different first words that are counted: those that occur first
WIDER: dict[Extraction, Extraction] = {"boxed": "marked", "marked": "last number"}  # settings that find more answers

_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


class Ending(TypedDict):
    """How some responses end: their last lines begin with the same word, or with a number."""

    text: str  # the last line of the first of them, shortened
    count: int  # responses


class NotFound(TypedDict):
    """Responses without an answer."""

    extraction: Extraction  # where answers were looked for
    ended: int  # responses that were not cut at the token limit
    missing: int  # of these, responses without an answer
    endings: list[Ending]  # the commonest SHOWN of them


class Endings:
    """Counts the responses that ended, those of them without an answer, and their endings.

    extraction: where answers are looked for, see `options.Grading`. thinking: responses begin inside a thought.
    """

    def __init__(self, extraction: Extraction, thinking: bool = False) -> None:
        self.extraction = extraction
        self.thinking = thinking
        self.ended = self.missing = 0
        self.groups: dict[str, Ending] = {}  # by the first word of the ending

    def read(self, text: str) -> None:
        """Look for the answer of a response that ended, and count it."""
        self.add(text, found=extract(text, extraction=self.extraction, thinking=self.thinking).text is not None)

    def add(self, text: str, *, found: bool) -> None:
        """Count a response that ended. found: it has an answer."""
        self.ended += 1
        if found:
            return
        self.missing += 1
        line = ending(text)
        # whole lines differ from question to question: the first word says more about the format
        first = _NUMBER.sub("0", line.split(" ", 1)[0])
        if first in self.groups:
            self.groups[first]["count"] += 1
        elif len(self.groups) < MOST:
            self.groups[first] = {"text": line, "count": 1}

    def report(self) -> NotFound:
        """The counts so far; of endings that are equally common, the one that occurred first."""
        commonest = sorted(self.groups.values(), key=lambda group: -group["count"])[:SHOWN]
        return {
            "extraction": self.extraction,
            "ended": self.ended,
            "missing": self.missing,
            "endings": commonest,
        }


def ending(text: str) -> str:
    """The last line of a text, printable; one of more than WIDTH characters lacks its middle."""
    line = text[-LAST:].rstrip().rsplit("\n", 1)[-1].strip()
    tail = WIDTH // 3
    return printable(line if len(line) <= WIDTH else f"{line[: WIDTH - tail - 1]}…{line[-tail:]}")


def printable(text: str) -> str:
    r"""A text with escapes, as `\x1b`, for what a terminal or a page may obey: control characters, line ends, marks of
    direction, half surrogate pairs."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def not_found_notice(counts: NotFound) -> str | None:
    r"""A line for the user if more than SHARE of the ended responses have no answer, else None.

    `no answer found in 49 of 60 responses that ended. They end like "So, James runs 1080 meters a week." (12). Try
    grading.extraction="last number", or ask for \boxed{} in task.system_prompt or task.prompt`
    """
    if not (advice := not_found_advice(counts)):
        return None
    endings = ", ".join(f'"{group["text"]}" ({group["count"]:,})' for group in counts["endings"])
    found = f"no answer found in {counts['missing']:,} of {counts['ended']:,} responses that ended"
    return f"{found}. They end like {endings}. {advice}"


def not_found_advice(counts: NotFound) -> str | None:
    """What to try if more than SHARE of the ended responses have no answer, else None."""
    if counts["missing"] <= SHARE * counts["ended"]:
        return None
    ask = r"sk for \boxed{} in task.system_prompt or task.prompt"
    wider = WIDER.get(counts["extraction"])
    return f'Try grading.extraction="{wider}", or a{ask}' if wider else f"A{ask}"
