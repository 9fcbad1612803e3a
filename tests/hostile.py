"""A function whose argument decides how it harms the child process that runs it."""

import os
import time


def act(name: str) -> str:
    if name == "sleep":
        time.sleep(60)
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
