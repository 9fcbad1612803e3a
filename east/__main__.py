"""`python -m east STAGE --config X [section.key=value ...]`; installed as `east`."""

import argparse
from pathlib import Path
from typing import Any

from east.run import command_line, config

STAGES = {
    "grade": "read answers, mark them right or wrong, gather equal ones",
    "index": "choose training examples and store their tokens",
    "weigh": "turn cluster sizes into weights",
    "reference": "score every stored sequence with the starting model",
    "evaluate": "answer the test questions greedily and grade them",
    "rounds": "Algorithm 1: sample, grade, weigh, train, evaluate, T times",
    "study": "many runs: experiments over tasks and seeds, side by side (--config takes a study file)",
    "check": "look at a run before a GPU is spent on it",
    "report": "tables, figures and a page of a run's or a study's results",
    "tiny": "make an untrained tiny model for the arithmetic task",
}


def main() -> None:
    """Parse the stage and run it; heavy imports happen only for the stage that needs them."""
    stages = "\n".join(f"  {name:10} {text}" for name, text in STAGES.items())
    parser = argparse.ArgumentParser(
        prog="east", description=f"stages:\n{stages}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stage", choices=STAGES, metavar="STAGE")
    parser.add_argument("--cases", metavar="FILE", help="grade: labelled cases instead of a run")
    parser.add_argument("--out", metavar="FILE", help="grade --cases: where verdicts go")
    parser.add_argument("--base", action="store_true", help="evaluate: the starting model, not the trained one")
    parser.add_argument("--against", metavar="NAME", help="evaluate: compare with this result question by question")
    parser.add_argument("--split-invariance", action="store_true", help="check: gradients against a plain trainer's")
    parser.add_argument("--study", metavar="FOLDER", help="report: a study's results instead of a run's")
    command_line.run(run, parser, without=("cases", "study"), load=load)


def load(arguments: argparse.Namespace) -> Any:
    """The run file; for `study` the study file."""
    if arguments.stage == "study":
        from east.study import study_file

        return study_file.load(arguments.config, arguments.overrides)
    return config.load(arguments.config, arguments.overrides)


def run(config: Any, arguments: argparse.Namespace) -> Any:
    """Run one stage."""
    stage = arguments.stage
    if config is None and not (arguments.cases if stage == "grade" else arguments.study and stage == "report"):
        raise ValueError("give --config FILE; see configs/")
    if stage == "grade" and arguments.cases:
        from east.grading import labelled_cases

        if not arguments.out:
            raise ValueError("grade --cases needs --out FILE for the verdicts")
        return labelled_cases.main(arguments.cases, arguments.out, arguments.overrides)
    if stage in {"grade", "index", "weigh"}:
        from east.commands import stages

        return {"grade": stages.run_grade, "index": stages.run_index, "weigh": stages.run_weigh}[stage](config)
    if stage == "reference":
        from east.training import reference

        return reference.run(config)
    if stage == "evaluate":
        from east.evaluation import compare

        return compare.run(config, arguments.base, arguments.against)
    if stage == "rounds":
        from east.commands import rounds

        return rounds.run(config, arguments.config, arguments.overrides)
    if stage == "study":
        from east.study import ledger

        return ledger.run(config)
    if stage == "check" and arguments.split_invariance:
        from east.checks import split_invariance

        return split_invariance.run(config)
    if stage == "check":
        from east.checks import preflight

        return preflight.run(config)
    if stage == "report":
        from east.commands import report

        return report.run_study(Path(arguments.study)) if arguments.study else report.run(config)
    from east.commands import tiny

    return tiny.run(config)


if __name__ == "__main__":
    main()
