"""`python -m east study`: the cells of a study file, made side by side; study.json says what there is.

Everything is an ordinary run in <folder>/<model>-<task>/seed_<s>/n<n>/. A stopped study goes on where it was; a
failed cell is shown with its error, stops no other, and is tried again by the next start.
"""

import contextlib
import itertools
import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock
from tqdm import tqdm

from east.run import artifacts, config, files, pipeline
from east.run.config import BASE, Config
from east.study import job_graph
from east.study.study_file import Cell, Plan, Study, before, expand, selection, settings

KEPT = ("status", "seconds", "a_found", "examples", "examples_left_out", "stands_on")  # of a row that still stands


def run(study: Study) -> None:
    """The stage. Raises ValueError when cells failed, with the first error."""
    folder = Path(study.folder)
    warm = prepare(study)
    with locked(folder), interruptible():
        book = Book(study, expand(study))
        plan = Plan(study, book.waiting())
        for cell in book.waiting():
            link_samples(study, cell)
        needs = {cell.id: plan.needs(cell) for cell in book.waiting()}
        with tqdm(total=len(book.rows), initial=len(book.rows) - len(needs), desc=study.name, unit="cell") as bar:

            def tell(name: str, end: job_graph.End | None) -> None:
                for identity in [i for i, names in needs.items() if name in names]:
                    if end is None:
                        book.started(identity, name)
                    elif end.error is not None:
                        del needs[identity]
                        book.failed(identity, f"{name}: {end.error}")
                    else:
                        needs[identity].remove(name)
                        book.spent(identity, name, end.seconds)
                        if not needs[identity]:
                            del needs[identity]
                            book.done(identity)
                    bar.update(int(end is not None and identity not in needs))
                if end is not None and end.error is not None:
                    bar.write(f"failed: {name}: {end.error}")

            try:
                job_graph.run(list(plan.jobs.values()), slots(study), warm, folder / "logs", tell)
            finally:
                book.stopped()
    failed = [row for row in book.rows.values() if row["status"] == "failed"]
    print(f"study: {folder / 'study.json'}\n    cells: {len(book.rows)}\n    failed: {len(failed)}")
    if failed:
        raise ValueError(
            f"{len(failed)} of {len(book.rows)} cells failed, the first in {failed[0]['error']} (its log stands in "
            f"{folder / 'logs'}); mend it, then the same command tries them again"
        )


class Book:
    """study.json: a row per cell, as the report reads it. Rows of cells that only other starts ask for stay."""

    def __init__(self, study: Study, cells: list[Cell]):
        self.study, self.folder, self.cells = study, Path(study.folder), {cell.id: cell for cell in cells}
        self.digests: dict[Path, str] = {}  # of starting models, by folder
        taught = {task.name: config.load(task.teach).model_dump(mode="json") for task in study.tasks if task.teach}
        runs = {cell.id: settings(study, cell) for cell in cells}
        self.starts = {identity: Path(run.model.path) for identity, run in runs.items()}
        self.rows = {cell.id: self._row(cell, runs[cell.id], taught.get(cell.task.name)) for cell in cells}
        old = {row["id"]: row for row in self._old()}
        self.others = [row for identity, row in old.items() if identity not in self.rows]
        for cell in sorted(cells, key=lambda cell: cell.round):
            if cell.id in old and self._stands(cell, old[cell.id]):
                self.rows[cell.id] |= {key: old[cell.id][key] for key in KEPT}
        self.write()

    def waiting(self) -> list[Cell]:
        """Cells that are still to be made."""
        return [cell for cell in self.cells.values() if self.rows[cell.id]["status"] != "done"]

    def started(self, identity: str, job: str) -> None:
        """A stage that is the cell's alone has begun."""
        if self._own(identity, job):
            self.rows[identity]["status"] = "running"

    def spent(self, identity: str, job: str, seconds: float) -> None:
        """A stage has ended well."""
        if self._own(identity, job):
            self.rows[identity]["seconds"] = round(self.rows[identity]["seconds"] + seconds, 1)

    def failed(self, identity: str, error: str) -> None:
        """One of the cell's stages failed."""
        self.rows[identity] |= {"status": "failed", "error": error}
        self.write()

    def done(self, identity: str) -> None:
        """Note what was trained; its checkpoint, and its model if models are not kept, have served their purpose."""
        row, cell = self.rows[identity], self.cells[identity]
        row |= {"status": "done", "error": None, "stands_on": self._found(cell)}
        if row["weights"]:
            summary = pipeline.at("weights", self.folder / row["weights"]).open().summary
            row |= {"examples": summary["examples"], "examples_left_out": summary["left_out"]}
            row["a_found"] = summary.get("a") if row["a"] == "auto" else None
            shutil.rmtree(self.folder / row["train"] / "checkpoint", ignore_errors=True)
            self._drop_models(cell)
        self.write()

    def stopped(self) -> None:
        """No stage runs any more: what was not finished waits."""
        for row in self.rows.values():
            row["status"] = "waiting" if row["status"] == "running" else row["status"]
        self.write()

    def write(self) -> None:
        """Write study.json so that a reader sees the old or the new one."""
        rows = [*self.rows.values(), *self.others]
        values = {
            "name": self.study.name,
            "tasks": list(dict.fromkeys(row["task"] for row in rows)),
            "seeds": list(dict.fromkeys(row["seed"] for row in rows)),
            "paper": [row.model_dump() for row in self.study.paper],
            "cells": rows,
        }
        files.write_text(self.folder / "study.json", json.dumps(values, indent=1) + "\n")

    def _own(self, identity: str, job: str) -> bool:
        return str(Path(job).parent) == self.cells[identity].place

    def _old(self) -> list[dict[str, Any]]:
        path = self.folder / "study.json"
        try:
            rows = json.loads(path.read_text())["cells"] if path.exists() else []
            complete = all(key in row for row in rows for key in ("id", "settings", "task", "seed", *KEPT))
        except (json.JSONDecodeError, KeyError, TypeError):
            complete = False
        if not complete:
            raise ValueError(f"{path}: not a study's; delete it, and the same command makes it again")
        return rows

    def _stands(self, cell: Cell, old: dict[str, Any]) -> bool:
        """Is an earlier start's row still what this study asks for, made from what is on disk today?"""
        if old["status"] != "done" or old["settings"] != self.rows[cell.id]["settings"]:
            return False
        if cell.round > 1 and self.rows[before(cell).id]["status"] != "done":
            return False
        return old["stands_on"] == self._found(cell)

    def _found(self, cell: Cell) -> dict[str, Any]:
        """What a cell's numbers stand on: its starting model, and the fingerprints of the folders of its row.

        A later round's starting model is the round before's, which has its own row and may be deleted by now.
        """
        row, start = self.rows[cell.id], self.starts[cell.id]
        if cell.round == 1 and start.is_dir() and start not in self.digests:
            self.digests[start] = artifacts.model_digest(start)
        found = {"model": self.digests.get(start) if cell.round == 1 else None}
        found |= {key: fingerprint(self.folder / row[key] / "results.json", "fingerprints") for key in results(row)}
        made = (key for key in ("samples", "graded", "weights") if row[key])
        return found | {key: fingerprint(self.folder / row[key] / artifacts.MANIFEST, "fingerprint") for key in made}

    def _drop_models(self, cell: Cell) -> None:
        """Delete the models of a cell's rounds once all are done: a stopped study plans a round from the first on."""
        rounds = (cell._replace(round=number) for number in itertools.count(1))
        rows = [self.rows[each.id] for each in itertools.takewhile(lambda each: each.id in self.rows, rounds)]
        if not self.study.keep_models and all(row["status"] == "done" for row in rows):
            for row in rows:
                shutil.rmtree(self.folder / row["train"] / "final", ignore_errors=True)

    def _row(self, cell: Cell, found: Config, taught: dict[str, Any] | None) -> dict[str, Any]:
        def place(folder: Path) -> str:
            return os.path.relpath(folder, self.folder)

        trained = cell.loss is not None
        evaluated = found.folder / "eval" / (cell.label if trained else BASE)
        held_out = settings(self.study, cell, selection(cell)).eval_suffix if cell.select else ""
        return {
            "id": cell.id,
            "task": cell.task.task,
            "model": cell.task.model,
            "seed": cell.seed,
            "loss": cell.loss,
            "method": cell.method,
            "strategy": cell.strategy,
            "a": cell.a,
            "a_found": None,
            "n": cell.n,
            "round": cell.round,
            "in": list(cell.experiments),
            "status": "waiting",
            "error": None,
            "eval": place(evaluated),
            "eval_select": place(evaluated.with_name(evaluated.name + held_out)) if held_out else None,
            "weights": place(found.folder_of("weights")) if trained else None,
            "graded": place(found.folder_of("graded")) if trained else None,
            "samples": place(found.folder_of("samples")) if trained else None,
            "train": place(found.folder_of("train")) if trained else None,
            "examples": None,
            "examples_left_out": None,
            "seconds": 0.0,
            "settings": files.digest([found.model_dump(mode="json"), taught]),
            "stands_on": None,
        }


def results(row: dict[str, Any]) -> list[str]:
    """The keys of a row's evaluation folders."""
    return [key for key in ("eval", "eval_select") if row[key]]


def fingerprint(path: Path, key: str) -> Any:
    """What a JSON file of a finished stage says it was made from; None where there is none."""
    try:
        return json.loads(path.read_text()).get(key)
    except (OSError, json.JSONDecodeError, AttributeError):
        return None


def prepare(study: Study) -> bool:
    """Make the folder and set what every job inherits; True where jobs may be forks of one warm process.

    vLLM is never forked: it must not share a process with DeepSpeed.
    """
    with files.disk_errors(Path(study.folder)):
        Path(study.folder).mkdir(parents=True, exist_ok=True)
    if study.device == "gpu":
        return False
    os.environ |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return all(settings(study, cell).sampling.engine == "transformers" for cell in expand(study))


def slots(study: Study) -> list[dict[str, str]]:
    """The environment of each of the jobs that run at once: on GPUs, which one it sees."""
    if study.device == "cpu":
        return [{} for _ in range(study.parallel)]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(study.parallel)))
    devices = visible.split(",")
    if len(devices) < study.parallel:
        raise ValueError(f"parallel: found {study.parallel}, but CUDA_VISIBLE_DEVICES={visible}; one GPU per job")
    return [{"CUDA_VISIBLE_DEVICES": device} for device in devices[: study.parallel]]


def link_samples(study: Study, cell: Cell) -> None:
    """A smaller n is a view of the study's samples: `grade` reads the first n of each question."""
    whole = settings(study, cell._replace(n=study.n, round=1)).folder_of("samples")
    view = settings(study, cell._replace(round=1)).folder_of("samples")
    if cell.n < study.n and not view.is_symlink():
        if view.exists():
            raise ValueError(
                f"{view}: found responses drawn for n = {cell.n}, expected a view of those for n = {study.n}, which "
                f"this study asks for; keep that n, choose another folder, or delete {view.parent.parent} with its runs"
            )
        view.parent.mkdir(parents=True, exist_ok=True)
        view.symlink_to(os.path.relpath(whole, view.parent))


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One study at a time in a folder. Raises ValueError when another process has it."""
    try:
        with filelock.FileLock(folder / ".lock", blocking=False):
            yield
    except filelock.Timeout:
        raise ValueError(f"{folder}: another `east study` is running in it; wait for it or stop it") from None


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM stops a study as Ctrl-C does: running stages are told to end, and the next start goes on."""

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
