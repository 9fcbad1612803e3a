"""The training benchmark on a tiny model: `train.py` and TRL's trainers reach the same loss at every
optimizer step.

Stronger than equal losses on one batch: the second step's loss sees the first step's gradient, clipping
and update.
"""

import json
import sys

import pytest

from benchmarks import train as benchmark

BY_TOKENS = ["--micro-tokens", "600", "--lengths", "60", "120", "--gradient-checkpointing"]


@pytest.mark.parametrize(("loss", "more"), [("sft", []), ("dpo", BY_TOKENS), ("kto", [])], ids=["sft", "dpo", "kto"])
def test_loss_curve_equals_trl(monkeypatch, capsys, loss, more):
    """The benchmark itself stops with an error when any of the three losses differ by more than 1e-3."""
    options = ["--model", "tiny", "--loss", loss, "--alternations", "1", "--steps", "2", *more]
    monkeypatch.setattr(sys, "argv", ["train.py", *options])
    benchmark.main()
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["ratio"]["least"] > 0 and found["east"]["mfu"] > 0
    assert found["east"]["tokens_per_second"] > 0 and found["trl"]["peak_gib"] > 0
    assert found["gradient_checkpointing"] == bool(more)
    for side in ("east", "trl"):
        assert 1 < found[side]["first_step_seconds"] < 300  # imports alone take more; test runs share the machine


def test_the_reference_point_of_trl_needs_equal_micro_batches(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train.py", "--loss", "kto", "--micro-tokens", "600"])
    with pytest.raises(SystemExit):
        benchmark.main()
    assert "leave out --micro-tokens" in capsys.readouterr().err
