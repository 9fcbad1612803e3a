"""Reference log-probabilities: keys, the cache, what is scored again, and what stops a run, also under ZeRO-3."""

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
from tests.conftest import ROOT, command, free_port, losses, prepare, run_file, settings
from tests.stages import folder_of
from tests.test_indexed_dataset import write


def column_of(run: config.Config) -> np.ndarray:
    return np.load(run.folder_of("reference") / "logprobs.npy")


def prepare_again(tmp: Path, model: Path, **changes) -> config.Config:
    """The run with other settings: dataset, weights and reference are written again, and the cache is kept."""
    run = config.parse(settings(tmp, model, **changes))
    for kind in ("dataset", "weights", "reference"):
        shutil.rmtree(run.folder_of(kind), ignore_errors=True)
    return prepare(tmp, model, **changes)


def test_keys_depend_on_tokens_and_on_where_the_prompt_ends(tmp_path):
    """[1 2 | 3] and [1 | 2 3] have the same tokens but different keys; the same sequence has the same key in another
    dataset."""
    first = IndexedDataset(folder_of("dataset", write(tmp_path / "a", [([1, 2], [[3], [4]]), ([1], [[2, 3]])]))).keys()
    second = IndexedDataset(folder_of("dataset", write(tmp_path / "b", [([9], [[9]]), ([1, 2], [[4]])]))).keys()
    assert first.shape == (3, 2) and len(np.unique(first, axis=0)) == 3
    assert (second[1] == first[1]).all() and not (second[0] == first).all(axis=1).any()


def test_cache_returns_what_several_processes_appended(tmp_path):
    keys = np.array([[7, 1], [5, 2], [7, 9], [3, 3]], dtype=np.uint64)
    assert np.isnan(reference_cache.look_up(reference_cache.read(tmp_path), keys)).all()
    with reference_cache.appending(tmp_path) as one, reference_cache.appending(tmp_path) as other:
        one(keys[:1], np.array([-1.5]))
        other(keys[1:2], np.array([-2.5]))
        one(keys[3:], np.array([-3.5]))
        assert len(reference_cache.read(tmp_path)) == 3, "each append is flushed"
    # [7, 9] has the same first 64 bits as [7, 1]
    assert np.array_equal(
        reference_cache.look_up(reference_cache.read(tmp_path), keys), [-1.5, -2.5, np.nan, -3.5], equal_nan=True
    )


def test_an_incomplete_last_record_is_ignored(tmp_path):
    keys = np.arange(6, dtype=np.uint64).reshape(3, 2)
    with reference_cache.appending(tmp_path) as append:
        append(keys, np.array([-1.0, -2.0, -3.0]))
    (path,) = tmp_path.glob("*.bin")
    assert path.stat().st_size == 3 * 24
    os.truncate(path, 3 * 24 - 1)
    assert np.array_equal(
        reference_cache.look_up(reference_cache.read(tmp_path), keys), [-1, -2, np.nan], equal_nan=True
    )


def test_forward_passes_count_a_prompt_once_and_begin_with_the_longest_sequences(tmp_path):
    """Sequences by prompt: prompt 4 + completions 1, 6 (longest 10); prompt 2 + completions 3, 3, 3 (5); prompt 1 + 20
    (21). In passes of 11 tokens: 21 in a pass of its own; 4 + 1 + 6 = 11; 2 + 3 + 3 + 3 = 11."""
    rows = [([1] * 4, [[2], [2] * 6]), ([3] * 2, [[4] * 3, [5] * 3, [6] * 3]), ([7], [[8] * 20])]
    dataset = IndexedDataset(folder_of("dataset", write(tmp_path / "d", rows)))

    def passes(rows, tokens, packing="shared_prompts"):
        return [r.tolist() for r in reference.forward_passes(dataset, np.array(rows, dtype=np.int64), tokens, packing)]

    assert passes(range(6), 11) == [[5], [0, 1], [2, 3, 4]]
    assert passes(range(6), 10) == [[5], [0], [1], [2, 3], [4]]
    assert passes([2, 4], 10) == [[2, 4]]
    assert passes([], 10) == []
    # a row for each, of 5, 10, 5, 5, 5, 21 tokens: the longest first, as many as fit once all are as long as the first
    assert passes(range(6), 15, "none") == [[5], [1], [0, 2, 3], [4]]


def test_ranks_score_every_sequence_once_and_similar_numbers_of_tokens(tmp_path, monkeypatch):
    monkeypatch.setattr(reference, "TOKENS", 500)
    rng = np.random.default_rng(0)
    rows = [([q % 90] * 5, [[1] * int(n) for n in rng.integers(1, 200, 4)]) for q in range(80)]
    dataset = IndexedDataset(folder_of("dataset", write(tmp_path / "d", rows)))
    lengths = dataset.sequences["prompt_length"] + dataset.sequences["completion_length"]
    shares = [reference.share(dataset, np.arange(320), "shared_prompts", rank, 4) for rank in range(4)]
    assert sorted(np.concatenate([r for passes in shares for r in passes])) == list(range(320))
    tokens = [sum(lengths[r].sum() for r in passes) for passes in shares]
    assert max(tokens) < 1.1 * np.mean(tokens) and min(tokens) > 0.9 * np.mean(tokens)
    few = [reference.share(dataset, np.arange(4), "shared_prompts", rank, 4) for rank in range(4)]
    assert all(few), "every rank has a pass, also with fewer tokens than fit into one"


def test_for_a_changed_dataset_only_new_sequences_are_scored(tmp_path, tiny_model, capsys):
    """Three pairs per question instead of one: the responses that are in both datasets are not scored again."""
    first = prepare(tmp_path, tiny_model, loss={"name": "dpo"})
    known = {tuple(k): v for k, v in zip(keys_of(first), column_of(first), strict=True)}
    capsys.readouterr()
    again = prepare_again(tmp_path, tiny_model, loss={"name": "dpo"}, examples={"per_question": 3})
    keys = keys_of(again)
    old = np.array([tuple(key) in known for key in keys])
    assert 0 < old.sum() < len(keys)
    printed = f"{old.sum()} of {len(keys)} sequences are in the cache, {len(keys) - old.sum()} to score"
    assert printed in capsys.readouterr().out
    reused = column_of(again)
    assert all(reused[i] == known[tuple(keys[i])] for i in np.flatnonzero(old)), "cached values are reused as they are"
    assert_as_from_scratch(tmp_path, tiny_model, again, loss={"name": "dpo"}, examples={"per_question": 3})


def test_kto_after_dpo_scores_only_new_sequences(tmp_path, tiny_model, capsys):
    dpo = prepare(tmp_path, tiny_model, loss={"name": "dpo"})
    capsys.readouterr()
    kto = prepare(tmp_path, tiny_model, loss={"name": "kto"})
    known = {tuple(key) for key in keys_of(dpo)}
    shared = sum(tuple(key) in known for key in keys_of(kto))
    assert shared > 0 and f"{shared} of {len(keys_of(kto))} sequences are in the cache" in capsys.readouterr().out
    assert_as_from_scratch(tmp_path, tiny_model, kto, loss={"name": "kto"})


def keys_of(run: config.Config) -> np.ndarray:
    return IndexedDataset(folder_of("dataset", run.folder_of("dataset"))).keys()


def assert_as_from_scratch(tmp: Path, model: Path, run: config.Config, **changes) -> None:
    """Scoring without a cache gives the same values, to 1e-4 nats per token because the packing differs."""
    before = column_of(run)
    shutil.rmtree(run.folder_of("scores"))
    prepare_again(tmp, model, **changes)
    lengths = IndexedDataset(folder_of("dataset", run.folder_of("dataset"))).sequences["completion_length"]
    assert list(run.folder_of("scores").rglob("*.bin")), "nothing was scored again"
    assert (np.abs(column_of(run) - before) / lengths).max() < 1e-4


KILLED = """
import os, signal, sys
from east.run import config
from east.training import reference
reference.TOKENS, score = 100, reference.score
def killed(*arguments):
    for number, scored in enumerate(score(*arguments), 1):
        if number == 6:
            os.kill(os.getpid(), signal.SIGKILL)
        yield scored
reference.score = killed
reference.run(config.load(sys.argv[1]))
"""


def test_scoring_resumes_after_a_kill(tmp_path, tiny_model, capsys):
    """SIGKILL in the sixth pass over the dataset, with an incomplete record at the end of the file: the values of five
    passes are reused."""
    run = prepare(tmp_path, tiny_model, loss={"name": "dpo"})
    whole = column_of(run)
    for kind in ("reference", "scores"):
        shutil.rmtree(run.folder_of(kind))
    done = command("python", "-c", KILLED, run_file(tmp_path, run))
    assert done.returncode == -9, done.stderr[-2000:]
    assert not run.folder_of("reference").exists()
    (path,) = run.folder_of("scores").glob("*/*.bin")
    kept = path.stat().st_size // reference_cache.RECORD.itemsize
    assert 5 <= kept < len(whole)
    with path.open("ab") as file:
        file.write(b"torn")
    capsys.readouterr()
    reference.run(run)
    assert f"{kept} of {len(whole)} sequences are in the cache" in capsys.readouterr().out
    assert np.abs(column_of(run) - whole).max() < 1e-3
    reused = reference_cache.look_up(np.fromfile(path, reference_cache.RECORD), keys_of(run))
    assert np.sum(reused == column_of(run)) == kept


@pytest.mark.parametrize("change", ["model", "dtype"])
def test_cached_values_of_another_model_or_dtype_are_not_used(tmp_path, tiny_model, capsys, change):
    prepare(tmp_path, tiny_model, loss={"name": "dpo"})
    model, dtype = tiny_model, "bfloat16"
    if change == "model":
        model, dtype = shutil.copytree(tiny_model, tmp_path / "model"), "float32"
        (model / "generation_config.json").write_text(json.dumps({"eos_token_id": 2}))
    capsys.readouterr()
    run = config.parse(settings(tmp_path, model, loss={"name": "dpo"}, train={"dtype": dtype}))
    shutil.rmtree(run.folder_of("reference"))
    reference.run(run)
    assert "reference: 0 of 40 sequences are in the cache" in capsys.readouterr().out
    assert len(list(run.folder_of("scores").iterdir())) == 2


def test_a_cache_with_wrong_values_is_an_error(tmp_path, tiny_model):
    """As if the log-probability code had changed without its version: a few cached sequences are scored again first."""
    run = prepare(tmp_path, tiny_model, loss={"name": "dpo"})
    (path,) = run.folder_of("scores").glob("*/*.bin")
    records = np.fromfile(path, reference_cache.RECORD)
    records["logprob"] *= 1.01
    records[:-1].tofile(path)
    shutil.rmtree(run.folder_of("reference"))
    with pytest.raises(ValueError, match="scored again differ by .* delete the round's folders"):
        reference.run(run)


def test_a_log_probability_that_is_not_finite_is_an_error(tmp_path, tiny_model, monkeypatch):
    run, forward = prepare(tmp_path, tiny_model, loss={"name": "sft"}), CompletionLogprobs.forward

    def overflows(self, batch):
        out = forward(self, batch)
        if len(out.sums) <= 3:  # when the model is loaded
            return out
        return out._replace(sums=out.sums.index_fill(0, torch.tensor(1), torch.nan))

    monkeypatch.setattr(CompletionLogprobs, "forward", overflows)
    with pytest.raises(ValueError, match=r"reference: sequence \d+ of .* has log-probability nan; the model is broken"):
        reference.run(run)
    assert not run.folder_of("reference").exists()
    assert all(not len(reference_cache.read(folder)) for folder in run.folder_of("scores").iterdir())


def write_column(run: config.Config, folder: Path, values: np.ndarray) -> Path:
    """A reference folder whose manifest names the model and dataset of the run, with other `values`."""
    manifest = folder_of("reference", run.folder_of("reference")).open()
    with folder_of("reference", folder, manifest.config, manifest.inputs).writing() as (scratch, _):
        np.save(scratch / "logprobs.npy", values)
    return folder


def test_values_of_another_model_are_detected_by_scoring_again(tmp_path, tiny_model):
    """The manifest names this model, but the values are of another one; before the first step and on resume."""
    run = prepare(tmp_path, tiny_model, loss={"name": "dpo"}, train={"max_steps": 1})
    train.train(run)
    right, wrong = column_of(run), write_column(run, tmp_path / "wrong", column_of(run) * 1.01)
    fresh = run.model_copy(update={"name": "fresh"})
    np.save(run.folder_of("reference") / "logprobs.npy", right * 1.01)
    with pytest.raises(ValueError, match="content differs from its manifest"):
        train.train(fresh)
    shutil.copytree(wrong, run.folder_of("reference"), dirs_exist_ok=True)
    with pytest.raises(ValueError, match="scored again differ by"):
        train.train(fresh)
    plan = run.folder_of("train") / "plan.json"
    began = json.loads(plan.read_text())
    began["inputs"]["reference"] = folder_of("reference", wrong).open().fingerprint
    plan.write_text(json.dumps(began))
    shutil.rmtree(run.folder_of("train") / "final")
    with pytest.raises(ValueError, match="scored again differ by"):
        train.train(run)


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory, tiny_model) -> tuple[Path, config.Config, Any]:
    """ZeRO-3 on two processes: scoring, training, and starting and resuming with the reference of another model."""
    tmp = tmp_path_factory.mktemp("two_ranks")
    base = {"loss": {"name": "dpo"}}
    run = prepare(tmp, tiny_model, **base)
    column, final = str(run.folder_of("reference")), str(run.folder / "train" / "resumed" / "final")
    shutil.copytree(column, tmp / "alone")
    wrong = str(write_column(run, tmp / "wrong", column_of(run) * 1.01))
    shutil.rmtree(run.folder_of("scores"))

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
    launcher = ["deepspeed", "--num_accelerators", 2, "--master_port", str(free_port())]
    return tmp, run, command(*launcher, ROOT / "tests" / "two_ranks.py", tmp / "list.json", timeout=200)


def test_two_ranks_score_the_same_values_as_one(two_ranks):
    tmp, run, _ = two_ranks
    alone, right = (np.load(tmp / name / "logprobs.npy") for name in ("alone", "right"))
    lengths = IndexedDataset(folder_of("dataset", run.folder_of("dataset"))).sequences["completion_length"]
    assert (np.abs(right - alone) / lengths).max() < 1e-4
    files = list(run.folder_of("scores").glob("*/*.bin"))
    assert len(files) == 2 and sum(f.stat().st_size for f in files) == len(alone) * reference_cache.RECORD.itemsize


def test_zero3_stops_on_every_rank_for_the_reference_of_another_model(two_ranks):
    """No rank may continue alone: it would hang in a collective that the others do not call."""
    tmp, _, _ = two_ranks
    for rank in range(2):
        errors = json.loads((tmp / f"rank_{rank}.json").read_text())
        assert [e is None for e in errors] == [True, True, True, False, True], errors
        assert "4 sequences scored again differ by" in errors[3]


def test_zero3_resumes_only_with_the_reference_of_its_starting_model(two_ranks):
    _, run, done = two_ranks
    resumed, undisturbed = (run.model_copy(update={"name": name}) for name in ("resumed", "undisturbed"))
    assert len(losses(resumed)) == 5 and losses(resumed) == losses(undisturbed)
    assert done.returncode != 0 and "was made from something else: reference: found" in done.stderr
