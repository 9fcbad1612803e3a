"""`east grade --cases FILE --out OUT [grading.key=value ...]`: the grader on labelled answers instead of a run's."""

from pathlib import Path
from typing import Any

from east.grading import Grading, run_cases
from east.run import validation, yaml_file


def run(cases: str | Path, out: str | Path, overrides: list[str]) -> None:
    """Grade a file of cases, write the verdicts to `out`, and print a table of right and wrong verdicts.

    overrides: `grading.key=value` settings. A response without a marked answer is graded by its last number, unless
    `grading.extraction` is given. Raises ValueError for another setting, and as `grading.run_cases` does.
    """
    values: dict[str, Any] = {"grading": {"extraction": "last number"}}
    for override in overrides:
        if not override.startswith("grading."):
            raise ValueError(f"found {override!r}, expected grading.key=value: --cases takes no other settings")
        yaml_file.apply(values, override)
    print(run_cases(cases, out, validation.validate(Grading, values["grading"], "grading")))
