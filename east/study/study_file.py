"""A study file: named experiments, each a small grid, over tasks and seeds."""

from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from east.run import config, validation, yaml_file
from east.run.config import NAME
from east.run.loss_table import LOSSES
from east.run.validation import LocalPath, Section, one_of
from east.weighting.weights import COMPARED

BACKBONE = "backbone"  # the method of a starting model


class Method(NamedTuple):
    """A training method: its name in tables, and the settings that select it."""

    title: str
    settings: tuple[str, ...]


METHODS = {
    "vanilla": Method("vanilla", ("weighting.strategy=uniform",)),
    "lw_w": Method("LW(W)", ("weighting.strategy=uniform", "loss.local_weight=lw_w")),
    "lw_p": Method("LW(P)", ("weighting.strategy=uniform", "loss.local_weight=lw_p")),
    "east": Method("EAST", ()),  # with a strategy and an exponent, see Experiment
}
LossName = Annotated[str, one_of(LOSSES)]
MethodName = Annotated[str, one_of(METHODS)]
Strategy = Annotated[str, one_of(COMPARED)]


class StudyTask(Section):
    """A starting model and its questions: a run file for each loss."""

    task: str = Field(pattern=NAME, description="its name in tables")
    model: str = Field(pattern=NAME, description="the starting model's name in tables")
    runs: dict[LossName, str] = Field(min_length=1, description="run file of each loss, relative to the study file")
    teach: str | None = Field(None, description="run file of an arithmetic backbone that is taught first")
    a: float = Field(1.0, description="EAST's exponent in experiments that name none")
    select: tuple[int, int] | None = Field(None, description="held-out train rows for choosing exponents")
    set: list[str] = Field([], description="overrides (section.key=value) of all its runs")

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"{self.model}-{self.task}"


class Experiment(Section):
    """A grid: every combination of the lists. Only the method east has a strategy and an exponent."""

    loss: list[LossName] = Field(["sft"], min_length=1, description=", ".join(LOSSES))
    method: list[MethodName] = Field(
        ["east"], min_length=1, description="vanilla (equal weights), lw_w, lw_p (local weights), east"
    )
    strategy: list[Strategy] = Field(
        ["entropy"], min_length=1, description=f"what EAST's weight is computed from: {', '.join(COMPARED)}"
    )
    a: list[float | Literal["auto"]] = Field([], description="exponents; empty: the task's")
    n: list[int] = Field([], description="responses per question; empty: the study's")
    rounds: int = Field(1, ge=1, description="T")
    select: bool = Field(False, description="also evaluate on the task's held-out train rows")


class PaperResult(Section):
    """A result of the paper's tables, printed next to the study's."""

    model: str = Field(pattern=NAME, description="as a task of the study names it")
    task: str = Field(pattern=NAME, description="as a task of the study names it")
    loss: LossName | None = Field(None, description="none for a backbone")
    method: Annotated[str, one_of((BACKBONE, *METHODS))] = Field(description="backbone, or what was trained")
    accuracy: float = Field(ge=0, le=1, description="a share, not per cent")


class Study(Section):
    """A study file."""

    name: str = Field(pattern=NAME, description="of the study")
    folder: LocalPath = Field(description="where its runs, logs and study.json go")
    device: Literal["cpu", "gpu"] = Field("cpu", description="cpu: a thread per job; gpu: a GPU per job")
    parallel: int = Field(1, ge=1, description="jobs at once; on GPUs one each")
    seeds: list[int] = Field(min_length=1, description="each repeats every cell")
    n: int = Field(128, ge=1, description="responses per question: the most that any experiment uses")
    keep_models: bool = Field(True, description="false: models are deleted once their last round is evaluated")
    tasks: list[StudyTask] = Field(min_length=1, description="starting models with their questions")
    experiments: dict[str, Experiment] = Field(min_length=1, description="grids by name")
    paper: list[PaperResult] = Field([], description="the paper's numbers")


def load(path: str, overrides: list[str]) -> Study:
    """Read a study file; its run files are relative to it. Raises ValueError in one line, as for run files."""
    study = validation.validate(Study, yaml_file.read(path, overrides), path)
    folder = Path(path).parent
    tasks = [
        task.model_copy(
            update={
                "runs": {loss: str(folder / file) for loss, file in task.runs.items()},
                "teach": task.teach and str(folder / task.teach),
            }
        )
        for task in study.tasks
    ]
    names = [task.name for task in tasks]
    if len(set(names)) < len(names) or len(set(study.seeds)) < len(study.seeds):
        raise ValueError(f"{path}: the same model and task, or the same seed, appears twice; name each once")
    for name, experiment in study.experiments.items():
        for task in tasks:
            if missing := set(experiment.loss) - set(task.runs):
                raise ValueError(
                    f"{path}: experiment {name} asks for {sorted(missing)}, but {task.name} has runs for "
                    f"{sorted(task.runs)}; add the run file"
                )
            if experiment.select:
                check_held_out(task, path)
        if max(experiment.n, default=0) > study.n:
            raise ValueError(f"{path}: experiment {name} asks for n = {max(experiment.n)}, the study draws {study.n}")
    return study.model_copy(update={"tasks": tasks})


def check_held_out(task: StudyTask, path: str) -> None:
    """Check that exponents are chosen on rows that nothing was taught or trained on.

    Raises ValueError where the task names no such rows, or rows that are trained.
    """
    if task.select is None:
        raise ValueError(f"{path}: {task.name} names no held-out train rows, which an experiment asks for; add select")
    trainings = [(file, task.set) for file in task.runs.values()]
    if task.teach:
        trainings.append((task.teach, []))
    for file, changes in trainings:
        trained = config.load(file, changes).task.train_rows
        if trained is None or max(trained[0], task.select[0]) < min(trained[1], task.select[1]):
            raise ValueError(
                f"{path}: {task.name} selects on train rows {task.select}, but {file} trains on {trained or 'all'}; "
                'select other rows, or set: ["task.train_rows=[0,7000]"]'
            )
