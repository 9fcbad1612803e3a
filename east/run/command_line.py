"""The command line that all programs share: `--config FILE [section.key=value ...]`, errors in one line."""

import argparse
import sys
from types import ModuleType

from east.run import config


def main(program: ModuleType, prog: str, words: list[str] | None = None) -> None:
    """Parse a command line, read its run file and call `program.run(config, arguments)`.

    program: a module with a docstring (the help), EXAMPLE and `run`; and where it needs them `flags(parser)`, which
    adds flags of its own, INSTEAD_OF_CONFIG, the names of flags that make --config unnecessary (`run` then gets None),
    and `load(file, overrides)` for a file that is no run file.
    A ValueError ends the program as one line `error: ...` with exit status 1, an interrupt with 130.
    """
    parser = argparse.ArgumentParser(
        prog=prog,
        description=str(program.__doc__),
        epilog=f"example:\n  {program.EXAMPLE}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", metavar="FILE", help="the run file (YAML)")
    if hasattr(program, "flags"):
        program.flags(parser)
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="settings that win over the file's")
    parser.add_argument("--local_rank", type=int, help=argparse.SUPPRESS)  # passed by the deepspeed launcher
    arguments = parser.parse_intermixed_args(words)
    instead = getattr(program, "INSTEAD_OF_CONFIG", ())
    if arguments.config is None and not any(getattr(arguments, flag) for flag in instead):
        parser.error(f"give --config FILE{''.join(f' or --{flag}' for flag in instead)}; see configs/")
    load = getattr(program, "load", config.load)
    try:
        program.run(load(arguments.config, arguments.overrides) if arguments.config else None, arguments)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted; the same command continues from here", file=sys.stderr)
        sys.exit(130)
