"""A pool of child processes that call one function on untrusted arguments.

Every call has a limit of processor time and every child process a memory limit. A call that exceeds one of them, or
ends its child process, changes no other call: its own outcome reports it, and the next call gets a new child process.
A busy or a stopped machine changes no outcome, because no limit is on wall-clock time. `serve` is the loop of a child
process.
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
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

Status = Literal["ok", "timeout", "memory", "failed", "died"]
BATCH = 32  # calls that are sent to a child process at once
SILENT_SECONDS = 600  # without an outcome from any child process, after which the pool gives up with an error
SERVE = "import sys; from east.grading.workers import serve; serve(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]))"


class Outcome(NamedTuple):
    """The outcome of a call: the function's value if status is "ok".

    "failed": the function raised. "died": the child process ended.
    """

    status: Status
    value: Any = None


class _Child:
    """A child process, which runs one call after another."""

    def __init__(self, target: str, timeout_s: float, memory_mb: int) -> None:
        command = [sys.executable, "-c", SERVE, target, str(timeout_s), str(memory_mb)]
        paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
        environment = {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,  # `select` would not see what a buffer has read ahead
            env=os.environ | environment,
        )
        self.calls: deque[int] = deque()  # numbers of the calls that were sent and have no outcome
        if self.receive().status != "ok":
            self.kill()
            raise RuntimeError(f"a worker for {target} did not start; run `{shlex.join(command)}` to see its error")

    def send(self, arguments: list[Any]) -> None:
        """Start calls, one after another. If the child process has ended, `receive` says so."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            _send(self.process.stdin, arguments)

    def receive(self) -> Outcome:
        """Wait for the outcome of the next call."""
        assert self.process.stdout is not None
        try:
            return Outcome(*_receive(self.process.stdout))
        except (EOFError, pickle.UnpicklingError):
            return Outcome("timeout" if self.process.wait() == -signal.SIGPROF else "died")

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
    of processor time for one call. memory_mb: address space of one child process. Raises RuntimeError if a child
    process does not start, or if none has an outcome for SILENT_SECONDS.
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
        self.idle += [self._child() for _ in range(self.count - len(self.idle))]

    def close(self) -> None:
        while self.idle:
            self.idle.pop().kill()

    def map(self, arguments: Iterable[Any]) -> list[Outcome]:
        """The outcome of every call, in order."""
        calls = list(arguments)
        waiting = deque(range(len(calls)))
        outcomes: dict[int, Outcome] = {}
        busy: list[_Child] = []
        try:
            while len(outcomes) < len(calls):
                while waiting and len(busy) < self.count:
                    child = self.idle.pop() if self.idle else self._child()
                    share = min(BATCH, -(-len(waiting) // (2 * self.count)))  # small at the end: all end together
                    child.calls = deque(waiting.popleft() for _ in range(share))
                    busy.append(child)
                    child.send([calls[number] for number in child.calls])
                for child in self._answering(busy):
                    self._settle(child, busy, waiting, outcomes)
        finally:
            for child in busy:
                child.kill()
        return [outcomes[number] for number in range(len(calls))]

    def _child(self) -> _Child:
        return _Child(self.target, self.timeout_s, self.memory_mb)

    def _answering(self, busy: list[_Child]) -> list[_Child]:
        """Wait until child processes have an outcome or have ended."""
        pipes = {child.process.stdout.fileno(): child for child in busy if child.process.stdout}
        for _ in range(SILENT_SECONDS):  # seconds in which this process runs: it may be stopped as well
            if ready := select.select(list(pipes), [], [], 1.0)[0]:
                return [pipes[pipe] for pipe in ready]
        raise RuntimeError(f"no worker for {self.target} has answered for {SILENT_SECONDS} s; are they stopped?")

    def _settle(self, child: _Child, busy: list[_Child], waiting: deque[int], outcomes: dict[int, Outcome]) -> None:
        """Note the outcome of a child's call. A child that ended is replaced, and its other calls wait again."""
        outcome = child.receive()
        outcomes[child.calls.popleft()] = outcome
        if outcome.status not in ("ok", "failed"):
            waiting.extendleft(reversed(child.calls))
            busy.remove(child)
            child.kill()
        elif not child.calls:
            busy.remove(child)
            self.idle.append(child)


def _send(pipe: IO[bytes], value: Any) -> None:
    content = pickle.dumps(value)
    data = memoryview(struct.pack("<Q", len(content)) + content)
    while data:
        data = data[pipe.write(data) :]
    pipe.flush()


def _receive(pipe: IO[bytes]) -> Any:
    (size,) = struct.unpack("<Q", _read(pipe, 8))
    return pickle.loads(_read(pipe, size))


def _read(pipe: IO[bytes], size: int) -> bytes:
    parts = []
    while size:
        part = pipe.read(size)
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def serve(target: str, timeout_s: float, memory_mb: int) -> None:
    """The loop of a child process: read lists of arguments from stdin and write outcomes to stdout, until stdin closes.

    The signal of the timer ends the process, even within a call of a C library; its parent reads this from its exit
    status.
    """
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # stdout carries outcomes only: what a library prints goes to stderr
    module, function = target.split(":")
    call = getattr(importlib.import_module(module), function)
    resource.setrlimit(resource.RLIMIT_AS, (memory_mb << 20, memory_mb << 20))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    _send(output, ("ok",))
    while True:
        try:
            arguments = _receive(sys.stdin.buffer)
        except EOFError:
            return
        for argument in arguments:
            signal.setitimer(signal.ITIMER_PROF, timeout_s)
            try:
                reply: tuple[Any, ...] = ("ok", call(argument))
            except MemoryError:
                reply = ("memory",)
            except Exception:  # an untrusted argument may raise anything
                reply = ("failed",)
            signal.setitimer(signal.ITIMER_PROF, 0)
            _send(output, reply)
