"""`east check`: tokens, weights and reference are checked as training does, before it starts."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from east.checks import preflight
from east.data import indexed_dataset
from east.run import config
from tests.conftest import ROOT, prepare, settings
from tests.stages import folder_of


@pytest.fixture(scope="module", params=["sft", "dpo", "kto"])
def prepared(request, tmp_path_factory, tiny_model) -> tuple[Path, str]:
    tmp = tmp_path_factory.mktemp("check")
    prepare(tmp, tiny_model, loss={"name": request.param})
    return tmp, request.param


@pytest.fixture
def dpo(tmp_path, tiny_model) -> config.Config:
    return prepare(tmp_path, tiny_model, loss={"name": "dpo"})


def rewrite(folder: Path, change) -> None:
    """Change files of a complete folder, and write a manifest that matches them."""
    manifest = folder_of("dataset", folder).open()
    change(folder)
    folder_of("dataset", folder, manifest.config, manifest.inputs).finish(manifest.summary)


def test_every_token_is_compared_with_the_samples(prepared, tiny_model, capsys):
    tmp, loss = prepared
    run = config.parse(settings(tmp, tiny_model, loss={"name": loss}))
    preflight.run(run)
    printed = capsys.readouterr().out
    count = len(indexed_dataset.IndexedDataset(folder_of("dataset", run.folder_of("dataset"))).sequences)
    assert f"prompts and completions of all {count} sequences are those of" in printed
    assert "3 per epoch, 6 in all" in printed or loss != "dpo"  # 20 examples in batches of 8, twice
    assert ("mean log-probability per token" in printed) == (loss != "sft")


def test_missing_folders_are_printed_with_their_commands(dpo, capsys):
    for kind in ("weights", "reference", "samples"):
        shutil.rmtree(dpo.folder_of(kind))
    preflight.run(dpo)
    printed = capsys.readouterr().out
    assert "weights: not there yet; make it with `python -m east weigh --config X`" in printed
    assert "reference: not there yet; make it with `python -m east reference --config X`" in printed
    assert "tokens: not compared with" in printed


@pytest.mark.parametrize("what", ["prompt", "completion", "pair"])
def test_stored_tokens_that_differ_from_the_samples_are_an_error(dpo, what):
    """Another token in the middle of a segment, or the completion of another question."""

    def change(folder: Path) -> None:
        sequences = np.load(folder / "sequences.npy")
        if what == "pair":
            sequences["completion_offset"][0] = sequences["completion_offset"][-1]
            sequences["completion_length"][0] = sequences["completion_length"][-1]
            return np.save(folder / "sequences.npy", sequences)
        tokens = np.fromfile(folder / "tokens.bin", "<u2")
        position = sequences[f"{what}_offset"][3] + 2
        tokens[position] = 40 if tokens[position] != 40 else 41
        tokens.tofile(folder / "tokens.bin")

    rewrite(dpo.folder_of("dataset"), change)
    with pytest.raises(ValueError, match=r"the tokens of sequence \d+ differ from .*; delete it and run `.* index"):
        preflight.run(dpo)


def test_weights_and_reference_must_belong_to_dataset_and_model(dpo, tmp_path, tiny_model):
    """The errors are those of train.py."""
    bf16 = config.parse(settings(tmp_path, tiny_model, loss={"name": "dpo"}, train={"dtype": "bfloat16"}))
    with pytest.raises(ValueError, match="was made from something else: dtype: found"):
        preflight.run(bf16)
    np.save(dpo.folder_of("weights") / "weights.npy", np.full(20, 2.0))
    with pytest.raises(ValueError, match=r"weights.npy: content differs from its manifest"):
        preflight.run(dpo)
    rewrite(dpo.folder_of("dataset"), lambda folder: (folder / "questions.json").write_text(" " + questions(folder)))
    with pytest.raises(ValueError, match=r"\(weights\) was made from something else: dataset: found"):
        preflight.run(dpo)


def questions(folder: Path) -> str:
    return (folder / "questions.json").read_text()


def test_compile_with_zero_3_is_an_error(tmp_path, tiny_model):
    change = {"compile": True, "deepspeed": str(ROOT / "ds_configs/zero3.json")}
    with pytest.raises(ValueError, match="train.compile with ZeRO 3 is not supported"):
        preflight.run(config.parse(settings(tmp_path, tiny_model, train=change)))
