"""Functions for child processes: one whose argument decides how it harms its process, one that works for a time."""

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path


def act(name: str) -> str:
    if name == "sleep":
        time.sleep(2)
    elif name == "spin":
        while True:
            pass
    elif name == "memory":
        return str(len(bytearray(10**10)))
    elif name == "exit":
        os._exit(3)
    elif name == "raise":
        raise ArithmeticError(name)
    elif name == "print":
        print("a library writes to standard output")
    return name


def work(seconds: float) -> None:
    """Use the processor for a time."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def after_math_verify(folder: str) -> list[str]:
    """What a process can still do, of what it should not, once it has called Math-Verify."""
    from east.grading.math_verify_verdict import verdict

    assert verdict(("5", "so 5")) is True
    attempts: dict[str, Callable[[], object]] = {
        "write": lambda: Path(f"{folder}/written").write_text("x"),
        "truncate": lambda: os.truncate(f"{folder}/there", 0),
        "os.open": lambda: os.open(f"{folder}/opened", os.O_CREAT),
        "remove": lambda: os.remove(f"{folder}/there"),
        "rename": lambda: os.rename(f"{folder}/there", f"{folder}/moved"),
        "system": lambda: os.system(f"touch {folder}/touched"),
        "subprocess": lambda: subprocess.run(["touch", f"{folder}/run"]),
        "fork": os.fork,
        "socket": socket.socket,
    }
    done = []
    for name, attempt in attempts.items():
        with contextlib.suppress(PermissionError):
            attempt()
            done.append(name)
    return done + [Path(f"{folder}/there").read_text()]
