"""A graph of command lines, run side by side: a job starts when all jobs that it needs have succeeded.

Every job is a process of its own. On the CPU it is a fork of one server that has imported torch and DeepSpeed once: a
tiny stage takes less time than these imports. On GPUs it is a new process that sees one GPU.
"""

import ctypes
import graphlib
import multiprocessing
import os
import runpy
import signal
import sys
import time
from collections.abc import Callable
from concurrent import futures
from pathlib import Path
from typing import Any, NamedTuple

WARM = [
    "east.commands.index",
    "east.commands.evaluate",
    "east.sampling.transformers_engine",
    "east.training.reference",
    "deepspeed.runtime.zero.muon.original_muon",  # DeepSpeed imports it late, for more than a second
]
SET_PDEATHSIG = 1  # prctl's option: the signal that a process gets when its parent dies


class Job(NamedTuple):
    """A command line. after: names of the jobs that write what it reads."""

    name: str
    line: list[str]
    after: tuple[str, ...] = ()


class End(NamedTuple):
    """How a job ended. error: None, or one line."""

    seconds: float
    error: str | None


def run(
    jobs: list[Job], slots: list[dict[str, str]], warm: bool, logs: Path, report: Callable[[str, End | None], None]
) -> None:
    """Run all jobs, at most one in each slot; earlier ones first where several could start.

    slots: environment variables of each slot's jobs. warm: fork them from a server that has imported everything.
    `report(name, None)` is called when a job starts, `report(name, end)` when it ends; a job that needs a failed one
    never starts. Output goes to `logs`/NAME.log. On an interrupt the running jobs are ended by SIGTERM.
    """
    context: Any = multiprocessing.get_context("forkserver" if warm else "spawn")
    if warm:
        context.set_forkserver_preload(WARM)
    by_name = {job.name: job for job in jobs}
    assert len(by_name) == len(jobs) and all(need in by_name for job in jobs for need in job.after)
    graph = graphlib.TopologicalSorter({job.name: job.after for job in jobs})
    graph.prepare()
    place = {name: k for k, name in enumerate(by_name)}
    ready = sorted(graph.get_ready(), key=place.__getitem__)
    free, running = list(slots), dict[futures.Future[End], tuple[str, dict[str, str]]]()
    processes = list[multiprocessing.process.BaseProcess]()

    with futures.ThreadPoolExecutor(len(slots)) as pool:
        try:
            while running or ready:
                while free and ready:
                    name, slot = ready.pop(0), free.pop(0)
                    report(name, None)
                    log = logs / f"{name}.log"
                    running[pool.submit(execute, context, by_name[name], slot, log, processes)] = name, slot
                for future in futures.wait(running, return_when=futures.FIRST_COMPLETED).done:
                    name, slot = running.pop(future)
                    free.append(slot)
                    end = future.result()
                    if end.error is None:
                        graph.done(name)
                        ready = sorted([*ready, *graph.get_ready()], key=place.__getitem__)
                    report(name, end)
        finally:
            for process in processes:
                if process.is_alive():
                    process.terminate()


def execute(
    context: Any, job: Job, environment: dict[str, str], log: Path, processes: list[multiprocessing.process.BaseProcess]
) -> End:
    """Run a job in a process of its own, which is added to `processes`, and wait for its end."""
    began = time.perf_counter()
    log.parent.mkdir(parents=True, exist_ok=True)
    process = context.Process(target=enter, args=(job.line, environment, log))
    process.start()
    processes.append(process)
    process.join()
    seconds = time.perf_counter() - began
    return End(seconds, None if process.exitcode == 0 else last_line(log, process.exitcode))


def enter(line: list[str], environment: dict[str, str], log: Path) -> None:
    """In the child process: run the command line. A Python one runs in this process, whose imports it can use."""
    ctypes.CDLL(None).prctl(SET_PDEATHSIG, signal.SIGTERM)  # no stage outlives a killed study
    with log.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.update(environment)
    program, *words = line
    if program != sys.executable:
        os.execvp(program, line)
    module = words[0] == "-m"
    sys.argv = words[1:] if module else words
    (runpy.run_module if module else runpy.run_path)(sys.argv[0], run_name="__main__")


def last_line(log: Path, status: int | None) -> str:
    """The last line that a failed job printed, at most 300 characters of it, and the signal that killed it."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    printed = lines[-1].removeprefix("error: ") if lines else "no output"
    return (f"killed by signal {-status}; " if status is not None and status < 0 else "") + printed[:300]
