"""Stages called from tests as the command line calls them, and folders of any kind."""

import argparse
import importlib
from pathlib import Path
from typing import Any

from east.grading import Grading
from east.run import pipeline
from east.run.artifacts import ANY, Artifact
from east.run.config import Config, Sampling

FLAGS: dict[str, dict[str, Any]] = {
    "grade": {"cases": None, "out": None},
    "evaluate": {"base": False, "against": None},
    "check": {"split_invariance": False},
}


def run(verb: str, config: Config, **flags: Any) -> None:
    """`east VERB` in this process."""
    program = importlib.import_module(f"east.commands.{verb}")
    program.run(config, argparse.Namespace(**{**FLAGS.get(verb, {}), **flags}))


def folder_of(kind: str, folder: Path, settings: Any = None, inputs: Any = None) -> Artifact:
    """A folder of this kind, made from these settings and inputs (any, when it is read)."""
    return Artifact(kind, folder, settings, inputs or {}, pipeline.COMMANDS.get(kind, f"make {kind}"))


def drawn(folder: Path, settings: Sampling, grading: Grading | None = None) -> Artifact:
    """A samples folder of these sampling settings."""
    asked = pipeline.response_settings(settings, grading or Grading())
    return folder_of("samples", folder, {"engine": ANY, **asked})
