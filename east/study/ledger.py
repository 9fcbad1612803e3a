"""study.json: which cells of a study are done, and what their numbers come from."""

import itertools
import json
import os
import shutil
from pathlib import Path
from typing import Any

from east.run import artifacts, config, files, pipeline
from east.run.config import BASE, Config
from east.study.plan import Cell, before, selection, settings
from east.study.rows import StudyFile, StudyRow, value
from east.study.study_file import Study

KEPT = ("status", "seconds", "a_found", "examples", "examples_left_out", "inputs")  # of a row that is still valid


class Ledger:
    """study.json: a row per cell. Rows of cells that only an earlier start of the study had are kept."""

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
            if cell.id in old and self._valid(cell, old[cell.id]):
                kept: Any = {key: value(old[cell.id], key) for key in KEPT}
                self.rows[cell.id].update(kept)
        self.write()

    def waiting(self) -> list[Cell]:
        """Cells that are not done."""
        return [cell for cell in self.cells.values() if self.rows[cell.id]["status"] != "done"]

    def started(self, identity: str, job: str) -> None:
        """A stage that belongs to this cell alone has begun."""
        if self._own(identity, job):
            self.rows[identity]["status"] = "running"

    def spent(self, identity: str, job: str, seconds: float) -> None:
        """A stage has succeeded."""
        if self._own(identity, job):
            self.rows[identity]["seconds"] = round(self.rows[identity]["seconds"] + seconds, 1)

    def failed(self, identity: str, error: str) -> None:
        """One of the cell's stages failed."""
        self.rows[identity] |= {"status": "failed", "error": error}
        self.write()

    def done(self, identity: str) -> None:
        """Note what was trained; delete its checkpoint, and its model where models are not kept."""
        row, cell = self.rows[identity], self.cells[identity]
        row |= {"status": "done", "error": None, "inputs": self._inputs(cell)}
        if row["weights"]:
            summary = pipeline.at("weights", self.folder / row["weights"]).open().summary
            row |= {"examples": summary["examples"], "examples_left_out": summary["left_out"]}
            row["a_found"] = summary.get("a") if row["a"] == "auto" else None
            shutil.rmtree(self.folder / str(row["train"]) / "checkpoint", ignore_errors=True)
            self._drop_models(cell)
        self.write()

    def stopped(self) -> None:
        """No stage runs any more: cells that were not finished are waiting again."""
        for row in self.rows.values():
            row["status"] = "waiting" if row["status"] == "running" else row["status"]
        self.write()

    def write(self) -> None:
        """Write study.json so that a reader sees the old or the new one."""
        rows = [*self.rows.values(), *self.others]
        values: StudyFile = {
            "name": self.study.name,
            "tasks": list(dict.fromkeys(row["task"] for row in rows)),
            "seeds": list(dict.fromkeys(row["seed"] for row in rows)),
            "paper": [row.model_dump() for row in self.study.paper],
            "cells": rows,
        }
        files.write_text(self.folder / "study.json", json.dumps(values, indent=1) + "\n")

    def _own(self, identity: str, job: str) -> bool:
        return str(Path(job).parent) == self.cells[identity].place

    def _old(self) -> list[StudyRow]:
        path = self.folder / "study.json"
        try:
            rows: list[StudyRow] = json.loads(path.read_text())["cells"] if path.exists() else []
            complete = all(key in row for row in rows for key in ("id", "settings", "task", "seed", *KEPT))
        except (json.JSONDecodeError, KeyError, TypeError):
            complete = False
        if not complete:
            raise ValueError(f"{path}: not the rows of a study; delete it, and the same command writes it again")
        return rows

    def _valid(self, cell: Cell, old: StudyRow) -> bool:
        """Whether a row of an earlier start has this study's settings and was made from what is on disk."""
        if old["status"] != "done" or old["settings"] != self.rows[cell.id]["settings"]:
            return False
        if cell.round > 1 and self.rows[before(cell).id]["status"] != "done":
            return False
        return old["inputs"] == self._inputs(cell)

    def _inputs(self, cell: Cell) -> dict[str, Any]:
        """What a cell's numbers come from: its starting model, and the fingerprints of the folders of its row.

        A later round's starting model is the round before's, which has its own row and may be deleted by now.
        """
        row, start = self.rows[cell.id], self.starts[cell.id]
        if cell.round == 1 and start.is_dir() and start not in self.digests:
            self.digests[start] = artifacts.model_digest(start)
        inputs: dict[str, Any] = {"model": self.digests.get(start) if cell.round == 1 else None}
        for key, place in (("eval", row["eval"]), ("eval_select", row["eval_select"])):
            if place:
                inputs[key] = fingerprint(self.folder / place / "results.json", "fingerprints")
        for key, place in (("samples", row["samples"]), ("graded", row["graded"]), ("weights", row["weights"])):
            if place:
                inputs[key] = fingerprint(self.folder / place / artifacts.MANIFEST, "fingerprint")
        return inputs

    def _drop_models(self, cell: Cell) -> None:
        """Delete the models of a cell's rounds once all are done: a stopped study plans a round from the first on."""
        rounds = (cell._replace(round=number) for number in itertools.count(1))
        rows = [self.rows[each.id] for each in itertools.takewhile(lambda each: each.id in self.rows, rounds)]
        if not self.study.keep_models and all(row["status"] == "done" for row in rows):
            for row in rows:
                shutil.rmtree(self.folder / str(row["train"]) / "final", ignore_errors=True)

    def _row(self, cell: Cell, run: Config, taught: dict[str, Any] | None) -> StudyRow:
        def place(folder: Path) -> str:
            return os.path.relpath(folder, self.folder)

        trained = cell.loss is not None
        evaluated = run.folder / "eval" / (cell.label if trained else BASE)
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
            "weights": place(run.folder_of("weights")) if trained else None,
            "graded": place(run.folder_of("graded")) if trained else None,
            "samples": place(run.folder_of("samples")) if trained else None,
            "train": place(run.folder_of("train")) if trained else None,
            "examples": None,
            "examples_left_out": None,
            "seconds": 0.0,
            "settings": files.digest([run.model_dump(mode="json"), taught]),
            "inputs": None,
        }


def fingerprint(path: Path, key: str) -> Any:
    """The value of a key in a JSON file of a finished stage; None where there is none."""
    try:
        return json.loads(path.read_text()).get(key)
    except (OSError, json.JSONDecodeError, AttributeError):
        return None
