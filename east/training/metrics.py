"""What a training run reports: metrics.jsonl always; TensorBoard and Weights & Biases when asked."""

import json
from pathlib import Path
from typing import Any

from east.run import files

FILE = "metrics.jsonl"


class Log:
    """One JSON line per optimizer step. On resume, lines from step `first` on are cut off: they are run again."""

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
                raise ValueError("train.wandb is set but wandb is not installed; pip install wandb") from None
            self._wandb = client.init(project=wandb, name=folder.name, dir=str(folder), config=settings)

    def write(self, row: dict[str, Any]) -> None:
        """Append one step's row and push it to the disk's cache, so that a killed run has it."""
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
        """Close every sink."""
        self._file.close()
        if self._writer:
            self._writer.close()
        if self._wandb:
            self._wandb.finish()


def read(folder: Path) -> list[dict[str, Any]]:
    """Rows of metrics.jsonl; a torn last line (a killed run) is left out."""
    path = folder / FILE
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows
