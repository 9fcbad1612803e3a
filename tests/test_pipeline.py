"""The public commands from end to end: rounds, resuming, check, logs, engines that load what was trained."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import transformers

import train
from east import models
from east.__main__ import main
from east.evaluation import run_results
from east.run import artifacts, config
from east.toy import arithmetic
from east.toy.tiny_model import make_tiny_model
from east.training import metrics
from tests import conftest, stages
from tests.conftest import ROOT, command, free_port, from_wheel, outside, prepare, run_file, settings


@pytest.fixture(scope="module")
def taught(tmp_path_factory) -> Path:
    """A tiny model that has seen worked solutions for a minute of one core: it answers some problems right."""
    tmp = tmp_path_factory.mktemp("taught")
    problems = arithmetic.problems("easy", "train", 300, 0)
    model = tmp / "model"
    texts = [f"{p['question']}\n{p['solution']}" for p in problems]
    make_tiny_model(model, texts, hidden_size=64, layers=2, heads=2)
    lines = [{"question": p["id"], "response": p["solution"]} for p in problems[:200]]
    (tmp / "responses.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = prepare(
        tmp, model, name="backbone", task={"train_rows": [0, 200]}, weighting={"strategy": "uniform"},
        train={"epochs": 12, "batch_size": 16, "micro_batch": 16, "lr": 5e-3, "checkpoint_every": 1000},
    )  # fmt: skip
    train.train(found)
    return found.folder_of("train") / "final"


@pytest.fixture(scope="module")
def rounds(taught, installed, tmp_path_factory) -> tuple[config.Config, list[str]]:
    """Two rounds of DPO by one command, killed while it samples and given again; then round 1 once more.

    All from the wheel, training through DeepSpeed's launcher. What the last two printed.
    """
    tmp = tmp_path_factory.mktemp("rounds")
    launcher = f"deepspeed --num_accelerators 1 --master_port {free_port()}"
    values = settings(
        tmp, taught, loss={"name": "dpo"}, task={"train_rows": [200, 230], "test_rows": [0, 30]},
        sampling={"responses": None, "n": 12, "batch": 120}, rounds={"count": 2, "launcher": launcher},
        train={"epochs": 1, "batch_size": 8, "lr": 1e-4, "deepspeed": "zero0"},
    )  # fmt: skip
    found = config.parse(values)
    line = ["rounds", "--config", run_file(tmp, found)]
    kill_when([installed / "east", *line], found.folder_of("samples") / "responses.jsonl")
    finished = from_wheel(installed, *line, timeout=500)
    made = {path: path.stat().st_mtime_ns for path in found.folder.parent.rglob(artifacts.MANIFEST)}
    again = from_wheel(installed, *line, "rounds.count=1", timeout=500)
    assert [finished.returncode, again.returncode] == [0, 0], (finished.stdout + finished.stderr)[-3000:]
    assert {path: path.stat().st_mtime_ns for path in found.folder.parent.rglob(artifacts.MANIFEST)} == made
    return found, [finished.stdout, again.stdout]


def kill_when(line: list, path: Path) -> None:
    """Run a program and SIGKILL it and its children when `path` appears."""
    process = subprocess.Popen(
        [*map(str, line)], cwd=path.anchor, env=outside(),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    while not path.exists():
        assert process.poll() is None, "ended before it was killed"
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_rounds_run_algorithm_1(rounds):
    """Round 2 samples with round 1's model, and both rounds end with an evaluated model."""
    found, _ = rounds
    second = found.model_copy(update={"round": 2})
    first_final = found.folder_of("train") / "final"
    plan = json.loads((second.folder_of("samples") / "plan.json").read_text())
    assert plan["inputs"]["model"] == artifacts.model_digest(first_final)
    for number in (found, second):
        result = json.loads((number.folder_of("eval") / "results.json").read_text())
        assert result["n"] == 30 and result["bos_tokens"] == 1
    result = json.loads((found.folder_of("eval") / "results.json").read_text())
    assert result["against"]["name"] == "base" and 0 <= result["against"]["mcnemar_p"] <= 1


def test_rounds_again_skip_what_is_complete(rounds):
    found, printed = rounds
    assert "nothing to do" not in printed[0]
    assert printed[1].count("nothing to do") == 1, "one training, found complete"


def test_report_lists_every_result(rounds, tmp_path):
    found, _ = rounds
    done = command("python", "-m", "east", "report", "--config", run_file(tmp_path, found))
    assert done.returncode == 0
    lines = [line for line in done.stdout.splitlines() if line.startswith("|")]
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["base", found.label]
    assert (found.folder / "report.md").exists()


def test_report_marks_a_result_whose_model_has_changed(tmp_path, tiny_model):
    """Retrained after its evaluation: the accuracy is of the old model and is marked as stale."""
    result = {"model": str(tiny_model), "fingerprints": {"model": "another", "graded": None}}
    assert run_results.stale(result, tmp_path)
    result["fingerprints"]["model"] = artifacts.model_digest(tiny_model)
    assert not run_results.stale(result, tmp_path)


def test_results_on_other_rows_have_a_folder_of_their_own(rounds, tmp_path):
    found, _ = rounds
    line = ["python", "-m", "east", "evaluate", "--config", run_file(tmp_path, found)]
    rows = ["eval.split=train", "eval.rows=[300,310]"]
    for words in (["--base"], ["--against", "base"]):
        done = command(*line, *words, *rows)
        assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads((found.folder / "eval" / f"{found.label}-train-300-310" / "results.json").read_text())
    assert result["n"] == 10 and result["against"]["name"] == "base-train-300-310"


def test_imported_responses_do_not_overwrite_drawn_ones(rounds, tmp_path):
    """A samples folder without manifest (being drawn, or topped up) belongs to its plan."""
    found, _ = rounds
    copy = tmp_path / "run" / "round_1" / "samples"
    copy.mkdir(parents=True)
    for name in ("plan.json", "questions.jsonl", "responses.jsonl"):
        (copy / name).write_bytes((found.folder_of("samples") / name).read_bytes())
    conftest.write_responses(tmp_path / "responses.jsonl")
    values = settings(tmp_path, Path(found.model.path))
    with pytest.raises(ValueError, match="was made from something else"):
        stages.run("grade", config.parse(values))
    assert (copy / "responses.jsonl").stat().st_size > 0


def test_check_shows_prompt_trained_tokens_weights_steps_and_memory(rounds, tmp_path):
    found, _ = rounds
    done = command("python", "-m", "east", "check", "--config", run_file(tmp_path, found))
    assert done.returncode == 0, done.stderr
    for words in ("1 BOS", "chosen:", "rejected:", "effective sample size", "per epoch", "memory per rank", "MiB"):
        assert words in done.stdout, words
    marked = done.stdout.split(">>>")[1].split("<<<")[0]
    assert marked.endswith("<|end|>") and "<|assistant|>" not in marked


def test_check_before_anything_is_there_and_on_bad_files(tiny_model, tmp_path, monkeypatch, capsys):
    """In this process, which has the libraries loaded: an error that is no ValueError would end the test."""

    def check(*overrides):
        monkeypatch.setattr(sys, "argv", ["east", "check", "--config", str(run_file(tmp_path, found)), *overrides])
        main()
        return capsys.readouterr().out

    conftest.write_responses(tmp_path / "responses.jsonl")
    found = config.parse(settings(tmp_path, tiny_model))
    assert "samples: not there yet; make it with" in check()
    for override, message in {
        "model.path=/nowhere/at/all": "found no folder '/nowhere/at/all'",
        "trian.lr=1": "unknown key `trian`; did you mean `train`?",
        "task.name=jsonl": "task.train is missing",
        "train.deepspeed=none.json": "cannot read none.json",
        "sampling.responses=/no/file.jsonl": "found no file /no/file.jsonl",
    }.items():
        with pytest.raises(SystemExit) as ended:
            check(override)
        error = capsys.readouterr().err.strip()
        assert ended.value.code == 1 and error.startswith("error: ") and message in error


def test_negative_exponent_with_a_settled_question_stops_weigh(tiny_model, tmp_path):
    conftest.write_responses(tmp_path / "responses.jsonl")
    with pytest.raises(ValueError, match=r"4 of 24 values are 0 .* has no weight for them; set weighting.zero=drop"):
        prepare(tmp_path, tiny_model, weighting={"a": -1.0})
    found = prepare(tmp_path, tiny_model, weighting={"a": -1.0, "zero": "drop"}, train={"max_steps": 1})
    train.train(found)
    assert metrics.read(found.folder_of("train"))[0]["examples"] == 8


def test_tensorboard_and_wandb_when_asked(tiny_model, tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("WANDB_MODE", "offline")
    found = prepare(
        tmp_path, tiny_model, train={"tensorboard": True, "wandb": "east-test", "max_steps": 2}, name="logged"
    )
    train.train(found)
    folder = found.folder_of("train")
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    assert [e.value for e in events.Scalars("loss")] == pytest.approx(conftest.losses(found), rel=1e-6)
    assert list(folder.glob("wandb/offline-run-*"))


def test_sentencepiece_model_is_trained(tmp_path):
    """A Llama folder as Llama 2's is: tokenizer.model and no chat template."""
    import sentencepiece
    import torch

    problems = arithmetic.problems("easy", "train", 100, 0)
    folder = tmp_path / "model"
    folder.mkdir()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(f"{p['question']} {p['solution']}".replace("\n", " ") for p in problems),
        model_prefix=str(folder / "tokenizer"), model_type="bpe", vocab_size=400, byte_fallback=True, minloglevel=2,
    )  # fmt: skip
    names = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    transformers.LlamaForCausalLM(
        transformers.LlamaConfig(vocab_size=400, max_position_embeddings=256, bos_token_id=1, eos_token_id=2, **shape)
    ).save_pretrained(folder)
    found = prepare(
        tmp_path, folder, loss={"name": "dpo"}, task={"prompt": "{system} {question}"}, train={"max_steps": 2}
    )
    train.train(found)
    tokenizer = models.load_tokenizer(found.folder_of("train") / "final")
    assert models.tokenizer_digest(tokenizer) == models.tokenizer_digest(models.load_tokenizer(folder))
    assert conftest.losses(found)[0] == pytest.approx(0.6931, rel=0.2)


def test_grade_runs_labelled_cases(tmp_path):
    out = tmp_path / "out.jsonl"
    done = command("python", "-m", "east", "grade", "--cases", ROOT / "tests" / "grading_cases.jsonl", "--out", out)
    assert done.returncode == 0, done.stderr
    cases = [json.loads(line) for line in (ROOT / "tests" / "grading_cases.jsonl").open()]
    verdicts = [json.loads(line) for line in out.open()]
    assert [v["id"] for v in verdicts] == [c["id"] for c in cases] and len(cases) >= 150
    assert {type(v["verdict"]) for v in verdicts} == {bool}


@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vllm is not installed")
def test_vllm_loads_what_was_trained_and_answers_as_transformers(rounds, tmp_path):
    """The final folder, evaluated by both engines: the same greedy tokens."""
    found, _ = rounds
    final = found.folder_of("train") / "final"
    verdicts, drawn_by = {}, {}
    for engine in ("transformers", "vllm"):
        overrides = [f"run={tmp_path / engine}", f"model.path={final}", f"sampling.engine={engine}"]
        overrides += ["sampling.dtype=float32", "task.test_rows=[0,8]", "sampling.max_model_len=128"]
        done = command("python", "-m", "east", "evaluate", "--base", "--config", run_file(tmp_path, found), *overrides)
        assert done.returncode == 0, done.stderr[-3000:]
        rows = (tmp_path / engine / "round_1/eval/base/samples/responses.jsonl").read_text().splitlines()
        verdicts[engine] = [json.loads(row)["tokens"] for row in rows]
        drawn_by[engine] = json.loads((tmp_path / engine / "round_1/eval/base/results.json").read_text())["drawn_by"]
    assert verdicts["vllm"] == verdicts["transformers"]
    assert all(found["engine"].startswith(f"{name} ") for name, found in drawn_by.items())


def test_python_m_east_without_config_says_what_to_give():
    done = command("python", "-m", "east", "weigh")
    assert done.returncode == 2 and "give --config FILE" in done.stderr
