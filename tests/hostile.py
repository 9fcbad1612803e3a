"""Functions for child processes: one whose argument decides how it harms its process, one that works for a time."""

import os
import time


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
