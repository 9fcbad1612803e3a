"""Tables, figures and a page of the results on disk: report.md, report.html, figures/.

Of a run (--config) or of a study (--study).
"""

import argparse
from pathlib import Path

from east.report import compose
from east.run.config import Config

EXAMPLE = "east report --config configs/1b_gsm8k_sft.yaml"
INSTEAD_OF_CONFIG = ("study",)


def flags(parser: argparse.ArgumentParser) -> None:
    """--study."""
    parser.add_argument("--study", metavar="FOLDER", help="a study's results instead of a run's")


def run(config: Config | None, arguments: argparse.Namespace) -> None:
    """Write the report of a run, or of a study. Raises ValueError where both are named."""
    if config is not None and arguments.study is not None:
        raise ValueError("--config and --study were both given; name a run or a study")
    if config is not None:
        compose.report_run(config)
    else:
        compose.report_study(Path(arguments.study))
