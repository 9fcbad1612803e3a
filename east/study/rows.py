"""What study.json has in it."""

from typing import Any, Literal, NotRequired, TypedDict

StudyRow = TypedDict(  # one cell; paths are relative to the study's folder
    "StudyRow",
    {
        "id": str,  # unique within the study
        "task": str,  # its name in tables
        "model": str,  # the starting model's name
        "seed": int,  # of sampling, examples and training
        "loss": str | None,  # None: the starting model
        "method": str,  # a key of METHODS, or backbone
        "strategy": str,  # what the weights are computed from; uniform: no weights
        "a": float | str | None,  # exponent, or auto; None for methods without one
        "a_found": float | None,  # the exponent that auto chose
        "n": int,  # responses per question
        "round": int,
        "in": list[str],  # the experiments that the cell belongs to
        "status": Literal["waiting", "running", "done", "failed"],  # failed: tried again by the next start
        "error": str | None,  # of a failed cell: the job and the last line that it printed
        "eval": str,  # the evaluation on the test rows
        "eval_select": str | None,  # the evaluation on held-out train rows
        "weights": str | None,  # this and the next three: None for the starting model
        "graded": str | None,  # verdicts on the responses that it was trained on
        "samples": str | None,  # these responses
        "train": str | None,  # the trained model's folder
        "examples": int | None,  # trained on
        "examples_left_out": int | None,  # by weighting.zero=drop
        "seconds": float,  # of the stages that are this cell's alone
        "settings": str,  # digest of the resolved run file
        "inputs": dict[str, Any] | None,  # fingerprints of what the numbers come from
        "accuracy": NotRequired[float],  # read from eval/results.json
        "selected": NotRequired[float],  # read from eval_select/results.json
    },
)


class StudyFile(TypedDict):
    """study.json."""

    name: str  # of the study
    tasks: list[str]  # in the order of the cells
    seeds: list[int]  # likewise
    paper: list[dict[str, Any]]  # `study_file.PaperResult`, the fields by name
    cells: list[StudyRow]


def value(row: StudyRow, key: str) -> Any:
    """The value of a key that is chosen at run time; None where the row has none."""
    return row.get(key)
