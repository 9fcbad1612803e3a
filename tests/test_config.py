"""Run files: bases, overrides, refusals with the nearest name; every shipped file loads."""

from pathlib import Path

import pytest

from east.run import config, deepspeed_file

ROOT = Path(__file__).parent.parent
FILES = [p for p in sorted((ROOT / "configs").rglob("*.yaml")) if not p.stem.startswith("study_")]
MINIMAL = {"run": "runs/x", "model": {"path": "m"}}


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_shipped_run_file_loads(path):
    found = config.load(path, [] if path.stem != "paper" else ["run=runs/x", "model.path=m"])
    assert config.parse(__import__("yaml").safe_load(config.to_yaml(found))) == found
    assert deepspeed_file.read(found.train.deepspeed)["stage"] in range(4)


def test_twelve_paper_files_hold_the_papers_settings():
    """Design, table of presets: learning rates, betas, LoRA for 8B, batch 16, 3 epochs, warm-up 0.1, n = 128."""
    expected = {
        ("1b", "sft"): (2e-6, None), ("1b", "dpo"): (2e-7, 0.01), ("1b", "kto"): (2e-7, 0.05),
        ("8b", "dpo"): (2e-6, 0.1), ("8b", "kto"): (2e-6, 0.1),
    }  # fmt: skip
    for size in ("1b", "8b"):
        for task in ("gsm8k", "math"):
            for loss in ("sft", "dpo", "kto"):
                c = config.load(ROOT / "configs" / f"{size}_{task}_{loss}.yaml")
                rate, beta = expected.get((size, loss), (5e-5 if task == "gsm8k" else 2e-5, None))
                assert (c.train.lr, c.loss.name, c.task.name) == (rate, loss, task)
                assert beta is None or c.loss.beta == beta
                assert (c.train.batch_size, c.train.epochs, c.train.warmup_ratio, c.sampling.n) == (16, 3, 0.1, 128)
                assert (c.model.lora is not None) == (size == "8b")
                if c.model.lora:
                    assert (c.model.lora.r, c.model.lora.alpha) == (16, 16)
                assert (c.weighting.strategy, c.weighting.mapping) == ("entropy", "power")
                assert c.weighting.a == (1.5 if task == "gsm8k" else 1.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": {"lrr": 1}}, r"unknown key `train.lrr`; did you mean `train.lr`\?"),
        ({"weigting": {}}, r"unknown key `weigting`; did you mean `weighting`\?"),
        ({"train": {"lr": "fast"}}, r"`train.lr`: found 'fast'; .*number"),
        ({"loss": {"name": "ppo"}}, r"`loss.name`: found 'ppo'; expected one of sft, dpo, kto"),
        ({"sampling": {"n": 4, "temperature": 0}}, r"`sampling`: .*n=4 at temperature 0 gives equal responses"),
        ({"train": {"betas": [0.9, 1.5]}}, r"`train.betas`: found 1.5; .*less than 1"),
        ({"sampling": {"n": 0}}, r"`sampling.n`: found 0; .*greater than or equal to 1"),
        ({"weighting": {"mapping": "linear"}}, r"needs weighting.spread"),
        ({"weighting": {"a": float("nan")}}, r"`weighting.a`: found nan; .*finite"),
        ({"weighting": {"a": "largest"}}, r"`weighting.a`: found 'largest'; .*number.*`weighting.a`: .*'auto'"),
        ({"weighting": {"a": "auto", "mapping": "mean"}}, r"needs weighting.mapping=power"),
        ({"weighting": {"min_ess": 1}}, r"`weighting.min_ess`: found 1; .*less than 1"),
        ({"task": {"train_rows": [0, "x"]}}, r"`task.train_rows`: found 'x'"),
        ({"name": "../elsewhere"}, r"`name`: found '../elsewhere'"),
        ({"name": "base"}, r"base is the starting model's"),
    ],
)
def test_refusals_name_the_key_and_what_is_expected(change, message):
    with pytest.raises(ValueError, match=message) as error:
        config.parse({**MINIMAL, **change})
    assert "\n" not in str(error.value)


def test_missing_run_file_and_broken_yaml(tmp_path):
    with pytest.raises(ValueError, match="cannot read the run file"):
        config.load(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [1\n")
    with pytest.raises(ValueError, match="not YAML") as error:
        config.load(tmp_path / "bad.yaml")
    assert "\n" not in str(error.value)


def test_base_file_and_overrides(tmp_path):
    (tmp_path / "base.yaml").write_text("run: r\nmodel: {path: m}\ntrain: {lr: 0.1, epochs: 5}\n")
    (tmp_path / "top.yaml").write_text("base: base.yaml\ntrain: {lr: 0.2}\n")
    found = config.load(tmp_path / "top.yaml", ["train.epochs=7", "train.micro_batch=2", "model.lora.r=8"])
    assert (found.train.lr, found.train.epochs, found.train.micro_batch) == (0.2, 7, 2)
    assert found.model.lora is not None and found.model.lora.r == 8
    assert config.load(tmp_path / "top.yaml", ["train.lr=1e-5"]).train.lr == 1e-5
    with pytest.raises(ValueError, match="expected section.key=value"):
        config.load(tmp_path / "top.yaml", ["train.lr"])


def test_bases_in_a_circle_stop(tmp_path):
    (tmp_path / "a.yaml").write_text("base: b.yaml\n")
    (tmp_path / "b.yaml").write_text("base: a.yaml\n")
    with pytest.raises(ValueError, match="circle"):
        config.load(tmp_path / "a.yaml")


def test_deepspeed_files_hold_zero_keys_only(tmp_path):
    for path in (ROOT / "ds_configs").glob("*.json"):
        assert deepspeed_file.read(str(path))["stage"] in range(4)
    (tmp_path / "two.json").write_text('{"zero_optimization": {"stage": 1}, "train_batch_size": 4}')
    with pytest.raises(ValueError, match="belong to the run file"):
        deepspeed_file.read(str(tmp_path / "two.json"))


def test_weightings_that_differ_stand_in_different_folders():
    """The slug names the estimator where it is not the paper's, and for a=auto the share that decides it."""
    changes = [{}, {"a": 2}, {"a": "auto"}, {"a": "auto", "min_ess": 0.8}, {"entropy": "chao_shen"}]
    slugs = [config.parse({**MINIMAL, "weighting": change}).weighting.slug for change in changes]
    assert slugs == [
        "entropy-power-1", "entropy-power-2", "entropy-power-auto-0.5", "entropy-power-auto-0.8",
        "entropy-chao_shen-power-1",
    ]  # fmt: skip
    loaded = config.load(ROOT / "configs" / "paper.yaml", ["run=r", "model.path=m", "weighting.a=auto"])
    assert loaded.label == "sft-entropy-power-auto-0.5"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"run: a\nrun: b\n", r"x.yaml: not YAML: the key `run` appears twice, .*line 2|x.yaml: .*`run` appears twice"),
        (b"run: \xff\n", r"x.yaml: not UTF-8 text \(invalid start byte at byte 5\)"),
    ],
)
def test_a_file_that_cannot_be_read_one_way_is_named(tmp_path, content, message):
    (tmp_path / "x.yaml").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        config.load(tmp_path / "x.yaml")


def test_zero_stage_is_0_to_3(tmp_path):
    for stage in ("7", '"x"', "null"):
        (tmp_path / "z.json").write_text(f'{{"zero_optimization": {{"stage": {stage}}}}}')
        with pytest.raises(ValueError, match=r"z.json: found zero_optimization.stage .*, expected 0, 1, 2 or 3"):
            deepspeed_file.read(str(tmp_path / "z.json"))


def test_release_files_select_the_releases_side_of_every_choice():
    """Design, section 4: wrong answer, questions left out, clusters, SFT weight; rates stay the paper's."""
    for name, loss, rate in (("release", "sft", 2e-6), ("release_dpo", "dpo", 2e-7)):
        c = config.load(ROOT / "configs" / f"{name}.yaml")
        e = c.examples
        found = (e.wrong_answer, c.grading.clusters, c.loss.name, c.train.lr)
        assert found == ("most_frequent", "qwen-string", loss, rate)
        assert e.drop_all_right and e.drop_unboxed and e.drop_disagreement
        assert c.loss.normalization == "microbatch" and c.loss.depends_on_split == (loss == "sft")
