"""Algorithm 1's outer loop: sample, grade, index, weigh, score, train, evaluate, T times, each a subprocess.

Round t starts from the model that round t - 1 trained. A stage that is complete and unchanged skips itself, so
a killed run goes on where it was.
"""

import shlex
import subprocess
import sys
from pathlib import Path

from east.run.config import Config

ROOT = Path(__file__).resolve().parents[2]  # sample.py and train.py stand here


def commands(config: Config, file: str, overrides: list[str]) -> list[list[str]]:
    """The command lines of every stage of every round, in order."""
    here = ["--config", file, *overrides]
    found = [[sys.executable, "-m", "east", "evaluate", "--base", *here, "round=1"]]
    for number in range(1, config.rounds.count + 1):
        last = [*here, f"round={number}"]
        if number > 1:
            before = config.model_copy(update={"round": number - 1}).folder_of("train") / "final"
            last += [f"model.path={before}", "model.revision=null"]
        found.append([sys.executable, str(ROOT / "sample.py"), *last])
        found += [[sys.executable, "-m", "east", stage, *last] for stage in ("grade", "index", "weigh")]
        if config.loss.name != "sft":
            found.append([*launcher(config.rounds.launcher, "-m", "--module"), "east", "reference", *last])
        found.append([*launcher(config.rounds.launcher), str(ROOT / "train.py"), *last])
        against = ["--against", "base"] if number == 1 else []
        found.append([sys.executable, "-m", "east", "evaluate", *last, *against])
    return found


def launcher(text: str, *module: str) -> list[str]:
    """`python`, or a launcher such as `deepspeed --num_gpus 8`; `module`: how (python, launcher) name a module."""
    if text == "python":
        return [sys.executable, *module[:1]]
    program, *options = shlex.split(text)
    beside = Path(sys.executable).parent / program  # the environment's own, also where it is not activated
    return [str(beside) if beside.exists() else program, *options, *module[1:]]


def run(config: Config, file: str, overrides: list[str]) -> None:
    """Run every stage of every round. Raises ValueError naming the first stage that fails."""
    if config.sampling.responses:
        raise ValueError("rounds draw their own responses; remove sampling.responses")
    if config.round != 1:
        raise ValueError(f"round: found {config.round}; `rounds` numbers them itself, remove the key")
    for line in commands(config, file, overrides):
        print(f"\n$ {shlex.join(line)}", flush=True)
        status = subprocess.run(line, check=False).returncode
        if status:
            raise ValueError(f"the stage above ended with status {status}; mend it and run the same command again")
