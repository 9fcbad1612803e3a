"""The training benchmark on a tiny model: `train.py` and TRL's trainers have the same loss in every optimizer step.

This is stronger than equal losses of one batch: the loss of the second step depends on the gradient, clipping and
update of the first.
"""

import json
import sys

import pytest

from benchmarks import train as benchmark

BY_TOKENS = ["--micro-tokens", "600", "--lengths", "60", "120", "--gradient-checkpointing"]


@pytest.mark.parametrize(("loss", "more"), [("sft", []), ("dpo", BY_TOKENS), ("kto", [])], ids=["sft", "dpo", "kto"])
def test_loss_curve_equals_trl(monkeypatch, capsys, loss, more):
    """The benchmark stops with an error when a loss of the three steps differs by more than 1e-3."""
    options = ["--model", "tiny", "--loss", loss, "--alternations", "1", "--steps", "2", *more]
    monkeypatch.setattr(sys, "argv", ["train.py", *options])
    benchmark.main()
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["ratio"]["least"] > 0 and found["east"]["mfu"] > 0
    assert found["east"]["tokens_per_second"] > 0 and found["trl"]["peak_gib"] > 0
    assert found["gradient_checkpointing"] == bool(more)
    for side in ("east", "trl"):
        assert (
            1 < found[side]["first_step_seconds"] < 300
        )  # imports alone take more than 1 s; other processes may use the machine


def test_micro_batches_by_tokens_are_an_error_for_kto(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train.py", "--loss", "kto", "--micro-tokens", "600"])
    with pytest.raises(SystemExit):
        benchmark.main()
    assert "leave out --micro-tokens" in capsys.readouterr().err
