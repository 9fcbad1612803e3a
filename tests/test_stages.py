"""A stage refuses what was made by other settings or by another model than its run states."""

import shutil

import pytest

import train
from east.checks import preflight
from east.run import artifacts, config, pipeline
from tests import stages
from tests.conftest import prepare, settings

OTHER = {
    "grading": ({"missing": "own"}, 'grading.missing: found "cluster", expected "own"'),
    "task": ({"system_prompt": None}, 'task.system_prompt: found "Please reason'),
    "examples": ({"seed": 3}, "rules.seed: found 0, expected 3"),
}


@pytest.fixture
def found(tmp_path, tiny_model):
    return prepare(tmp_path, tiny_model)


@pytest.mark.parametrize("section", OTHER)
def test_settings_that_made_no_part_of_the_dataset_are_refused(found, tmp_path, tiny_model, section):
    """By `weigh`, `check` and `train.py` alike: the run's config.yaml must not state what is not so."""
    change, message = OTHER[section]
    other = config.parse(settings(tmp_path, tiny_model, name="other", **{section: change}))
    for verb in ("weigh", "check", "train"):
        with pytest.raises(ValueError, match=r"dataset.* was made from something else: ") as caught:
            stages.run(verb, other)
        assert message in str(caught.value)
    assert not other.folder_of("train").exists()


def test_graded_by_other_rules_is_refused_by_index(found, tmp_path, tiny_model):
    shutil.rmtree(found.folder_of("dataset"))
    other = config.parse(settings(tmp_path, tiny_model, grading={"clusters": "qwen-string"}))
    with pytest.raises(ValueError, match='clusters: found "value", expected "qwen-string"; .*east grade'):
        stages.run("index", other)


def test_check_names_the_next_stage(found, capsys):
    for kind, command in (("dataset", "index"), ("graded", "grade"), ("samples", "sample")):
        shutil.rmtree(found.folder_of(kind))
        preflight.run(found)
        last = capsys.readouterr().out.strip().splitlines()[-1]
        assert last.startswith(f"{kind}: not there yet") and command in last


def test_responses_of_another_model_or_temperature_are_refused(tmp_path, tiny_model):
    drawn = {"responses": None, "n": 2}
    run = config.parse(settings(tmp_path, tiny_model, task={"train_rows": [0, 3]}, sampling=drawn))
    stages.run("sample", run)
    stages.run("grade", run)
    hotter = run.model_copy(update={"sampling": run.sampling.model_copy(update={"temperature": 0.3})})
    for verb in ("grade", "index", "check"):
        with pytest.raises(ValueError, match="something else: temperature: found 1.0, expected 0.3"):
            stages.run(verb, hotter)
    other = tmp_path / "other"
    shutil.copytree(tiny_model, other)
    (other / "generation_config.json").write_text('{"eos_token_id": [2, 5]}')
    moved = run.model_copy(update={"model": run.model.model_copy(update={"path": str(other)})})
    for verb in ("index", "check"):
        with pytest.raises(ValueError, match=f"something else: model: found .*{artifacts.model_digest(other)}"):
            stages.run(verb, moved)


def test_a_dataset_sampled_by_another_model_is_refused_by_training(found):
    """The manifest of a drawn dataset names the model; that of imported responses names none."""
    folder, sampling = found.folder_of("dataset"), found.sampling.model_copy(update={"responses": None})
    made, found = stages.folder_of("dataset", folder).open(), found.model_copy(update={"sampling": sampling})
    drawn = {**made.config, "sampling": pipeline.dataset(found).settings["sampling"]}
    stages.folder_of("dataset", folder, drawn, {**made.inputs, "model": "another"}).finish(made.summary)
    with pytest.raises(ValueError, match='something else: model: found "another", expected'):
        train.train(found)


def test_weights_that_share_a_name_but_not_the_exponent_are_refused(found, tmp_path, tiny_model):
    """1 and 1.0000001 are both entropy-power-1."""
    near = config.parse(settings(tmp_path, tiny_model, weighting={"a": 1.0000001}))
    assert near.folder_of("weights") == found.folder_of("weights")
    with pytest.raises(ValueError, match=r"something else: a: found 1.0, expected 1.0000001; .*rm -r .*east weigh"):
        train.train(near)


def test_a_result_that_is_not_there_is_named_before_anything_is_drawn(found):
    with pytest.raises(ValueError, match=r"--against: found no result 'bsae', expected a folder or one of \[\]"):
        stages.run("evaluate", found, base=True, against="bsae")
    assert not (found.folder / "eval").exists()
