"""What study.json has in it."""

from typing import Any, Literal, NotRequired, TypedDict

StudyRow = TypedDict(  # one cell; paths are relative to the study's folder
    "StudyRow",
    {
        "id": str,  # unique within the study
        "task": str,
        "model": str,  # the starting model's name
        "seed": int,
        "loss": str | None,  # None: the starting model
        "method": str,  # a key of METHODS, or backbone
        "strategy": str,
        "a": float | str | None,  # exponent, or auto; None for methods without one
        "a_found": float | None,  # the exponent that auto chose
        "n": int,  # responses per question
        "round": int,
        "in": list[str],  # the experiments that the cell belongs to
        "status": Literal["waiting", "running", "done", "failed"],
        "error": str | None,
        "eval": str,
        "eval_select": str | None,  # the evaluation on held-out train rows
        "weights": str | None,
        "graded": str | None,
        "samples": str | None,
        "train": str | None,
        "examples": int | None,  # trained
        "examples_left_out": int | None,
        "seconds": float,  # of the stages that are this cell's alone
        "settings": str,  # digest of the resolved run file
        "inputs": dict[str, Any] | None,  # fingerprints of what the numbers come from
        "accuracy": NotRequired[float],  # read from eval/results.json
        "selected": NotRequired[float],  # read from eval_select/results.json
    },
)


class StudyFile(TypedDict):
    """study.json."""

    name: str
    tasks: list[str]
    seeds: list[int]
    paper: list[dict[str, Any]]  # `study_file.PaperResult`, the fields by name
    cells: list[StudyRow]


def value(row: StudyRow, key: str) -> Any:
    """The value of a key that is chosen at run time; None where the row has none."""
    return row.get(key)
