"""`east VERB --config X [section.key=value ...]`, or `python -m east VERB ...`."""

import argparse
import importlib

from east.commands import VERBS
from east.run import command_line


def main() -> None:
    """Run one verb. Its module is imported only when it is asked for: most of them import torch."""
    verbs = "\n".join(f"  {name:10} {text}" for name, text in VERBS.items())
    parser = argparse.ArgumentParser(
        prog="east",
        description="Entropy-based adaptive weighting for self-training (arXiv 2503.23913).",
        epilog=f"verbs:\n{verbs}\n\n`east VERB --help` has a verb's flags and an example.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--local_rank", help=argparse.SUPPRESS)  # passed by the deepspeed launcher
    parser.add_argument("verb", choices=VERBS, metavar="VERB", help="what to do, see below")
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="...", help="its flags and settings")
    arguments = parser.parse_args()
    program = importlib.import_module(f"east.commands.{arguments.verb}")
    command_line.main(program, f"east {arguments.verb}", arguments.words)


if __name__ == "__main__":
    main()
