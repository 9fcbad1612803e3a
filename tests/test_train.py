"""train.py with DeepSpeed: ZeRO stages, losses, LoRA, independence of micro-batches, exports, errors."""

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import train
from east import models
from east.data import training_data
from east.run import config, files
from east.training import deepspeed_engine, metrics, reference
from tests.conftest import ROOT, command, environment, free_port, losses, prepare, run_file, settings, write_responses

LOSSES = ("sft", "dpo", "kto")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, tiny_model) -> Path:
    """A run folder with dataset, weights and reference for every loss."""
    tmp = tmp_path_factory.mktemp("train")
    for loss in LOSSES:
        prepare(tmp, tiny_model, loss={"name": loss})
    return tmp


@pytest.fixture(scope="module")
def matrix(prepared, tiny_model) -> dict[str, dict]:
    """Metrics by name of runs on two processes: every loss, full or LoRA, with ZeRO 0 to 3."""
    runs = {}
    for loss in LOSSES:
        for lora in (None, {"r": 4, "alpha": 4}):
            for stage in range(4):
                name = f"{loss}-{'lora' if lora else 'full'}-zero{stage}"
                runs[name] = settings(
                    prepared, tiny_model, name=name, loss={"name": loss},
                    model={"path": str(tiny_model), "lora": lora},
                    train={"deepspeed": str(ROOT / f"ds_configs/zero{stage}.json"), "max_steps": 4},
                )  # fmt: skip
    path = prepared / "matrix.json"
    path.write_text(json.dumps(list(runs.values())))
    port = str(free_port())
    done = command(
        "deepspeed", "--num_accelerators", 2, "--master_port", port, ROOT / "tests" / "train_many.py", path,
        timeout=580,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return {name: metrics.read(config.parse(values).folder_of("train")) for name, values in runs.items()}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("kind", ["full", "lora"])
def test_loss_curves_are_equal_over_zero_stages_and_ranks(matrix, prepared, tiny_model, loss, kind):
    lora = None if kind == "full" else {"r": 4, "alpha": 4}
    alone = config.parse(
        settings(prepared, tiny_model, name=f"{loss}-{kind}-alone", loss={"name": loss},
                 model={"path": str(tiny_model), "lora": lora}, train={"micro_batch": 3, "max_steps": 4})
    )  # fmt: skip
    train.train(alone)
    expected = losses(alone)
    assert len(expected) == 4 and expected[3] != expected[0]
    for stage in range(4):
        curve = [row["loss"] for row in matrix[f"{loss}-{kind}-zero{stage}"]]
        assert curve == pytest.approx(expected, rel=1e-5), f"ZeRO {stage}"
        norms = [row["grad_norm"] for row in matrix[f"{loss}-{kind}-zero{stage}"]]
        assert norms == pytest.approx([r["grad_norm"] for r in metrics.read(alone.folder_of("train"))], rel=1e-4)


@pytest.mark.parametrize("loss", LOSSES)
def test_step_0_invariants(matrix, prepared, tiny_model, loss):
    """Policy and reference are equal. DPO: loss ln 2 mean(w), rewards 0. KTO: loss 0.5 mean(w lambda), z0 0."""
    first = matrix[f"{loss}-full-zero0"][0]
    run = config.parse(settings(prepared, tiny_model, loss={"name": loss}))
    weights = np.load(run.folder_of("weights") / "weights.npy")
    from east.training import schedule

    _, rows = schedule.step_rows(np.flatnonzero(np.load(run.folder_of("weights") / "kept.npy")), 0, 8, 0)
    if loss == "dpo":
        assert first["loss"] == pytest.approx(math.log(2) * weights[rows].mean(), rel=1e-5)
        assert abs(first["reward_chosen"]) < 1e-5 and abs(first["reward_rejected"]) < 1e-5
    elif loss == "kto":
        assert first["loss"] == pytest.approx(0.5 * weights[rows].mean(), rel=1e-5)
        assert first["z0"] == pytest.approx(0, abs=1e-4)
    else:
        assert first["loss"] > 0


@pytest.mark.parametrize(
    "change",
    [
        {"name": "sft", "normalization": "sum"},
        {"name": "sft", "normalization": "token"},
        {"name": "sft", "local_weight": "lw_p"},
        {"name": "sft", "local_weight": "lw_w"},
        {"name": "dpo", "local_weight": "lw_p"},
        {"name": "dpo", "local_weight": "lw_w"},
        {"name": "kto"},
    ],
    ids=lambda c: "-".join(c.values()),
)
def test_micro_batches_do_not_change_the_curve(prepared, tiny_model, change):
    curves = []
    for split in ({"micro_batch": 8}, {"micro_batch": 3}, {"micro_batch": 1}, {"micro_tokens": 150}):
        name = "-".join([*change.values(), *split, *map(str, split.values())])
        run = config.parse(settings(prepared, tiny_model, name=name, loss=change, train={**split, "max_steps": 4}))
        train.train(run)
        curves.append(losses(run))
    for curve in curves[1:]:
        assert curve == pytest.approx(curves[0], rel=1e-5)


def test_microbatch_normalization_depends_on_the_micro_batch_as_the_released_code_does(prepared, tiny_model):
    """Weights are averaged over the micro-batch: with one example per micro-batch the loss is w_i L_i."""
    curves = {}
    for name, change in {"example": {}, "microbatch": {"normalization": "microbatch"}}.items():
        for micro in (1, 8):
            values = settings(
                prepared, tiny_model, name=f"{name}{micro}", loss={"name": "sft", **change},
                train={"micro_batch": micro, "max_steps": 2},
            )  # fmt: skip
            train.train(config.parse(values))
            curves[name, micro] = losses(config.parse(values))
    assert curves["microbatch", 1] == pytest.approx(curves["example", 1], rel=1e-5)
    assert abs(curves["microbatch", 8][0] - curves["example", 8][0]) > 1e-3


def test_exported_model_loads_and_merged_lora_equals_the_adapter(matrix, prepared, tiny_model):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    final = config.parse(settings(prepared, tiny_model, name="sft-lora-zero3")).folder_of("train") / "final"
    merged = AutoModelForCausalLM.from_pretrained(final)
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    ids = torch.tensor([[1, 20, 21, 22, 23]])
    assert (merged(ids).logits - base(ids).logits).abs().max() > 1e-4, "training changed nothing"
    adapted = PeftModel.from_pretrained(base, final / "adapter")
    assert torch.allclose(merged(ids).logits, adapted(ids).logits, atol=1e-5)
    tokenizer = AutoTokenizer.from_pretrained(final)
    assert tokenizer.chat_template and len(tokenizer) == len(AutoTokenizer.from_pretrained(tiny_model))
    assert models.tokenizer_digest(tokenizer) == models.tokenizer_digest(models.load_tokenizer(tiny_model))


@pytest.mark.parametrize("stage", range(4))
def test_exported_weights_are_the_same_over_zero_stages(matrix, prepared, tiny_model, stage):
    """To a thousandth of the change by training, because Adam magnifies rounding errors of gradients near zero."""
    from safetensors.torch import load_file

    def weights(name: str) -> dict[str, torch.Tensor]:
        folder = config.parse(settings(prepared, tiny_model, name=name)).folder_of("train") / "final"
        return load_file(folder / "model.safetensors")

    expected, exported = weights("dpo-full-zero0"), weights(f"dpo-full-zero{stage}")
    start = load_file(tiny_model / "model.safetensors")
    assert expected.keys() == exported.keys()
    change = sum(float((expected[k] - start[k]).square().sum()) for k in expected)
    difference = sum(float((expected[k] - exported[k]).square().sum()) for k in expected)
    assert change > 0 and difference < 1e-6 * change


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_offload_checkpointing_and_compiling_keep_the_loss_curve(prepared, tiny_model, dtype):
    """CPU offload, gradient checkpointing and compiled layers have the loss curve of a run without them. Layers are
    compiled in bfloat16 only, because it takes half a minute; test_logprobs.py checks them in float32."""
    curves = []
    changes = {
        "plain": {"deepspeed": str(ROOT / "ds_configs/zero1.json")},
        "offload": {"deepspeed": str(ROOT / "ds_configs/zero2_offload.json")},
        "offload3": {"deepspeed": str(ROOT / "ds_configs/zero3_offload.json")},
        "recompute": {"deepspeed": str(ROOT / "ds_configs/zero1.json"), "gradient_checkpointing": True},
        "compiled": {"deepspeed": str(ROOT / "ds_configs/zero2.json"), "compile": True},
    }
    if dtype == "float32" or shutil.which("g++") is None:  # torch.compile on the CPU needs g++
        del changes["compiled"]
    for name, change in changes.items():
        values = settings(
            prepared, tiny_model, name=f"{name}-{dtype}", loss={"name": "sft"},
            train={**change, "dtype": dtype, "max_steps": 3},
        )  # fmt: skip
        train.train(config.parse(values))
        curves.append(losses(config.parse(values)))
    tolerance = 1e-5 if dtype == "float32" else 2e-2
    for curve in curves[1:]:
        assert curve == pytest.approx(curves[0], rel=tolerance)


def test_after_sigterm_train_py_saves_and_exits(prepared, tiny_model, tmp_path):
    """With a stale lock in the folder of PyTorch's extensions, as a process leaves it that is killed while it compiles
    one: start-up must not wait for it."""
    (tmp_path / "deepspeed_shm_comm").mkdir()
    (tmp_path / "deepspeed_shm_comm" / "lock").touch()
    run = config.parse(
        settings(prepared, tiny_model, name="terminated", train={"epochs": 50, "checkpoint_every": 1000})
    )
    process = subprocess.Popen(
        [sys.executable, "train.py", "--config", str(run_file(prepared, run))],
        cwd=ROOT, env={**environment(), "TORCH_EXTENSIONS_DIR": str(tmp_path)}, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    began = time.monotonic()
    while len(metrics.read(run.folder_of("train"))) < 2 and process.poll() is None:
        assert time.monotonic() - began < 120, "start-up waits for the stale lock"
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 143
    saved = (run.folder_of("train") / "checkpoint" / "latest").read_text()
    assert saved == f"step_{len(metrics.read(run.folder_of('train')))}"


def test_a_run_with_other_settings_does_not_continue_this_one(prepared, tiny_model):
    """And following the advice of the error fixes it."""
    values = settings(prepared, tiny_model, name="claimed", train={"max_steps": 2})
    train.train(config.parse(values))
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, "SIGTERM ends the export: the checkpoint is saved"
    values["train"]["lr"] = 5e-4
    with pytest.raises(ValueError, match=r"made from something else: train.lr: found 0.001, expected 0.0005") as error:
        train.train(config.parse(values))
    advice = re.search(r"\((rm -r [^)]*)\)", str(error.value))
    assert advice and command(*advice[1].split()).returncode == 0
    train.train(config.parse(values))
    assert len(losses(config.parse(values))) == 2


def test_settings_that_the_loss_does_not_read_may_change_after_training(prepared, tiny_model, capsys):
    values = settings(prepared, tiny_model, name="unread", train={"max_steps": 1})
    train.train(config.parse(values))
    capsys.readouterr()
    values["loss"] = {"name": "sft", "beta": 0.7, "kl": "microbatch", "lambda_desirable": 2.0}
    train.train(config.parse(values))
    assert "is complete and made from just this" in capsys.readouterr().out


CHANGES = {
    "dpo": {"name": "dpo"},
    "kto": {"name": "kto"},
    "dpo-lw_p": {"name": "dpo", "local_weight": "lw_p"},
    "kto-pairs": {"name": "kto"},
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("case", CHANGES)
def test_a_reference_that_is_wrong_by_a_constant_stops_the_first_step(prepared, tiny_model, monkeypatch, case, dtype):
    """A constant cancels in DPO's margin and over KTO's two classes, so that the loss of step 0 does not show it. Seven
    nats exceed the tolerance of bfloat16, 0.2 sqrt(T), up to 1,225 tokens. `kto-pairs`: only the reference of the
    mismatched pairs is wrong."""
    shift = 0.0

    def column(run, tokens, _):  # computed in float32: the difference to bfloat16 is within the tolerance
        pairs = tokens.sequences["sample"] == -1
        wrong = pairs if case == "kto-pairs" else np.ones(len(pairs))
        return np.load(run.folder_of("reference") / "logprobs.npy") + shift * wrong, SimpleNamespace(fingerprint="")

    monkeypatch.setattr(training_data, "reference", column)
    values = settings(
        prepared, tiny_model, name=f"{case}-{dtype}", loss=CHANGES[case], train={"dtype": dtype, "max_steps": 1}
    )
    train.train(config.parse(values))
    shift = 7.0
    monkeypatch.setattr(reference, "check", lambda *_: None)
    run = config.parse({**values, "name": f"shifted-{case}-{dtype}"})
    with pytest.raises(ValueError, match=r"step 0: .* sqrt\(T\) nats from its reference, .*; delete the round's"):
        train.train(run)
    assert not (run.folder_of("train") / "checkpoint").exists()


def test_a_reference_of_another_model_is_an_error(tmp_path, tiny_model):
    from safetensors.torch import load_file, save_file

    copy = tmp_path / "model"
    subprocess.run(["cp", "-r", str(tiny_model), str(copy)], check=True)
    run = prepare(tmp_path, copy, loss={"name": "dpo"})
    tensors = load_file(copy / "model.safetensors")
    name = next(iter(tensors))
    save_file({**tensors, name: tensors[name] + 0.01}, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"\(reference\) was made from something else: model: found"):
        train.train(run)


def test_another_tokenizer_than_that_of_the_dataset_is_an_error(tmp_path, tiny_model):
    from east.toy import arithmetic
    from east.toy.tiny_model import make_tiny_model

    run = prepare(tmp_path, tiny_model)
    other = tmp_path / "other"
    texts = [r["question"] for r in arithmetic.problems("hard", "train", 50, 1)]
    make_tiny_model(other, texts, hidden_size=32, layers=2, seed=0)
    changed = run.model_copy(update={"model": run.model.model_copy(update={"path": str(other)})})
    with pytest.raises(ValueError, match=r"\(dataset\) was made from something else: tokenizer: found"):
        train.train(changed)


def change_policy(monkeypatch, change):
    """Call `change` on a parameter of the policy that train.py builds."""
    build = train.build

    def build_changed(*arguments):
        model = build(*arguments)
        change(next(model.module.parameters()))
        return model

    monkeypatch.setattr(train, "build", build_changed)


def test_non_finite_loss_stops_before_the_update_and_names_the_examples(prepared, tiny_model, monkeypatch):
    change_policy(monkeypatch, lambda parameter: parameter.data.fill_(float("inf")))
    run = config.parse(settings(prepared, tiny_model, name="diverged"))
    with pytest.raises(ValueError, match=r"step 0: the loss is (nan|inf); no update was made.*: \['arith"):
        train.train(run)
    assert not (run.folder_of("train") / "checkpoint").exists()


def test_a_run_that_diverges_stops_with_an_error(prepared, tiny_model):
    run = config.parse(settings(prepared, tiny_model, name="far", train={"lr": 1e30, "warmup_ratio": 0.0}))
    with pytest.raises(ValueError, match=r"step \d+: the (loss|gradient norm) is (nan|inf)"):
        train.train(run)


def test_a_gradient_that_is_not_finite_is_not_saved(prepared, tiny_model, monkeypatch):
    """The loss is finite, but its gradient is nan: clipping would turn every weight into nan."""
    change_policy(monkeypatch, lambda parameter: parameter.register_hook(lambda gradient: gradient * float("nan")))
    run = config.parse(settings(prepared, tiny_model, name="overflow", train={"checkpoint_every": 1}))
    with pytest.raises(ValueError, match=r"step 0: the gradient norm is nan; nothing was saved.*: \['arith"):
        train.train(run)
    assert not (run.folder_of("train") / "checkpoint").exists()


def test_the_command_of_the_readme_with_the_launcher(matrix, prepared, tiny_model):
    """`deepspeed train.py --config X` trains as the runs of the fixture `matrix` do."""
    values = settings(
        prepared, tiny_model, name="launched", loss={"name": "dpo"},
        train={"deepspeed": str(ROOT / "ds_configs/zero2.json"), "max_steps": 4},
    )  # fmt: skip
    run = config.parse(values)
    port = str(free_port())
    launcher = ["deepspeed", "--num_accelerators", 2, "--master_port", port]
    done = command(*launcher, "train.py", "--config", run_file(prepared, run))
    assert done.returncode == 0, done.stderr[-3000:]
    assert losses(run) == [row["loss"] for row in matrix["dpo-full-zero2"]]


def test_errors_are_one_line():
    done = command("python", "train.py", "--config", "configs/none.yaml")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.strip().splitlines()[-1].startswith("error: configs/none.yaml: cannot read the run file")
    assert "Traceback" not in done.stderr


def test_output_that_cannot_be_written_is_an_error_and_keeps_earlier_files(prepared, tiny_model, tmp_path):
    """A file is where the folder should be, so that even root cannot write."""
    write_responses(tmp_path / "responses.jsonl")
    run = prepare(tmp_path, tiny_model)
    before = files.file_digest(run.folder_of("dataset") / "tokens.bin")
    (run.folder / "train").write_text("in the way")
    with pytest.raises(ValueError, match="cannot write .*what was complete before is intact"):
        train.train(run)
    assert files.file_digest(run.folder_of("dataset") / "tokens.bin") == before


def test_a_dataset_of_another_loss_or_rule_is_an_error(tmp_path, tiny_model):
    """An SFT dataset has no rejected responses (row -1): DPO would read row -1 as the last sequence."""
    prepare(tmp_path, tiny_model, examples={"name": "mine"})
    for change, message in (
        ({"loss": {"name": "dpo"}, "examples": {"name": "mine"}}, 'loss: found "sft", expected "dpo"'),
        ({"examples": {"name": "mine", "per_question": 2}}, "rules.per_question: found 1, expected 2"),
    ):
        with pytest.raises(ValueError, match=message):
            train.train(config.parse(settings(tmp_path, tiny_model, **change)))


def test_a_checkpoint_later_than_max_steps_is_not_exported(prepared, tiny_model):
    values = settings(prepared, tiny_model, name="shortened", train={"max_steps": 3})
    train.train(config.parse(values))
    values["train"]["max_steps"] = 2
    subprocess.run(["rm", "-r", str(config.parse(values).folder_of("train") / "final")], check=True)
    with pytest.raises(ValueError, match="was saved after step 3, train.max_steps is 2"):
        train.train(config.parse(values))


def test_micro_batch_may_not_change_where_the_result_depends_on_it(prepared, tiny_model):
    values = settings(
        prepared, tiny_model, name="release", loss={"name": "sft", "normalization": "microbatch"},
        train={"micro_batch": 4, "max_steps": 1},
    )  # fmt: skip
    train.train(config.parse(values))
    values["train"]["micro_batch"] = 2
    with pytest.raises(ValueError, match="micro_batch: found 4, expected 2"):
        train.train(config.parse(values))


def test_model_folder_without_weights_is_a_one_line_error(tmp_path, tiny_model):
    subprocess.run(["cp", "-r", str(tiny_model), str(tmp_path / "model")], check=True)
    (tmp_path / "model" / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="cannot load the weights"):
        models.load(tmp_path / "model", dtype="float32", attention="packed")


@pytest.mark.parametrize("change", [{"intermediate_size": 48}, {"num_hidden_layers": 3}])
def test_weights_that_do_not_fit_the_config_are_a_one_line_error(tmp_path, tiny_model, change):
    """Tensors of another shape; a layer without tensors, which transformers would initialise at random."""
    subprocess.run(["cp", "-r", str(tiny_model), str(tmp_path / "model")], check=True)
    path = tmp_path / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match="cannot load the weights|found no weights for .* such as model.layers.2"):
        models.load(tmp_path / "model", dtype="float32", attention="packed")


@pytest.mark.parametrize("name", ["packed", "packed_sdpa"])
def test_models_load_with_every_attention_name(tiny_model, name):
    assert models.load(tiny_model, dtype="float32", attention=name).config._attn_implementation == name


def test_trim_returns_free_memory_to_the_system():
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    largest = torch.ones(1 << 22)
    del largest  # from here on malloc takes smaller blocks from its heap
    blocks = [torch.ones(1 << 18) for _ in range(200)]  # 1 MiB each
    del blocks[::2]  # malloc keeps the holes
    before = resident()
    module = torch.nn.Module()
    module.forward = lambda batch: None
    deepspeed_engine._trim_before_larger_batches(module)
    with torch.no_grad():
        module(SimpleNamespace(input_ids=torch.ones(1, 1)))
    assert before - resident() < 10 << 20
    module(SimpleNamespace(input_ids=torch.ones(1, 1)))
    assert before - resident() > 80 << 20
