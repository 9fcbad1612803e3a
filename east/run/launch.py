"""How one program of this package starts another: a command line, the same in a checkout and from a wheel."""

import shlex
import sys
from pathlib import Path


def command(verb: str, launcher: str = "python") -> list[str]:
    """The start of a verb's command line: `python -m east VERB`, or by a launcher such as `deepspeed --num_gpus 8`."""
    if launcher == "python":
        return [sys.executable, "-m", "east", verb]
    program, *options = shlex.split(launcher)
    installed = Path(sys.executable).parent / program  # of this environment, also where it is not activated
    python = any(Path(word).name.startswith("python") for word in (program, *options))  # e.g. srun python -u
    return [str(installed) if installed.exists() else program, *options, "-m" if python else "--module", "east", verb]
