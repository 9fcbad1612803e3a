"""Read the final answers of samples/, mark them right or wrong, gather equal ones: writes graded/.

With sampling.responses set, responses made elsewhere are read first. With --cases, the grader is tried on labelled
answers instead of a run.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from tqdm import tqdm

from east.grading import Grading, Summary, grade, run_cases, with_string_match
from east.run import files, pipeline, summaries, validation, yaml_file
from east.run.artifacts import Artifact, Manifest
from east.run.config import Config
from east.sampling import samples

EXAMPLE = "east grade --config configs/1b_gsm8k_sft.yaml"
INSTEAD_OF_CONFIG = ("cases",)


def flags(parser: argparse.ArgumentParser) -> None:
    """--cases and --out, which go together."""
    parser.add_argument("--cases", metavar="FILE", help="labelled cases instead of a run (JSON lines)")
    parser.add_argument("--out", metavar="FILE", help="with --cases: where verdicts go")


def run(config: Config | None, arguments: argparse.Namespace) -> None:
    """The stage, or the grader on labelled cases. Raises ValueError for flags that do not go together."""
    if (arguments.cases is None) != (arguments.out is None):
        raise ValueError("--cases and --out go together: give --cases FILE --out FILE, or neither")
    if arguments.cases is not None:
        if config is not None:
            raise ValueError("--cases takes no --config; give grading.key=value settings on the command line")
        return grade_cases(arguments.cases, arguments.out, arguments.overrides)
    assert config is not None
    source = pipeline.samples(config)
    if config.sampling.responses:
        from east.commands import sample  # torch and transformers, which grading itself does not need

        sample.run(config, arguments)  # imports them
    grade_folder(source, pipeline.graded(config, source.open().fingerprint), config.grading)


def grade_folder(source: Artifact, target: Artifact, grading: Grading) -> Manifest:
    """Grade a samples folder (the training samples, or an evaluation's): questions.jsonl, a line per question."""
    if not target.complete():
        assert target.settings is not None
        count, n = Summary(grading), target.settings["n"]
        with target.writing() as (scratch, summary):
            total = source.open().summary["questions"]
            rows = tqdm(samples.read(source, n), desc="grade", unit="question", total=total)
            graded = grade(rows, grading, summary=count)
            files.write_jsonl(scratch / "questions.jsonl", map(with_string_match, graded))
            summary.update(count.report())
            files.write_text(scratch / "report.json", json.dumps(summary, indent=1) + "\n")
    manifest = target.open()
    summaries.show("graded", target.folder, manifest.summary)
    return manifest


def grade_cases(cases: str | Path, out: str | Path, overrides: list[str]) -> None:
    """Grade a file of cases, write the verdicts to `out`, and print a table of right and wrong verdicts.

    overrides: `grading.key=value` settings; the others have the defaults of a run. Raises ValueError for another
    setting, and as `grading.run_cases` does.
    """
    values: dict[str, Any] = {"grading": {}}
    for override in overrides:
        if not override.startswith("grading."):
            raise ValueError(f"found {override!r}, expected grading.key=value: --cases takes no other settings")
        yaml_file.apply(values, override)
    print(run_cases(cases, out, validation.validate(Grading, values["grading"], "grading")))
