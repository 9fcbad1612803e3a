"""The command line that all programs share: `--config FILE [section.key=value ...]`, errors in one line."""

import argparse
import sys
from collections.abc import Callable
from typing import Any

from east.run import config


def run(
    main: Callable[[Any, argparse.Namespace], None],
    parser: argparse.ArgumentParser,
    without: tuple[str, ...] = (),
    load: Callable[[argparse.Namespace], Any] = lambda arguments: config.load(arguments.config, arguments.overrides),
) -> None:
    """Parse the command line, load the run file, call `main(config, arguments)`.

    `without` names options that make --config unnecessary; `main` then gets None for the config. `load` reads
    the file where it may be another than a run file.
    A ValueError ends the program as one line `error: ...` with exit status 1, an interrupt with 130.
    """
    parser.add_argument("--config", metavar="FILE", help="the run file (YAML)")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="settings that win over the file's")
    parser.add_argument("--local_rank", type=int, help=argparse.SUPPRESS)  # passed by the deepspeed launcher
    arguments = parser.parse_intermixed_args()
    if arguments.config is None and not any(getattr(arguments, name) for name in without):
        parser.error("give --config FILE; see configs/")
    try:
        main(load(arguments) if arguments.config else None, arguments)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(130)
