"""Gradient and losses of train.py are those of the plain trainer, for all ranks, micro-batches, packing and ZeRO."""

import itertools
import json
import sys

import numpy as np
import pytest
import torch

import train
from east import __main__ as east_main
from east import models
from east.checks import plain_trainer, split_invariance
from east.checks.split_invariance import TOLERANCE, Split, curve_error, exported_gradient, gradient_error, logged_losses
from east.data import indexed_dataset
from east.run import config, loss_table, pipeline
from east.toy import arithmetic
from east.toy.tiny_model import make_tiny_model  # fmt: skip
from east.training import reference
from tests.conftest import GROUP, ROOT, command, free_port, prepare, run_file, settings

pytestmark = pytest.mark.timeout(1500)  # one fixture trains 144 runs
LOSSES = {
    "sft-example": {"name": "sft"},
    "sft-sum": {"name": "sft", "normalization": "sum"},
    "sft-token": {"name": "sft", "normalization": "token"},
    "dpo": {"name": "dpo"},
    "kto": {"name": "kto", "lambda_undesirable": 0.7},
    "dpo-lora": {"name": "dpo"},
    "dpo-unpacked": {"name": "dpo"},
    "kto-unpacked": {"name": "kto"},
}
EXAMPLES = 40
# (loss, split, ZeRO stage): all combinations of packed full training; LoRA, a row for each sequence, and micro-batches
# by tokens, with a few splits
PACKED = [name for name in LOSSES if name not in ("dpo-lora", "dpo-unpacked", "kto-unpacked")]
CASES = [
    *itertools.product(PACKED, split_invariance.splits(16), range(4)),
    *itertools.product(["dpo-lora"], [Split(1, 4), Split(2, 2)], [1, 3]),
    *itertools.product(["dpo", "kto"], [Split(1, 1, 150), Split(2, 1, 150)], [2]),
    *itertools.product(["dpo-unpacked", "kto-unpacked"], [Split(1, 4), Split(2, 2), Split(2, 1, 150)], [3]),
]


def write_run(run, base, **inputs) -> None:
    """Random examples, two per question: responses of 1 to 60 tokens, weights over four orders of magnitude."""
    rng = np.random.default_rng(0)
    vocabulary, loss = models.vocabulary(base), loss_table.LOSSES[run.loss.name]
    dataset = pipeline.dataset(run, models.tokenizer_digest(models.load_tokenizer(base)), **inputs)
    with dataset.writing() as (out, summary):
        writer = indexed_dataset.Writer(out, vocabulary)
        prompts = [writer.segment(rng.integers(3, vocabulary, int(rng.integers(1, 30)))) for _ in range(EXAMPLES // 2)]
        lengths = np.exp(rng.uniform(0, np.log(60), (len(prompts), 4))).astype(int)
        lengths[0] = 1, 60, 60, 1
        answers = [[writer.segment(rng.integers(3, vocabulary, n)) for n in four] for four in lengths]
        for q, (prompt, four) in enumerate(zip(prompts, answers, strict=True)):
            rows = [writer.sequence(prompt, answer, q, k) for k, answer in enumerate(four)]
            for k in (0, 1):
                writer.example(q, rows[k], rows[k + 2] if loss.pair else -1, not loss.labelled or k == 0)
        kl = [
            [writer.sequence(prompts[q], answers[q - plan][k], q, -1) for q in range(len(prompts)) for k in (0, 1)]
            for plan in (1, 2)
        ]
        writer.close([str(q) for q in range(len(prompts))], np.array(kl) if loss.mismatched else None)
        summary.update(vocabulary=vocabulary)
    weights = np.exp(rng.normal(size=EXAMPLES) * 2.3)
    with pipeline.weights(run, dataset.open().fingerprint).writing() as (out, _):
        np.save(out / "weights.npy", weights / weights.mean())
        np.save(out / "kept.npy", np.ones(EXAMPLES, dtype=bool))


def changed(run, stage):
    """The run with the ZeRO stage, which is added to its name."""
    train_section = run.train.model_copy(update={"deepspeed": str(ROOT / f"ds_configs/zero{stage}.json")})
    return run.model_copy(update={"name": f"{run.name}-zero{stage}", "train": train_section})


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory):
    """A model of one layer: each further one would add a third to the time, and is distributed like the first."""
    folder = tmp_path_factory.mktemp("models") / "one_layer"
    texts = [f"{r['question']} {r['solution']}" for r in arithmetic.problems("easy", "train", 200, 0)]
    make_tiny_model(folder, texts, hidden_size=32, layers=1, seed=0)
    return folder


@pytest.fixture(scope="module")
def excerpts(tmp_path_factory, tiny_model):
    """For each loss: the excerpt, and gradient and losses of the plain trainer."""
    results = {}
    for name, loss in LOSSES.items():
        tmp = tmp_path_factory.mktemp(name)
        steps = {"batch_size": 16, "epochs": 4, "lr": 2e-4}
        model = {"path": str(tiny_model), "lora": {"r": 4, "alpha": 4} if "lora" in name else None}
        model["packing"] = "none" if "unpacked" in name else "shared_prompts"
        whole = config.parse(settings(tmp, tiny_model, model=model, loss={**loss, "beta": 0.5}, train=steps))
        write_run(whole, tiny_model)
        excerpt = split_invariance.excerpt(whole, tmp / "excerpt")
        if loss_table.LOSSES[excerpt.loss.name].needs_reference:
            reference.run(excerpt)
        results[name] = (excerpt, *plain_trainer.train(excerpt, split_invariance.STEPS))
    return results


@pytest.fixture(scope="module")
def trained(excerpts, tmp_path_factory):
    """For each (loss, split, ZeRO stage): its gradient run and its curve run, which are finished."""
    runs = {
        (name, split, stage): tuple(changed(run, stage) for run in split_invariance.variants(excerpts[name][0], split))
        for name, split, stage in CASES
    }
    two_ranks = [run for (_, split, _), pair in runs.items() if split.ranks == 2 for run in pair]
    path = tmp_path_factory.mktemp("splits") / "two_ranks.json"
    path.write_text(json.dumps([run.model_dump(mode="json") for run in two_ranks]))
    port = str(free_port())
    done = command("deepspeed", "--num_accelerators", 2, "--master_port", port, ROOT / "tests" / "train_many.py", path,
                   timeout=1400)  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    for (_, split, _), pair in runs.items():
        for run in pair if split.ranks == 1 else ():
            train.train(run)
    return runs


def test_splits_cover_ranks_micro_batches_and_accumulation():
    assert [s.name(16) for s in split_invariance.splits(16)] == ["1x16x1", "1x4x4", "2x2x4", "1x1x16"]
    assert [s.name(1) for s in split_invariance.splits(1)] == ["1x1x1", "2x1x1"]
    assert [s.name(1) for s in split_invariance.splits(1, 150)] == ["1x1x1", "2x1x1", "2x150tokens"]


@pytest.mark.parametrize(
    ("name", "split", "stage"), CASES, ids=[f"{name}-{split.name(16)}-{stage}" for name, split, stage in CASES]
)
def test_gradient_and_losses_are_those_of_the_plain_trainer(trained, excerpts, name, split, stage):
    _, gradient, curve = excerpts[name]
    first, second = trained[name, split, stage]
    assert gradient_error(exported_gradient(first), gradient) < TOLERANCE
    assert curve_error(logged_losses(second), curve) < TOLERANCE


@pytest.mark.parametrize("name", [name for name in LOSSES if "lora" not in name])
def test_the_loss_falls_in_ten_steps(excerpts, name):
    """In three epochs of three steps with 16, 16 and 8 examples. The loss of the third is below that of the first."""
    _, _, curve = excerpts[name]
    epochs = np.reshape(curve[:9], (3, 3)) @ [16, 16, 8]
    assert len(curve) == 10 and epochs[2] < 0.99 * epochs[0], epochs


def test_an_excerpt_of_drawn_responses_is_trained_too(tmp_path, tiny_model):
    """The dataset of drawn responses names the model that drew them, and so must its excerpt."""
    imported = config.parse(settings(tmp_path, tiny_model))
    whole = imported.model_copy(update={"sampling": imported.sampling.model_copy(update={"responses": None})})
    write_run(whole, tiny_model, model="digest")
    excerpt = split_invariance.excerpt(whole, tmp_path / "excerpt")
    assert pipeline.dataset(excerpt, model="digest").open().inputs == {"model": "digest"}
    with pytest.raises(ValueError, match='model: found "digest", expected "another"'):
        pipeline.dataset(excerpt, model="another").open()


def test_errors_by_hand():
    """a = (3, 4) with error (0.5, 0): 0.5 / 5. b = (0, 0) with error 0.01, relative to 1e-3 of the norm 5 of all: 2."""
    expected = {"a": torch.tensor([3.0, 4.0]), "b": torch.zeros(2)}
    assert gradient_error({**expected, "a": torch.tensor([3.5, 4.0])}, expected) == pytest.approx(0.1)
    assert gradient_error({**expected, "b": torch.tensor([0.0, 0.01])}, expected) == pytest.approx(2.0)
    assert curve_error([1.0, 2.2], [1.0, 2.0]) == pytest.approx(0.1)


def test_the_command_check_split_invariance(tmp_path, tiny_model, monkeypatch, capsys):
    """For a run with LoRA, bfloat16 and steps of one example, so that one of two ranks has no work. Runs on one rank
    are trained in this process, which has imported the libraries; those on two ranks are launched by the command."""
    launch = split_invariance._launch

    def launch_or_train(ranks, verb, run):
        if ranks == 1:
            return train.train(run)
        with monkeypatch.context() as environment:
            for name in GROUP:
                environment.delenv(name, raising=False)
            return launch(ranks, verb, run)

    monkeypatch.setattr(split_invariance, "_launch", launch_or_train)
    change = {"model": {"path": str(tiny_model), "lora": {"r": 4, "alpha": 4, "dropout": 0.5}},
              "train": {"batch_size": 1, "dtype": "bfloat16"}}  # fmt: skip
    run = prepare(tmp_path, tiny_model, **change)
    capsys.readouterr()
    arguments = ["east", "check", "--split-invariance", "--config", str(run_file(tmp_path, run))]
    monkeypatch.setattr(sys, "argv", arguments)
    east_main.main()
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("model: ")]
    rows = [line.split() for line in lines[2:]]
    assert [name for name, *_ in rows] == ["1x1x1", "2x1x1"]
    assert all(0 <= float(error) < TOLERANCE for _, *errors in rows for error in errors)
    assert not (run.folder / "split_invariance").exists()


@pytest.mark.parametrize("loss", [{"name": "sft", "normalization": "microbatch"}, {"name": "kto", "kl": "microbatch"}])
def test_settings_that_depend_on_the_split_by_definition_are_an_error(tmp_path, tiny_model, loss):
    run = config.parse(settings(tmp_path, tiny_model, loss=loss))
    with pytest.raises(ValueError, match="averages over micro-batches, so it depends on them"):
        split_invariance.run(run)
