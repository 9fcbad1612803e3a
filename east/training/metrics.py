"""Metrics of a training run: sums over each step, written to metrics.jsonl, and to TensorBoard and Weights & Biases
where the run file asks for them."""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from east.run import files

FILE = "metrics.jsonl"


class Sums:
    """Sums over the examples of a step, float64 scalars, kept on the device until the end of the step.

    names: what the loss logs (`logs` in `run/loss_table.py`), in addition to `loss` and `tokens`.
    """

    def __init__(self, names: Iterable[str], device: torch.device):
        self.names, self.zero = ("loss", "tokens", *names), torch.zeros((), dtype=torch.float64, device=device)
        self.clear()

    def clear(self) -> None:
        """Set all sums to zero, at the start of a step."""
        self.values = dict.fromkeys(self.names, self.zero)

    def add(self, logged: dict[str, Tensor]) -> None:
        """Add the sums of a micro-batch."""
        self.values = {name: total + logged[name] for name, total in self.values.items()}

    def reduce(self, over_ranks: Callable[[Tensor], Tensor], flag: bool) -> tuple[dict[str, float], float]:
        """(sums over all ranks, number of ranks whose flag is set). The only time that a step waits for the device.

        over_ranks: element-wise sums over ranks of a 1-d tensor.
        """
        values = torch.stack([*self.values.values(), self.zero + flag])
        *totals, flags = over_ranks(values).tolist()
        return dict(zip(self.names, totals, strict=True)), flags


def row(
    step: int,
    epoch: int,
    examples: int,
    summed: dict[str, float],
    rate: float,
    grad_norm: float,
    z0: Sequence[float],
    seconds: float,
) -> dict[str, Any]:
    """One line of metrics.jsonl, in which the sums over the step are divided by its number of examples.

    summed: sums over all ranks. rate: learning rate. seconds: duration of the step. z0: of this rank's micro-batches,
    logged as their mean if the loss logs desirable examples (KTO).
    """
    line: dict[str, Any] = {"step": step, "epoch": epoch, "examples": examples}
    line |= {"loss": summed["loss"], "lr": rate, "grad_norm": grad_norm, "tokens": summed["tokens"]}
    line["tokens_per_second"] = summed["tokens"] / seconds
    if torch.cuda.is_available():
        line["gpu_memory"] = torch.cuda.max_memory_allocated()  # bytes, of this rank, so far
    counts = dict.fromkeys(summed, float(examples))
    if "desirable" in summed:
        counts |= {"reward_desirable": summed["desirable"], "reward_undesirable": examples - summed["desirable"]}
        line["z0"] = float(np.mean(z0))
    return line | {k: v / max(counts[k], 1) for k, v in summed.items() if k not in line and k != "desirable"}


class Log:
    """Writes one JSON line per optimizer step. On resume, the lines from step `first` on are removed, because these
    steps run again."""

    def __init__(self, folder: Path, first: int, tensorboard: bool, wandb: str | None, settings: dict[str, Any]):
        self.path = folder / FILE
        kept = [row for row in read(folder) if row["step"] < first] if first else []
        files.write_text(self.path, "".join(json.dumps(row) + "\n" for row in kept))
        self._file = self.path.open("a")
        self._writer = self._wandb = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=first)
        if wandb is not None:
            try:
                import wandb as client
            except ImportError:
                raise ValueError("train.wandb is set, but wandb is not installed; pip install wandb") from None
            self._wandb = client.init(project=wandb, name=folder.name, dir=str(folder), config=settings)

    def write(self, row: dict[str, Any]) -> None:
        """Append the row of a step and flush it to the operating system, so that a killed run has written it."""
        with files.disk_errors(self.path):
            self._file.write(json.dumps(row) + "\n")
            self._file.flush()
        numbers = {k: v for k, v in row.items() if isinstance(v, float)}
        if self._writer:
            for name, value in numbers.items():
                self._writer.add_scalar(name, value, row["step"])
        if self._wandb:
            self._wandb.log(numbers, step=row["step"])

    def close(self) -> None:
        """Close metrics.jsonl, TensorBoard and Weights & Biases."""
        self._file.close()
        if self._writer:
            self._writer.close()
        if self._wandb:
            self._wandb.finish()


def read(folder: Path) -> list[dict[str, Any]]:
    """Rows of metrics.jsonl in `folder`, [] without the file; an incomplete last line of a killed run is left out."""
    path = folder / FILE
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows
