"""DeepSpeed files: ZeRO keys only; everything else is the run file's."""

import json
from pathlib import Path
from typing import Any

from east.run.config import Train

FOLDER = Path(__file__).parent / "ds_configs"  # the repository's ds_configs/, also inside a wheel


def zero_settings(train: Train) -> dict[str, Any]:
    """The ZeRO settings of a run. Raises ValueError as `read` does, and where train.compile excludes them."""
    zero = read(train.deepspeed)
    if train.compile and zero.get("stage") == 3:
        raise ValueError("train.compile with ZeRO 3 is not supported; set train.compile=false or take ZeRO 0 to 2")
    return zero


def read(name: str) -> dict[str, Any]:
    """The `zero_optimization` section of a DeepSpeed file, given as a path or by the name of one that comes with EAST.

    Raises ValueError for a missing or broken file, or one with keys that belong to the run file.
    """
    shipped = FOLDER / f"{name}.json"
    path = shipped if shipped.exists() else Path(name)
    try:
        values = json.loads(path.read_text())
    except OSError as error:
        names = ", ".join(sorted(file.stem for file in FOLDER.glob("*.json")))
        raise ValueError(
            f"train.deepspeed: cannot read {name} ({error.strerror}); give a path or one of {names}"
        ) from None
    except json.JSONDecodeError as error:
        raise ValueError(f"train.deepspeed: {path} is not JSON ({error})") from None
    keys = sorted(values) if isinstance(values, dict) else [f"a {type(values).__name__}"]
    if keys != ["zero_optimization"] or not isinstance(values["zero_optimization"], dict):
        raise ValueError(
            f"{path}: found {keys}, expected zero_optimization only; batch size, precision, clipping "
            "and accumulation belong to the run file's train section"
        )
    zero: dict[str, Any] = values["zero_optimization"]
    if (stage := zero.get("stage", 0)) not in (0, 1, 2, 3):
        raise ValueError(f"{path}: found zero_optimization.stage {stage!r}, expected 0, 1, 2 or 3; see ds_configs/")
    return zero
