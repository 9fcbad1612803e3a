"""Make the cells of a study side by side: `east study`.

Everything is an ordinary run in <folder>/<model>-<task>/seed_<s>/n<n>/. A stopped study continues where it was; a
failed cell is shown with its error, stops no other, and is tried again by the next start.
"""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock
from tqdm import tqdm

from east.run import files
from east.study import job_graph
from east.study.ledger import Ledger
from east.study.plan import Cell, Plan, expand, settings
from east.study.study_file import Study


def run(study: Study) -> None:
    """Make every cell that is not done. Raises ValueError when cells failed, with the first error."""
    folder = Path(study.folder)
    warm = prepare(study)
    with locked(folder), interruptible():
        ledger = Ledger(study, expand(study))
        plan = Plan(study, ledger.waiting())
        for cell in ledger.waiting():
            link_samples(study, cell)
        needs = {cell.id: plan.needs(cell) for cell in ledger.waiting()}
        with tqdm(total=len(ledger.rows), initial=len(ledger.rows) - len(needs), desc=study.name, unit="cell") as bar:

            def report(name: str, end: job_graph.End | None) -> None:
                bar.update(track(ledger, needs, name, end))
                if end is not None and end.error is not None:
                    bar.write(f"failed: {name}: {end.error}")

            try:
                job_graph.run(list(plan.jobs.values()), slots(study), warm, folder / "logs", report)
            finally:
                ledger.stopped()
    failed = [row for row in ledger.rows.values() if row["status"] == "failed"]
    print(f"study: {folder / 'study.json'}\n    cells: {len(ledger.rows)}\n    failed: {len(failed)}")
    if failed:
        raise ValueError(
            f"{len(failed)} of {len(ledger.rows)} cells failed, the first in {failed[0]['error']} (its log is in "
            f"{folder / 'logs'}); fix it, then the same command tries them again"
        )


def track(ledger: Ledger, needs: dict[str, set[str]], job: str, end: job_graph.End | None) -> int:
    """Record the start (end: None) or the end of a job; returns the number of cells that have ended with it.

    needs: by cell, the jobs that have not succeeded yet; cells that have ended are removed.
    """
    waiting = [cell for cell, jobs in needs.items() if job in jobs]
    for cell in waiting:
        if end is None:
            ledger.started(cell, job)
        elif end.error is not None:
            del needs[cell]
            ledger.failed(cell, f"{job}: {end.error}")
        else:
            needs[cell].remove(job)
            ledger.spent(cell, job, end.seconds)
            if not needs[cell]:
                del needs[cell]
                ledger.done(cell)
    return sum(cell not in needs for cell in waiting)


def prepare(study: Study) -> bool:
    """Create the folder and set the environment that every job inherits. Returns whether jobs are forks of one process.

    vLLM is never forked: it must not share a process with DeepSpeed.
    """
    with files.disk_errors(Path(study.folder)):
        Path(study.folder).mkdir(parents=True, exist_ok=True)
    if study.device == "gpu":
        return False
    os.environ |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return all(settings(study, cell).sampling.engine == "transformers" for cell in expand(study))


def slots(study: Study) -> list[dict[str, str]]:
    """The environment of each of the jobs that run at once: on GPUs, the GPU that it sees."""
    if study.device == "cpu":
        return [{} for _ in range(study.parallel)]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(study.parallel)))
    devices = visible.split(",")
    if len(devices) < study.parallel:
        raise ValueError(f"parallel: found {study.parallel}, but CUDA_VISIBLE_DEVICES={visible}; one GPU per job")
    return [{"CUDA_VISIBLE_DEVICES": device} for device in devices[: study.parallel]]


def link_samples(study: Study, cell: Cell) -> None:
    """Link the samples of a smaller n to those of the study's n: `grade` reads the first n of each question.

    Raises ValueError where the smaller n has samples of its own.
    """
    whole = settings(study, cell._replace(n=study.n, round=1)).folder_of("samples")
    view = settings(study, cell._replace(round=1)).folder_of("samples")
    if cell.n < study.n and not view.is_symlink():
        if view.exists():
            raise ValueError(
                f"{view}: found responses drawn for n = {cell.n}, expected a link to those for n = {study.n}, which "
                f"this study asks for; keep that n, choose another folder, or delete {view.parent.parent} with its runs"
            )
        view.parent.mkdir(parents=True, exist_ok=True)
        view.symlink_to(os.path.relpath(whole, view.parent))


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One study at a time in a folder. Raises ValueError when another has it, or where files cannot be locked."""
    lock = filelock.FileLock(folder / ".lock", blocking=False)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise ValueError(f"{folder}: another `east study` is running in it; wait for it or stop it") from None
    except OSError as error:
        raise ValueError(
            f"{folder}: its file system cannot lock files ({error.strerror}); choose another folder, or mount it with "
            "locks"
        ) from None
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM stops a study as Ctrl-C does: running stages get SIGTERM, and the next start continues."""

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
