"""A pool of child processes that call one function on untrusted arguments.

Every call has a deadline and every child process a memory limit. A call that exceeds one of them, or ends its child
process, changes no other call: its own outcome reports it, and the next call gets a new child process. `serve` is the
loop of a child process.
"""

import contextlib
import importlib
import os
import pickle
import resource
import select
import shlex
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

Status = Literal["ok", "timeout", "memory", "failed", "died"]
ORPHAN_SECONDS = 60.0  # processor time of one call, after which a child process whose parent was killed ends itself
START_SECONDS = 120.0  # a child process imports its libraries before its first call
SERVE = "import sys; from east.grading.workers import serve; serve(sys.argv[1], int(sys.argv[2]))"


class Outcome(NamedTuple):
    """The outcome of a call: the function's value if status is "ok".

    "failed": the function raised. "died": the child process ended.
    """

    status: Status
    value: Any = None


class _Child:
    """A child process, which runs one call at a time."""

    def __init__(self, target: str, memory_mb: int) -> None:
        command = [sys.executable, "-c", SERVE, target, str(memory_mb)]
        paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
        environment = {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | environment,
        )
        if self.receive(time.monotonic() + START_SECONDS).status != "ok":
            self.kill()
            raise RuntimeError(f"a worker for {target} did not start; run `{shlex.join(command)}` to see its error")
        self.deadline = 0.0

    def send(self, argument: Any, timeout_s: float) -> bool:
        """Start a call; False if the child process has ended."""
        assert self.process.stdin is not None
        self.deadline = time.monotonic() + timeout_s
        try:
            _send(self.process.stdin, argument)
        except OSError:
            return False
        return True

    def receive(self, deadline: float) -> Outcome:
        """Wait for the outcome of the call until the deadline."""
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
    """A pool of child processes for one function, closed by `close` or `with`.

    target: "package.module:function", a function of one picklable argument. count: child processes. timeout_s: seconds
    for one call. memory_mb: address space of one child process. Raises RuntimeError if a child process does not start.
    """

    def __init__(self, target: str, *, count: int = 2, timeout_s: float = 1.0, memory_mb: int = 1024) -> None:
        self.target, self.count, self.timeout_s, self.memory_mb = target, count, timeout_s, memory_mb
        self.idle: list[_Child] = []

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start all child processes; otherwise they start when they are first needed."""
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
                    if not child.send(argument, self.timeout_s):
                        self._settle(child, Outcome("died"), busy, outcomes)
                self._collect(busy, outcomes)
        finally:
            for child in busy:
                child.kill()
        return [outcomes[index] for index in range(total)]

    def _collect(self, busy: dict[_Child, int], outcomes: dict[int, Outcome]) -> None:
        """Wait until a call returns or a deadline passes, and settle these calls."""
        if not busy:
            return
        first = min(child.deadline for child in busy)
        pipes = {child.process.stdout.fileno(): child for child in busy if child.process.stdout}
        ready, _, _ = select.select(list(pipes), [], [], max(0.0, first - time.monotonic()))
        for pipe in ready:
            self._settle(pipes[pipe], pipes[pipe].receive(time.monotonic() + 1), busy, outcomes)
        for child in [child for child in busy if child.deadline < time.monotonic()]:
            self._settle(child, Outcome("timeout"), busy, outcomes)

    def _settle(self, child: _Child, outcome: Outcome, busy: dict[_Child, int], outcomes: dict[int, Outcome]) -> None:
        """Note the outcome of a child's call, and reuse or kill the child."""
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


def serve(target: str, memory_mb: int) -> None:
    """The loop of a child process: read arguments from stdin and write outcomes to stdout, until stdin closes."""
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # stdout carries outcomes only: what a library prints goes to stderr
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
        except Exception:  # an untrusted argument may raise anything
            reply = ("failed",)
        signal.setitimer(signal.ITIMER_PROF, 0)
        _send(output, reply)
