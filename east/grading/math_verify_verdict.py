"""Math-Verify's verdict on a response. Called in a child process, because Math-Verify may not end.

Math-Verify looks for LaTeX and for plain expressions. What it finds it gives to sympy, which evaluates it as Python.
Of a response that is only what Math-Verify's patterns let through: digits, points, spaces and `+-*/^()×÷`. A name such
as `__import__` or `os` does not get there. What digits and operators can do, as `9**9**9`, is to take long and to need
much memory, which the child process's limits end. That the patterns of Math-Verify are right is not relied upon: the
process that calls `verdict` can from then on neither change a file, nor start a program, nor open a connection.
"""

import functools
import os
import sys
from typing import Any

from math_verify import parse, verify

_CHANGES_A_FILE = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_OUTSIDE = ("os.", "subprocess.", "socket.", "shutil.", "ctypes.")  # audit events of Python's library
_READS = {"os.listdir", "os.scandir"}  # of these: what an import does


def verdict(request: tuple[str, str]) -> bool | None:
    """Whether Math-Verify finds the gold answer at the end of a response; None if it finds no answer.

    request: (gold answer, end of a response).
    """
    _only_compute()
    gold, response = request
    answer = parse(response, parsing_timeout=None)  # limits are those of the process, in processor time
    if not answer:
        return None
    return bool(verify(parse(f"${gold}$", parsing_timeout=None), answer, timeout_seconds=None))


@functools.cache
def _only_compute() -> None:
    """Refuse, from here to the end of the process, whatever acts on something outside it."""
    sys.addaudithook(_refuse)


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    outside = event.startswith(_OUTSIDE) and event not in _READS
    if outside or (event == "open" and arguments[2] & _CHANGES_A_FILE):
        raise PermissionError(f"{event} is not allowed to Math-Verify")
