"""The cells of a study, and the jobs that make them, in topological order.

A cell is one trained (or starting) model with its evaluation: a run file, overrides, a round. A seed varies sampling,
the draw of examples and their order; the starting model, the questions and the test problems are a task's own.
"""

import itertools
from pathlib import Path
from typing import NamedTuple

from east.run import config
from east.run.config import Config
from east.run.launch import command
from east.run.loss_table import LOSSES
from east.study.job_graph import Job
from east.study.study_file import BACKBONE, METHODS, Study, StudyTask

SEEDED = ("sampling.seed", "examples.seed", "train.seed")


class Cell(NamedTuple):
    """One model and what it is evaluated on."""

    task: StudyTask
    seed: int
    loss: str | None  # None: the starting model
    method: str
    strategy: str
    a: float | str | None
    n: int
    round: int
    experiments: tuple[str, ...]
    select: bool

    @property
    def label(self) -> str:
        """The trained model's name within its run."""
        if self.loss is None:
            return BACKBONE
        weights = "" if self.a is None else f"-{self.strategy}-{self.a if self.a == 'auto' else format(self.a, 'g')}"
        return f"{self.loss}-{self.method}{weights}"

    @property
    def place(self) -> str:
        """Folder of its logs, unique within the study."""
        return f"{self.task.name}/seed_{self.seed}/n{self.n}/round_{self.round}/{self.label}"

    @property
    def id(self) -> str:
        """Unique within the study."""
        return self.place.replace("/", "-").replace("seed_", "s").replace("round_", "r")

    @property
    def file(self) -> str:
        """Its run file; of a starting model, any of its task's."""
        return self.task.runs[self.loss] if self.loss else next(iter(self.task.runs.values()))


def expand(study: Study) -> list[Cell]:
    """Every cell once, with the names of the experiments that it belongs to."""
    cells_by_id: dict[str, Cell] = {}
    for task, seed, (name, e) in itertools.product(study.tasks, study.seeds, study.experiments.items()):
        cells = [Cell(task, seed, None, BACKBONE, "uniform", None, study.n, 1, (name,), e.select)]
        for loss, method, n in itertools.product(e.loss, e.method, e.n or [study.n]):
            weights = itertools.product(e.strategy, e.a or [task.a]) if method == "east" else [("uniform", None)]
            for (strategy, a), number in itertools.product(weights, range(1, e.rounds + 1)):
                cells.append(Cell(task, seed, loss, method, strategy, a, n, number, (name,), e.select))
        for cell in cells:
            same = cells_by_id.get(cell.id, cell)
            names = dict.fromkeys((*same.experiments, name))
            cells_by_id[cell.id] = cell._replace(experiments=tuple(names), select=cell.select or same.select)
    return list(cells_by_id.values())


def overrides(study: Study, cell: Cell) -> list[str]:
    """What the cell changes of its run file. In round 1 cells share a run folder; later rounds have their own."""
    run = Path(study.folder, cell.task.name, f"seed_{cell.seed}", f"n{cell.n}")
    changes = [*cell.task.set, f"round={cell.round}", f"sampling.n={cell.n}", *(f"{key}={cell.seed}" for key in SEEDED)]
    if cell.round > 1:
        start = settings(study, before(cell)).folder_of("train") / "final"
        changes += [f"model.path={start}", "model.revision=null"]
        run /= cell.label
    changes.append(f"run={run}")
    if cell.loss is None:
        return changes
    if cell.a is None:
        changes += METHODS[cell.method].settings
    else:
        changes += [f"weighting.strategy={cell.strategy}", f"weighting.a={cell.a}"]
    if isinstance(cell.a, float) and cell.a < 0:
        changes.append("weighting.zero=drop")
    return [*changes, f"name={cell.label}"]


def before(cell: Cell) -> Cell:
    """The cell whose model this one starts from."""
    return cell._replace(round=cell.round - 1)


def settings(study: Study, cell: Cell, more: list[str] | None = None) -> Config:
    """The cell's resolved run, `more` overrides on top. Raises ValueError for a bad run file or value."""
    return config.load(cell.file, overrides(study, cell) + (more or []))


class Plan:
    """The jobs of some cells in topological order, each shared stage once."""

    def __init__(self, study: Study, cells: list[Cell]):
        self.study, self.jobs = study, dict[str, Job]()
        self.last = {cell.id: self._evaluated(cell) for cell in cells}  # by cell: the jobs that end it

    def needs(self, cell: Cell) -> set[str]:
        """Names of all jobs that a cell needs, directly or not."""
        names: set[str] = set()
        todo = list(self.last[cell.id])
        while todo:
            name = todo.pop()
            if name not in names:
                names.add(name)
                todo += self.jobs[name].after
        return names

    def _add(self, name: str, program: list[str], cell: Cell, *after: str, more: list[str] | None = None) -> str:
        if name not in self.jobs:
            line = [*program, "--config", cell.file, *overrides(self.study, cell), *(more or [])]
            self.jobs[name] = Job(name, line, after)
        return name

    def _taught(self, task: StudyTask) -> tuple[str, ...]:
        last: tuple[str, ...] = ()
        for stage in ("tiny", "grade", "index", "weigh", "train") if task.teach else ():
            name = f"{task.name}/{BACKBONE}/{stage}"
            self.jobs.setdefault(name, Job(name, [*command(stage), "--config", str(task.teach)], last))
            last = (name,)
        return last

    def _graded(self, cell: Cell) -> str:
        folder = str(Path(cell.place).parent)
        if cell.round == 1:  # smaller n reads the first responses of the same samples
            whole = cell._replace(n=self.study.n)
            stem = str(Path(whole.place).parent)
            sampled = self._add(f"{stem}/sample", command("sample"), whole, *self._taught(cell.task))
        else:
            folder = cell.place
            sampled = self._add(f"{folder}/sample", command("sample"), cell, self._trained(before(cell)))
        return self._add(f"{folder}/grade", command("grade"), cell, sampled)

    def _trained(self, cell: Cell) -> str:
        run, graded = settings(self.study, cell), self._graded(cell)
        stem = str(Path(graded).parent / str(cell.loss))
        indexed = self._add(f"{stem}/index", command("index"), cell, graded)
        needs = [self._add(f"{stem}/weigh-{run.weighting.slug}", command("weigh"), cell, indexed)]
        if LOSSES[str(cell.loss)].needs_reference:
            needs.append(self._add(f"{stem}/reference", command("reference", run.rounds.launcher), cell, indexed))
        return self._add(f"{cell.place}/train", command("train", run.rounds.launcher), cell, *needs)

    def _evaluated(self, cell: Cell) -> list[str]:
        base = ["--base"] if cell.loss is None else []
        after = self._taught(cell.task) if base else (self._trained(cell),)
        jobs = [self._add(f"{cell.place}/evaluate", command("evaluate"), cell, *after, more=base)]
        if cell.select:
            more = [*base, *selection(cell)]
            jobs.append(self._add(f"{cell.place}/select", command("evaluate"), cell, *after, more=more))
        return jobs


def selection(cell: Cell) -> list[str]:
    """Overrides that evaluate on the task's held-out train rows."""
    assert cell.task.select is not None
    return ["eval.split=train", "eval.rows=[{},{}]".format(*cell.task.select)]
