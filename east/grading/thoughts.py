"""Thinking models: where a response's thoughts end and its answer begins."""

import re

# At the beginning of a line: elsewhere a text may speak of the mark
_OPEN = re.compile(r"^[ \t]*(?:<(?:think|thinking|thought|reasoning)>|<\|begin_of_thought\|>|\[THINK\])", re.MULTILINE)
_MARK = re.compile(r"</?(?:think|thinking|thought|reasoning)>|<\|(?:begin|end)_of_thought\|>|\[/?THINK\]")
_CLOSE = re.compile(r"</(?:think|thinking|thought|reasoning)>|<\|end_of_thought\|>|\[/THINK\]")


def is_mark(token: str) -> bool:
    """Whether a token is the beginning or the end of a thought."""
    return bool(_MARK.fullmatch(token))


def in_thought(text: str) -> bool:
    """Whether a text ends with an open thought, as what some templates write behind the question:
    "<|im_end|><|im_start|>assistant<think>"."""
    opened = _MARK.findall(text)
    return bool(opened) and not _CLOSE.fullmatch(opened[-1])


def answer_start(text: str, thinking: bool) -> int | None:
    """Where the answer of a response begins: behind the end of its last thought, or at 0 if it has none.

    None if it never ends its thought. thinking: the response begins inside a thought (`in_thought` of its prompt).
    """
    if "<" not in text and "THINK]" not in text:
        return None if thinking else 0
    opened, closed = _last(_OPEN, text), _last(_CLOSE, text)
    if opened > closed or (thinking and closed < 0):
        return None
    return max(closed, 0)


def _last(mark: re.Pattern[str], text: str) -> int:
    """The end of the last occurrence, -1 without one."""
    return max((found.end() for found in mark.finditer(text)), default=-1)
