"""The outer loop of Algorithm 1: sample, grade, index, weigh, score, train, evaluate, T times, each a subprocess.

Round t starts from the model that round t - 1 trained. A stage that is complete and unchanged skips itself, so
a killed run continues where it was.
"""

import argparse
import shlex
import subprocess

from east.run.config import Config
from east.run.launch import command
from east.run.loss_table import LOSSES

EXAMPLE = 'east rounds --config configs/1b_gsm8k_dpo.yaml rounds.count=2 "rounds.launcher=deepspeed --num_gpus 8"'


def run(config: Config, arguments: argparse.Namespace) -> None:
    """Run every stage of every round. Raises ValueError naming the first stage that fails."""
    if config.sampling.responses:
        raise ValueError("rounds draw their own responses; remove sampling.responses")
    if config.round != 1:
        raise ValueError(f"round: found {config.round}; `rounds` numbers them itself, remove the key")
    for line in commands(config, arguments.config, arguments.overrides):
        print(f"\n$ {shlex.join(line)}", flush=True)
        status = subprocess.run(line, check=False).returncode
        if status:
            raise ValueError(f"the stage above ended with status {status}; fix it and run the same command again")


def commands(config: Config, file: str, overrides: list[str]) -> list[list[str]]:
    """The command lines of every stage of every round, in order."""
    settings = ["--config", file, *overrides]
    lines = [[*command("evaluate"), "--base", *settings, "round=1"]]
    for number in range(1, config.rounds.count + 1):
        last = [*settings, f"round={number}"]
        if number > 1:
            before = config.model_copy(update={"round": number - 1}).folder_of("train") / "final"
            last += [f"model.path={before}", "model.revision=null"]
        lines += [[*command(stage), *last] for stage in ("sample", "grade", "index", "weigh")]
        if LOSSES[config.loss.name].needs_reference:
            lines.append([*command("reference", config.rounds.launcher), *last])
        lines.append([*command("train", config.rounds.launcher), *last])
        against = ["--against", "base"] if number == 1 else []
        lines.append([*command("evaluate"), *last, *against])
    return lines
