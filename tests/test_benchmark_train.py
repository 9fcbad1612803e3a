"""The training benchmark on a tiny model: `train.py` and TRL's trainers reach the same loss at every
optimizer step.

Stronger than equal losses on one batch: the second step's loss sees the first step's gradient, clipping
and update.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("loss", ["sft", "dpo", "kto"])
def test_loss_curve_equals_trl(loss):
    """The benchmark itself stops with an error when any of the three losses differ by more than 1e-3."""
    command = [sys.executable, "benchmarks/train.py", "--model", "tiny", "--loss", loss]
    command += ["--alternations", "1", "--steps", "2"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert result.returncode == 0, result.stdout + result.stderr
    found = json.loads(result.stdout.splitlines()[-1])
    assert found["ratio"]["least"] > 0 and found["east"]["mfu"] > 0
    assert found["east"]["tokens_per_second"] > 0 and found["trl"]["peak_gib"] > 0
