"""The reference cache: keys, the score book, what is scored again, and what stops a run, also under ZeRO-3."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import train
from east.data.indexed_dataset import IndexedDataset
from east.run import config
from east.training import reference, reference_cache
from east.training.logprobs import CompletionLogprobs
from tests.conftest import ROOT, command, losses, prepare, run_file, settings
from tests.stages import folder_of
from tests.test_indexed_dataset import write


def column_of(found: config.Config) -> np.ndarray:
    return np.load(found.folder_of("reference") / "logprobs.npy")


def remake(tmp: Path, model: Path, **changes) -> config.Config:
    """The run with other settings, its columns and dataset made again; the score book stays."""
    found = config.parse(settings(tmp, model, **changes))
    for kind in ("dataset", "weights", "reference"):
        shutil.rmtree(found.folder_of(kind), ignore_errors=True)
    return prepare(tmp, model, **changes)


def test_keys_tell_tokens_and_boundary_apart(tmp_path):
    """[1 2 | 3] and [1 | 2 3] hold the same tokens; the same sequence in another dataset has the same key."""
    first = IndexedDataset(folder_of("dataset", write(tmp_path / "a", [([1, 2], [[3], [4]]), ([1], [[2, 3]])]))).keys()
    second = IndexedDataset(folder_of("dataset", write(tmp_path / "b", [([9], [[9]]), ([1, 2], [[4]])]))).keys()
    assert first.shape == (3, 2) and len(np.unique(first, axis=0)) == 3
    assert (second[1] == first[1]).all() and not (second[0] == first).all(axis=1).any()


def test_book_gives_back_what_was_appended_whoever_appended_it(tmp_path):
    keys = np.array([[7, 1], [5, 2], [7, 9], [3, 3]], dtype=np.uint64)
    assert np.isnan(reference_cache.look_up(reference_cache.read(tmp_path), keys)).all()
    with reference_cache.appending(tmp_path) as one, reference_cache.appending(tmp_path) as other:
        one(keys[:1], np.array([-1.5]))
        other(keys[1:2], np.array([-2.5]))
        one(keys[3:], np.array([-3.5]))
        assert len(reference_cache.read(tmp_path)) == 3, "out of the process at once"
    # [7, 9] shares its first half with [7, 1]
    assert np.array_equal(
        reference_cache.look_up(reference_cache.read(tmp_path), keys), [-1.5, -2.5, np.nan, -3.5], equal_nan=True
    )


def test_a_torn_record_is_left_out_and_those_before_it_stay(tmp_path):
    keys = np.arange(6, dtype=np.uint64).reshape(3, 2)
    with reference_cache.appending(tmp_path) as append:
        append(keys, np.array([-1.0, -2.0, -3.0]))
    (path,) = tmp_path.glob("*.bin")
    assert path.stat().st_size == 3 * 24
    os.truncate(path, 3 * 24 - 1)
    assert np.array_equal(
        reference_cache.look_up(reference_cache.read(tmp_path), keys), [-1, -2, np.nan], equal_nan=True
    )


def test_passes_hold_a_prompt_once_and_longest_groups_come_first(tmp_path):
    """Groups: prompt 4 + completions 1, 6 (longest 10); prompt 2 + completions 3, 3, 3 (5); prompt 1 + 20 (21).
    In passes of 11 tokens: 21 alone; 4 + 1 + 6 = 11; 2 + 3 + 3 + 3 = 11."""
    rows = [([1] * 4, [[2], [2] * 6]), ([3] * 2, [[4] * 3, [5] * 3, [6] * 3]), ([7], [[8] * 20])]
    dataset = IndexedDataset(folder_of("dataset", write(tmp_path / "d", rows)))
    assert [r.tolist() for r in reference.runs(dataset, np.arange(6), 11)] == [[5], [0, 1], [2, 3, 4]]
    assert [r.tolist() for r in reference.runs(dataset, np.arange(6), 10)] == [[5], [0], [1], [2, 3], [4]]
    assert reference.runs(dataset, np.array([2, 4]), 10)[0].tolist() == [2, 4]
    assert reference.runs(dataset, np.arange(0), 10) == []


def test_ranks_score_every_row_once_and_equal_numbers_of_tokens(tmp_path, monkeypatch):
    monkeypatch.setattr(reference, "TOKENS", 500)
    rng = np.random.default_rng(0)
    rows = [([q % 90] * 5, [[1] * int(n) for n in rng.integers(1, 200, 4)]) for q in range(80)]
    dataset = IndexedDataset(folder_of("dataset", write(tmp_path / "d", rows)))
    lengths = dataset.sequences["prompt_length"] + dataset.sequences["completion_length"]
    shares = [reference.share(dataset, np.arange(320), rank, 4) for rank in range(4)]
    assert sorted(np.concatenate([r for passes in shares for r in passes])) == list(range(320))
    tokens = [sum(lengths[r].sum() for r in passes) for passes in shares]
    assert max(tokens) < 1.1 * np.mean(tokens) and min(tokens) > 0.9 * np.mean(tokens)
    few = [reference.share(dataset, np.arange(4), rank, 4) for rank in range(4)]
    assert all(few), "fewer tokens than a pass holds are shared out all the same"


def test_a_remade_dataset_scores_only_what_is_new(tmp_path, tiny_model, capsys):
    """Three pairs per question instead of one: the responses that both draw are not scored again."""
    first = prepare(tmp_path, tiny_model, loss={"name": "dpo"})
    known = {tuple(k): v for k, v in zip(keys_of(first), column_of(first), strict=True)}
    capsys.readouterr()
    again = remake(tmp_path, tiny_model, loss={"name": "dpo"}, examples={"per_question": 3})
    keys = keys_of(again)
    old = np.array([tuple(key) in known for key in keys])
    assert 0 < old.sum() < len(keys)
    printed = f"{old.sum()} of {len(keys)} sequences are known, {len(keys) - old.sum()} to score"
    assert printed in capsys.readouterr().out
    reused = column_of(again)
    assert all(reused[i] == known[tuple(keys[i])] for i in np.flatnonzero(old)), "reused ones are the same numbers"
    assert_as_from_scratch(tmp_path, tiny_model, again, loss={"name": "dpo"}, examples={"per_question": 3})


def test_kto_after_dpo_scores_what_dpo_has_not(tmp_path, tiny_model, capsys):
    dpo = prepare(tmp_path, tiny_model, loss={"name": "dpo"})
    capsys.readouterr()
    kto = prepare(tmp_path, tiny_model, loss={"name": "kto"})
    known = {tuple(key) for key in keys_of(dpo)}
    shared = sum(tuple(key) in known for key in keys_of(kto))
    assert shared > 0 and f"{shared} of {len(keys_of(kto))} sequences are known" in capsys.readouterr().out
    assert_as_from_scratch(tmp_path, tiny_model, kto, loss={"name": "kto"})


def keys_of(found: config.Config) -> np.ndarray:
    return IndexedDataset(folder_of("dataset", found.folder_of("dataset"))).keys()


def assert_as_from_scratch(tmp: Path, model: Path, found: config.Config, **changes) -> None:
    """1e-4 nats per token: the packing is another."""
    before = column_of(found)
    shutil.rmtree(found.folder_of("scores"))
    remake(tmp, model, **changes)
    lengths = IndexedDataset(folder_of("dataset", found.folder_of("dataset"))).sequences["completion_length"]
    assert list(found.folder_of("scores").rglob("*.bin")), "nothing was scored again"
    assert (np.abs(column_of(found) - before) / lengths).max() < 1e-4


KILLED = """
import os, signal, sys
from east.run import config
from east.training import logprobs, reference
reference.TOKENS, passes, forward = 100, [], logprobs.CompletionLogprobs.forward
def dies(self, batch):
    passes.append(1)
    if len(passes) == 6:
        os.kill(os.getpid(), signal.SIGKILL)
    return forward(self, batch)
logprobs.CompletionLogprobs.forward = dies
reference.run(config.load(sys.argv[1]))
"""


def test_killed_while_scoring_and_started_again(tmp_path, tiny_model, capsys):
    """SIGKILL in the sixth pass, and half a record behind it: five passes are kept."""
    found = prepare(tmp_path, tiny_model, loss={"name": "dpo"})
    whole = column_of(found)
    for kind in ("reference", "scores"):
        shutil.rmtree(found.folder_of(kind))
    done = command("python", "-c", KILLED, run_file(tmp_path, found))
    assert done.returncode == -9, done.stderr[-2000:]
    assert not found.folder_of("reference").exists()
    (path,) = found.folder_of("scores").glob("*/*.bin")
    kept = path.stat().st_size // reference_cache.RECORD.itemsize
    assert 5 <= kept < len(whole)
    with path.open("ab") as file:
        file.write(b"torn")
    capsys.readouterr()
    reference.run(found)
    assert f"{kept} of {len(whole)} sequences are known" in capsys.readouterr().out
    assert np.abs(column_of(found) - whole).max() < 1e-3
    reused = reference_cache.look_up(np.fromfile(path, reference_cache.RECORD), keys_of(found))
    assert np.sum(reused == column_of(found)) == kept


@pytest.mark.parametrize("change", ["model", "dtype"])
def test_scores_of_another_model_or_dtype_are_not_used(tmp_path, tiny_model, capsys, change):
    prepare(tmp_path, tiny_model, loss={"name": "dpo"})
    model, dtype = tiny_model, "bfloat16"
    if change == "model":
        model, dtype = shutil.copytree(tiny_model, tmp_path / "model"), "float32"
        (model / "generation_config.json").write_text(json.dumps({"eos_token_id": 2}))
    capsys.readouterr()
    found = config.parse(settings(tmp_path, model, loss={"name": "dpo"}, train={"dtype": dtype}))
    shutil.rmtree(found.folder_of("reference"))
    reference.run(found)
    assert "reference: 0 of 40 sequences are known" in capsys.readouterr().out
    assert len(list(found.folder_of("scores").iterdir())) == 2


def test_a_book_of_other_numbers_stops_the_stage(tmp_path, tiny_model):
    """Log-probability code that has changed without its version: known sequences are scored again first."""
    found = prepare(tmp_path, tiny_model, loss={"name": "dpo"})
    (path,) = found.folder_of("scores").glob("*/*.bin")
    records = np.fromfile(path, reference_cache.RECORD)
    records["logprob"] *= 1.01
    records[:-1].tofile(path)
    shutil.rmtree(found.folder_of("reference"))
    with pytest.raises(ValueError, match="scored again differ by .* delete the round's folders"):
        reference.run(found)


def test_a_log_probability_that_is_not_finite_stops_the_stage(tmp_path, tiny_model, monkeypatch):
    found, forward = prepare(tmp_path, tiny_model, loss={"name": "sft"}), CompletionLogprobs.forward

    def overflows(self, batch):
        out = forward(self, batch)
        return out._replace(sums=out.sums.index_fill(0, torch.tensor(1), torch.nan))

    monkeypatch.setattr(CompletionLogprobs, "forward", overflows)
    with pytest.raises(ValueError, match=r"reference: sequence \d+ of .* has log-probability nan; the model is broken"):
        reference.run(found)
    assert not found.folder_of("reference").exists()
    assert all(not len(reference_cache.read(book)) for book in found.folder_of("scores").iterdir())


def write_column(found: config.Config, folder: Path, values: np.ndarray) -> Path:
    """A reference folder whose manifest claims the model and dataset of the run; the numbers are `values`."""
    made = folder_of("reference", found.folder_of("reference")).open()
    with folder_of("reference", folder, made.config, made.inputs).writing() as (scratch, _):
        np.save(scratch / "logprobs.npy", values)
    return folder


def test_a_column_of_another_model_is_found_by_scoring_again(tmp_path, tiny_model):
    """The manifest claims this model, the numbers say otherwise; before the first step and on resume."""
    found = prepare(tmp_path, tiny_model, loss={"name": "dpo"}, train={"max_steps": 1})
    train.train(found)
    right, wrong = column_of(found), write_column(found, tmp_path / "wrong", column_of(found) * 1.01)
    fresh = found.model_copy(update={"name": "fresh"})
    np.save(found.folder_of("reference") / "logprobs.npy", right * 1.01)
    with pytest.raises(ValueError, match="content differs from its manifest"):
        train.train(fresh)
    shutil.copytree(wrong, found.folder_of("reference"), dirs_exist_ok=True)
    with pytest.raises(ValueError, match="scored again differ by"):
        train.train(fresh)
    plan = found.folder_of("train") / "plan.json"
    began = json.loads(plan.read_text())
    began["inputs"]["reference"] = folder_of("reference", wrong).open().fingerprint
    plan.write_text(json.dumps(began))
    shutil.rmtree(found.folder_of("train") / "final")
    with pytest.raises(ValueError, match="scored again differ by"):
        train.train(found)


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory, tiny_model) -> tuple[Path, config.Config, Any]:
    """ZeRO-3 on two processes: scoring, training, and what another model's column does to a start and a resume."""
    tmp = tmp_path_factory.mktemp("two_ranks")
    base = {"loss": {"name": "dpo"}}
    found = prepare(tmp, tiny_model, **base)
    column, final = str(found.folder_of("reference")), str(found.folder / "train" / "resumed" / "final")
    shutil.copytree(column, tmp / "alone")
    wrong = str(write_column(found, tmp / "wrong", column_of(found) * 1.01))
    shutil.rmtree(found.folder_of("scores"))

    def step(name: str, steps: int, **more: Any) -> dict[str, Any]:
        zero = {"deepspeed": str(ROOT / "ds_configs/zero3.json"), "max_steps": steps, "checkpoint_every": 1}
        return {"stage": "train", "settings": settings(tmp, tiny_model, name=name, train=zero, **base), **more}

    steps = [
        {"stage": "reference", "settings": settings(tmp, tiny_model, **base), "remove": [column]},
        step("undisturbed", 5, copy=[(column, str(tmp / "right"))]),
        step("resumed", 3),
        step("fresh", 5, copy=[(wrong, column)]),
        step("resumed", 5, remove=[final], copy=[(str(tmp / "right"), column)]),
        step("resumed", 5, remove=[final], copy=[(wrong, column)]),
    ]
    (tmp / "list.json").write_text(json.dumps(steps))
    launcher = ["deepspeed", "--num_accelerators", 2, "--master_port", str(20_000 + (os.getpid() + 2) % 20_000)]
    return tmp, found, command(*launcher, ROOT / "tests" / "two_ranks.py", tmp / "list.json", timeout=200)


def test_two_ranks_score_what_one_scores(two_ranks):
    tmp, found, _ = two_ranks
    alone, right = (np.load(tmp / name / "logprobs.npy") for name in ("alone", "right"))
    lengths = IndexedDataset(folder_of("dataset", found.folder_of("dataset"))).sequences["completion_length"]
    assert (np.abs(right - alone) / lengths).max() < 1e-4
    files = list(found.folder_of("scores").glob("*/*.bin"))
    assert len(files) == 2 and sum(f.stat().st_size for f in files) == len(alone) * reference_cache.RECORD.itemsize


def test_zero3_stops_on_every_rank_for_the_column_of_another_model(two_ranks):
    """No rank goes on alone: a collective that the others do not join would hang."""
    tmp, _, _ = two_ranks
    for rank in range(2):
        said = json.loads((tmp / f"rank_{rank}.json").read_text())
        assert [s is None for s in said] == [True, True, True, False, True], said
        assert "4 sequences scored again differ by" in said[3]


def test_zero3_resumes_on_the_starting_models_column_only(two_ranks):
    _, found, done = two_ranks
    resumed, undisturbed = (found.model_copy(update={"name": name}) for name in ("resumed", "undisturbed"))
    assert len(losses(resumed)) == 5 and losses(resumed) == losses(undisturbed)
    assert done.returncode != 0 and "was made from something else: reference: found" in done.stderr
