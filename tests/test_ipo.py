"""A loss is added by a row of LOSSES, a function and a test: IPO, here from outside the package.

As a program (`deepspeed tests/test_ipo.py LIST`), trains every run of a JSON list on the ranks of the launcher.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import train
from east.checks import plain_trainer, split_invariance
from east.checks.split_invariance import Split, curve_error, exported_gradient, gradient_error, logged_losses
from east.run import config
from east.run.config import Loss
from east.run.loss_table import LOSSES, LossKind
from east.training import objective, reference, schedule
from east.training.losses import LossInputs, pair_logs
from tests.conftest import ROOT, command, free_port, settings

SPLITS = [Split(1, 1), Split(1, 4), Split(2, 1), Split(2, 4)]


def ipo_examples(x: LossInputs, loss: Loss) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """IPO (Azar et al. 2023, Eq. 17): (r_chosen - r_rejected - 1 / (2 beta))^2, [b]."""
    assert x.rejected_logprobs is not None and x.rejected_ref_logprobs is not None
    margin = (x.logprobs - x.ref_logprobs) - (x.rejected_logprobs - x.rejected_ref_logprobs)
    return (margin - 1 / (2 * loss.beta)) ** 2, pair_logs(x, loss.beta)


def plain_ipo(e: plain_trainer.Example, loss: Loss) -> torch.Tensor:
    return (e.ratios[0] - e.ratios[1] - 1 / (2 * loss.beta)) ** 2


def register() -> None:
    """The row, and the equation of the plain trainer."""
    LOSSES["ipo"] = LossKind(
        "tests.test_ipo:ipo_examples",
        settings=("beta",),
        logs=("reward_chosen", "reward_rejected", "accuracy"),
        pair=True,
        needs_reference=True,
    )
    plain_trainer.EQUATIONS["ipo"] = plain_ipo


@pytest.fixture(scope="module", autouse=True)
def registered():
    """For these tests only."""
    register()
    yield
    del LOSSES["ipo"], plain_trainer.EQUATIONS["ipo"]


def test_every_loss_of_the_package_has_a_plain_equation():
    assert plain_trainer.EQUATIONS.keys() == LOSSES.keys()


def test_ipo_by_hand():
    """beta 0.5, so 1 / (2 beta) = 1. Margins (-1 - -2) - (-4 - -3) = 2 and (-3 - -3) - (-5 - -5) = 0: losses 1 and 1;
    rewards 0.5 and 0 of the chosen, -0.5 and 0 of the rejected response."""
    t = torch.tensor
    pair = LossInputs(
        logprobs=t([-1.0, -3.0]), ref_logprobs=t([-2.0, -3.0]), lengths=t([1, 1]),
        rejected_logprobs=t([-4.0, -5.0]), rejected_ref_logprobs=t([-3.0, -5.0]), rejected_lengths=t([1, 1]),
        desirable=t([True, True]), mean_length=1.0, z0=0.0,
    )  # fmt: skip
    values, logs = ipo_examples(pair, Loss(name="ipo", beta=0.5))
    assert values.tolist() == [1.0, 1.0]
    assert {k: float(v) for k, v in logs.items()} == {"reward_chosen": 0.5, "reward_rejected": -0.5, "accuracy": 1}


@pytest.fixture(scope="module")
def runs(tmp_path_factory, tiny_model):
    """(gradient and curve of the plain trainer, split to its finished gradient run and curve run)."""
    from tests.test_split_invariance import write_run  # fixtures of its own name would shadow this file's

    tmp = tmp_path_factory.mktemp("ipo")
    steps = {"batch_size": 16, "epochs": 4, "lr": 2e-4}
    whole = config.parse(settings(tmp, tiny_model, loss={"name": "ipo", "beta": 0.5}, train=steps))
    write_run(whole, tiny_model)
    excerpt = split_invariance.excerpt(whole, tmp / "excerpt")
    reference.run(excerpt)
    plain = plain_trainer.train(excerpt, split_invariance.STEPS)
    variants = {split: split_invariance.variants(excerpt, split) for split in SPLITS}
    path = tmp / "two_ranks.json"
    two_ranks = [run.model_dump(mode="json") for split, pair in variants.items() if split.ranks == 2 for run in pair]
    path.write_text(json.dumps(two_ranks))
    port = str(free_port())
    done = command("deepspeed", "--num_accelerators", 2, "--master_port", port, ROOT / "tests" / "test_ipo.py", path)
    assert done.returncode == 0, done.stderr[-3000:]
    for split, pair in variants.items():
        for run in pair if split.ranks == 1 else ():
            train.train(run)
    return plain, variants


@pytest.mark.parametrize("split", SPLITS, ids=lambda s: s.name(16))
def test_it_trains_as_the_plain_trainer(runs, split):
    (gradient, curve), variants = runs
    first, second = variants[split]
    assert gradient_error(exported_gradient(first), gradient) < split_invariance.TOLERANCE
    # a rounding error d of a margin m changes (m - 1)^2 by 2 d / (m - 1), relatively: more than DPO's loss
    assert curve_error(logged_losses(second), curve) < 20 * split_invariance.TOLERANCE
    weights = np.load(first.folder_of("weights") / "weights.npy")
    _, rows = schedule.step_rows(np.arange(len(weights)), 0, first.train.batch_size, first.train.seed)
    assert logged_losses(second)[0] == pytest.approx(weights[rows].mean(), rel=1e-4), "margins are 0: (0 - 1)^2 = 1"


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x, loss: (ipo_examples(x, loss)[0].mean(), ipo_examples(x, loss)[1]),
        lambda x, loss: (ipo_examples(x, loss)[0][:0], ipo_examples(x, loss)[1]),
        lambda x, loss: (ipo_examples(x, loss)[0], {}),
    ],
    ids=["reduced", "empty", "logs something else"],
)
def test_a_function_that_does_not_keep_its_contract_stops(runs, monkeypatch, wrong):
    _, variants = runs
    monkeypatch.setattr(objective.pkgutil, "resolve_name", lambda name: wrong)
    again = variants[Split(1, 4)][1].model_copy(update={"name": "wrong"})
    with pytest.raises(AssertionError, match="ipo"):
        train.train(again)


if __name__ == "__main__":
    register()
    for values in json.loads(Path(sys.argv[-1]).read_text()):
        train.train(config.parse(values))
