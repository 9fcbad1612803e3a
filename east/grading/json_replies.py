r"""The answer in a JSON reply: `{"reasoning": "...", "answer": "18"}`.

Models write JSON that is not valid (LaTeX with single backslashes, line breaks in strings, no closing brace, the
quotes of Python), so the key is searched for and only its value is read.
"""

import re
from collections.abc import Iterator

from east.grading.marks import field

MAX_KEYS = 12  # keys read, from the end of the text

_KEY = re.compile(r"[\"'](final[_ -]?answer|answer|result)[\"']\s{0,20}:\s{0,20}", re.IGNORECASE)
_STRING = re.compile(r"\"((?:[^\"\\]|\\.)*)(\"|\Z)|'((?:[^'\\]|\\.)*)('|\Z)", re.DOTALL)
_BARE = re.compile(r"[^\s\"'{}\[\]][^\n\"'{}\[\]]{0,200}")
_LATEX = re.compile(r"(?<!\\)\\(?!u[0-9a-fA-F]{4}|n(?![a-z]))(?:[a-zA-Z]{2}|[,;!{}])")
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|([ntr])(?![a-z])|([\"'/]))")
_ESCAPED = re.compile(r"\\(?:u([0-9a-fA-F]{4})|([ntrbf])|([\"'/\\]))")


def json_answers(tail: str, truncated: bool) -> Iterator[str]:
    """The values of `answer` and `final_answer`, otherwise of `result`, the last one first.

    "" for null and for an empty string: the reply says that it has no answer.
    """
    keys = list(_KEY.finditer(tail))[-MAX_KEYS:]
    answers = [key for key in keys if key.group(1).lower() != "result"]
    for key in reversed(answers or keys):
        value = _value(tail, key.end(), truncated)
        if value == "":
            yield value
        elif value and (answer := field(value)):
            yield answer


def _value(text: str, place: int, truncated: bool) -> str | None:
    """The value that begins at `place`: a string, a number or a list; None for an object and for a cut value."""
    if string := _STRING.match(text, place):
        if truncated and not (string.group(2) or string.group(4)):
            return None
        return _unescaped(string.group(1) or string.group(3) or "").strip()
    if text.startswith("[", place):
        return _list(text, place)
    bare = _BARE.match(text, place)
    if bare is None or truncated and bare.end() == len(text):
        return None
    value = re.split(r",\s*$|,\s+(?=[\"'])", bare.group().strip(), maxsplit=1)[0].strip()
    return "" if value.lower() in ("null", "none") else value


def _list(text: str, place: int) -> str | None:
    r"""`1, 2` of `["1", 2]`; None if the list is cut."""
    depth = 0
    for bracket in re.finditer(r"[\[\]]", text[place : place + 1000]):
        depth += 1 if bracket.group() == "[" else -1
        if depth == 0:
            return _unescaped(re.sub(r"(?<!\\)[\"']", "", text[place + 1 : place + bracket.start()])).strip()
    return None


def _unescaped(string: str) -> str:
    r"""The text of a JSON string. Single backslashes of LaTeX are no escapes: \frac, not \f."""
    return (_ESCAPE if _LATEX.search(string) else _ESCAPED).sub(_character, string)


def _character(escape: re.Match[str]) -> str:
    if escape.group(1):
        return chr(int(escape.group(1), 16))
    return " " if escape.group(2) else escape.group(3)
