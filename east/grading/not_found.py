"""Responses without an answer: how many there are, how they end, and the line that tells a user.

Responses that were cut at the token limit have an obvious reason to have no answer; the others have "ended".
"""

import re
from typing import TypedDict

from east.grading.extraction import Extraction

SHARE = 0.1  # of the ended responses without an answer, above which the user is told
SHOWN = 3  # endings
WIDTH = 60  # characters of an ending
LAST = 4_000  # characters at the end of a response that are searched for its last line
MOST = 10_000  # different endings that are counted: those that occur first
WIDER: dict[Extraction, Extraction] = {"boxed": "marked", "marked": "last number"}  # settings that find more answers

_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


class Ending(TypedDict):
    """How some responses end."""

    text: str  # the last line, shortened; "N" for numbers that differ
    count: int  # responses


class NotFound(TypedDict):
    """Responses without an answer."""

    ended: int  # responses that were not cut at the token limit
    missing: int  # of these, responses without an answer
    endings: list[Ending]  # the commonest SHOWN of them


class Endings:
    """Counts the responses that ended, those of them without an answer, and their endings."""

    def __init__(self) -> None:
        self.ended = self.missing = 0
        self.groups: dict[str, Ending] = {}  # by the ending with N for every number

    def add(self, text: str, *, found: bool) -> None:
        """Count a response that ended. found: it has an answer."""
        self.ended += 1
        if found:
            return
        self.missing += 1
        line = ending(text)
        pattern = _NUMBER.sub("N", line)
        group = self.groups.get(pattern)
        if group is not None:
            group["count"] += 1
            group["text"] = line if line == group["text"] else pattern
        elif len(self.groups) < MOST:
            self.groups[pattern] = {"text": line, "count": 1}

    def report(self) -> NotFound:
        """The counts so far; of endings that are equally common, the one that occurred first."""
        commonest = sorted(self.groups.values(), key=lambda group: -group["count"])[:SHOWN]
        return {"ended": self.ended, "missing": self.missing, "endings": commonest}


def ending(text: str) -> str:
    """The last line of a text, printable; one of more than WIDTH characters lacks its middle."""
    line = text[-LAST:].rstrip().rsplit("\n", 1)[-1].strip()
    tail = WIDTH // 3
    return printable(line if len(line) <= WIDTH else f"{line[: WIDTH - tail - 1]}…{line[-tail:]}")


def printable(text: str) -> str:
    r"""A text with escapes, as `\x1b`, for what a terminal or a page may obey: control characters, line ends, marks of
    direction, half surrogate pairs."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def notice(counts: NotFound, extraction: Extraction) -> str | None:
    r"""A line for the user if more than SHARE of the ended responses have no answer, else None.

    `no answer found in 49 of 60 responses that ended. They end as: "So, James runs N meters a week." (12). Try
    grading.extraction="last number", or ask for \boxed{} in task.system_prompt or task.prompt`
    """
    if not is_common(counts):
        return None
    endings = ", ".join(f'"{group["text"]}" ({group["count"]:,})' for group in counts["endings"])
    found = f"no answer found in {counts['missing']:,} of {counts['ended']:,} responses that ended"
    return f"{found}. They end as: {endings}. {advice(extraction)}"


def is_common(counts: NotFound) -> bool:
    """Whether more than SHARE of the ended responses have no answer."""
    return counts["missing"] > SHARE * counts["ended"]


def advice(extraction: Extraction) -> str:
    """What to try where answers are not found."""
    ask = r"sk for \boxed{} in task.system_prompt or task.prompt"
    wider = WIDER.get(extraction)
    return f'Try grading.extraction="{wider}", or a{ask}' if wider else f"A{ask}"
