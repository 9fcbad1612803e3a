"""Look at a run before a GPU is spent on it: files, prompts, tokens, weights, steps, memory.

With --split-invariance: are the gradient and the losses the same over ranks, micro-batches and packing?
"""

import argparse

from east.run.config import Config

EXAMPLE = "east check --config configs/1b_gsm8k_dpo.yaml"


def flags(parser: argparse.ArgumentParser) -> None:
    """--split-invariance."""
    parser.add_argument("--split-invariance", action="store_true", help="compare gradients with a plain trainer's")


def run(config: Config, arguments: argparse.Namespace) -> None:
    """Raises ValueError for the first thing that would stop the run."""
    if arguments.split_invariance:
        from east.checks import split_invariance  # starts training runs

        return split_invariance.run(config)
    from east.checks import preflight

    preflight.run(config)
