"""Functions of untrusted arguments, called in child processes that can be killed.

`Workers("package.module:function")` keeps a few children; each call has a deadline and each child a memory
limit. A call that overruns, exhausts memory or kills its child costs that call only: its outcome says so and
the next call gets a fresh child. `python -m east.grading.workers package.module:function MEGABYTES` is the child.
"""

import contextlib
import importlib
import os
import pickle
import resource
import select
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

Status = Literal["ok", "timeout", "memory", "failed", "died"]
ORPHAN_SECONDS = 60.0  # of processor time, after which a child whose parent was killed ends itself
START_SECONDS = 120.0  # a child imports its libraries before its first deadline runs


class Outcome(NamedTuple):
    """What became of a call; value is None unless status is "ok"."""

    status: Status
    value: Any = None


class _Child:
    """One process, asked one thing at a time."""

    def __init__(self, target: str, memory_mb: int) -> None:
        command = [sys.executable, "-m", "east.grading.workers", target, str(memory_mb)]
        paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
        own = {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | own,
        )
        if self.answer(time.monotonic() + START_SECONDS).status != "ok":
            self.kill()
            raise RuntimeError(f"a worker did not start; run `{' '.join(command)}` to see why")
        self.deadline = 0.0

    def ask(self, argument: Any, timeout_s: float) -> bool:
        """Send one argument; False where the child is gone."""
        assert self.process.stdin is not None
        self.deadline = time.monotonic() + timeout_s
        try:
            _send(self.process.stdin, argument)
        except OSError:
            return False
        return True

    def answer(self, deadline: float) -> Outcome:
        """The reply, waited for until the deadline."""
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return Outcome("timeout")
        try:
            return Outcome(*_receive(self.process.stdout))
        except (EOFError, pickle.UnpicklingError, struct.error):
            return Outcome("died")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


class Workers:
    """A pool of children for one function; started at the first call, closed by `close` or `with`.

    target: "package.module:function", a function of one picklable argument. count: children. timeout_s: of
    one call. memory_mb: address space of one child.
    """

    def __init__(self, target: str, *, count: int = 2, timeout_s: float = 1.0, memory_mb: int = 1024) -> None:
        self.target, self.count, self.timeout_s, self.memory_mb = target, count, timeout_s, memory_mb
        self.idle: list[_Child] = []

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start all children now."""
        self.idle += [_Child(self.target, self.memory_mb) for _ in range(self.count - len(self.idle))]

    def close(self) -> None:
        while self.idle:
            self.idle.pop().kill()

    def map(self, arguments: Iterable[Any]) -> list[Outcome]:
        """The outcome of every call, in order."""
        waiting = list(enumerate(arguments))[::-1]
        outcomes: dict[int, Outcome] = {}
        busy: dict[_Child, int] = {}
        total = len(waiting)
        try:
            while len(outcomes) < total:
                while waiting and len(busy) < self.count:
                    child = self.idle.pop() if self.idle else _Child(self.target, self.memory_mb)
                    index, argument = waiting.pop()
                    busy[child] = index
                    if not child.ask(argument, self.timeout_s):
                        self._settle(child, Outcome("died"), busy, outcomes)
                self._collect(busy, outcomes)
        finally:
            for child in busy:
                child.kill()
        return [outcomes[index] for index in range(total)]

    def _collect(self, busy: dict[_Child, int], outcomes: dict[int, Outcome]) -> None:
        """Wait until a child replies or a deadline passes, and settle what is due."""
        if not busy:
            return
        first = min(child.deadline for child in busy)
        pipes = {child.process.stdout.fileno(): child for child in busy if child.process.stdout}
        ready, _, _ = select.select(list(pipes), [], [], max(0.0, first - time.monotonic()))
        for pipe in ready:
            self._settle(pipes[pipe], pipes[pipe].answer(time.monotonic() + 1), busy, outcomes)
        for child in [child for child in busy if child.deadline < time.monotonic()]:
            self._settle(child, Outcome("timeout"), busy, outcomes)

    def _settle(self, child: _Child, outcome: Outcome, busy: dict[_Child, int], outcomes: dict[int, Outcome]) -> None:
        outcomes[busy.pop(child)] = outcome
        if outcome.status in ("ok", "failed"):
            self.idle.append(child)
        else:
            child.kill()


def _send(pipe: BinaryIO | Any, value: Any) -> None:
    data = pickle.dumps(value)
    pipe.write(struct.pack("<Q", len(data)) + data)
    pipe.flush()


def _receive(pipe: BinaryIO | Any) -> Any:
    header = pipe.read(8)
    if len(header) < 8:
        raise EOFError
    (size,) = struct.unpack("<Q", header)
    return pickle.loads(pipe.read(size))


def _serve(target: str, memory_mb: int) -> None:
    """The child's loop: arguments from stdin, outcomes to stdout, until stdin closes."""
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not enter the protocol
    module, function = target.split(":")
    call = getattr(importlib.import_module(module), function)
    resource.setrlimit(resource.RLIMIT_AS, (memory_mb << 20, memory_mb << 20))
    _send(output, ("ok",))
    while True:
        try:
            argument = _receive(sys.stdin.buffer)
        except EOFError:
            return
        signal.setitimer(signal.ITIMER_PROF, ORPHAN_SECONDS)
        try:
            reply: tuple[Any, ...] = ("ok", call(argument))
        except MemoryError:
            reply = ("memory",)
        except Exception:  # the argument is hostile: whatever it does is its own verdict
            reply = ("failed",)
        signal.setitimer(signal.ITIMER_PROF, 0)
        _send(output, reply)


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]))
