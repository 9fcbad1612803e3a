"""What is on disk may be trusted: atomic folders, fingerprints, refusals."""

import json
import os
import socket
import subprocess

import pytest

from east.run import artifacts, files
from east.run.artifacts import ANY
from tests.stages import folder_of


def make(folder, text="hello", config=None, inputs=None):
    with folder_of("thing", folder, config or {"a": 1}, inputs or {"x": "1"}).writing() as (scratch, summary):
        (scratch / "f.txt").write_text(text)
        summary["length"] = len(text)
    return folder_of("thing", folder).open()


def test_fingerprint_covers_config_inputs_and_content_and_neither_time_nor_place(tmp_path):
    first, again = make(tmp_path / "a"), make(tmp_path / "b")
    assert first.fingerprint == again.fingerprint
    others = [make(tmp_path / "c", "hallo"), make(tmp_path / "d", config={"a": 2})]
    others.append(make(tmp_path / "e", inputs={"x": "2"}))
    assert len({first.fingerprint, *(m.fingerprint for m in others)}) == 4


def test_a_failure_leaves_nothing_behind_and_what_was_there_intact(tmp_path):
    with pytest.raises(RuntimeError), folder_of("thing", tmp_path / "a", {}, {}).writing() as (scratch, _):
        (scratch / "f.txt").write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_equal_work_of_two_processes_is_kept_once(tmp_path):
    """Both merge one adapter: the second must not take the files from under a reader of the first's."""
    with folder_of("thing", tmp_path / "a", {"a": 1}, {"x": "1"}).writing() as (scratch, _):
        (scratch / "f.txt").write_text("hello")
        first = make(tmp_path / "b").fingerprint
        (tmp_path / "b").rename(tmp_path / "a")
        place = (tmp_path / "a" / "f.txt").stat().st_ino
    assert (tmp_path / "a" / "f.txt").stat().st_ino == place
    assert folder_of("thing", tmp_path / "a").open().fingerprint == first
    assert [p.name for p in tmp_path.iterdir()] == ["a"], "its own copy is gone"


def test_reuse_needs_the_same_config_and_inputs(tmp_path):
    folder = tmp_path / "a"
    assert not folder_of("thing", folder, {"a": 1}, {"x": "1"}).complete()
    make(folder)
    assert folder_of("thing", folder, {"a": 1}, {"x": "1"}).complete()
    with pytest.raises(ValueError, match=r"made from something else: a: found 1, expected 2; .*rm -r .*`make thing`"):
        folder_of("thing", folder, {"a": 2}, {"x": "1"}).complete()
    with pytest.raises(ValueError, match='x: found "1", expected "2"'):
        folder_of("thing", folder, {"a": 1}, {"x": "2"}).complete()


def test_a_reader_compares_what_it_knows(tmp_path):
    """Settings that it knows, none for any; the inputs that it names. A setting that is only in the folder counts."""
    make(tmp_path / "a", config={"a": 1, "b": 2}, inputs={"x": "1", "y": "2"})
    for settings, inputs in ((None, {}), ({"a": 1, "b": ANY}, {}), ({"a": 1, "b": 2}, {"y": "2"})):
        folder_of("thing", tmp_path / "a", settings, inputs).open()
    for settings, inputs, message in (
        ({"a": 1}, {}, "b: found 2, expected null"),
        ({"a": 3, "b": ANY}, {}, "a: found 1, expected 3"),
        (None, {"x": "2"}, 'x: found "1", expected "2"'),
    ):
        with pytest.raises(ValueError, match=f"made from something else: {message}; give the run file"):
            folder_of("thing", tmp_path / "a", settings, inputs).open()


def test_nested_differences_are_named_by_their_keys():
    found = {"rules": {"seed": 0, "deep": {"a": 1}}, "lora": None}
    expected = {"rules": {"seed": 3, "deep": {"a": 1}}, "lora": {"r": 16}}
    text = artifacts.difference(found, expected)
    assert text == "rules.seed: found 0, expected 3; lora.r: found null, expected 16"


@pytest.mark.parametrize("text", ["[1]", "{}", "not JSON", "3"])
def test_what_is_no_manifest_is_named(tmp_path, text):
    make(tmp_path / "a")
    (tmp_path / "a" / artifacts.MANIFEST).write_text(text)
    with pytest.raises(ValueError, match=r"manifest.json: not a manifest; delete .* and run `make thing`"):
        folder_of("thing", tmp_path / "a").open()


def test_claimed_folder_is_not_taken_over(tmp_path):
    for _ in range(2):
        folder_of("model", tmp_path / "a", {"lr": 1}, {"data": "d"}).claim()
    with pytest.raises(ValueError, match="was made from something else: lr: found 1, expected 2"):
        folder_of("model", tmp_path / "a", {"lr": 2}, {"data": "d"}).claim()


def test_full_disk_is_one_clear_line_and_earlier_files_stay(tmp_path):
    """A limit on the file size acts as a full disk: writing beyond it raises OSError, too."""
    import resource
    import signal

    make(tmp_path / "a")
    before = folder_of("thing", tmp_path / "a").open()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(ValueError, match="cannot write .*; what was complete before is intact; free the disk"):
            make(tmp_path / "b", "x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert not (tmp_path / "b").exists()
    folder_of("thing", tmp_path / "a").verify(before)


def test_what_a_killed_writer_left_is_removed_and_a_living_one_is_let_be(tmp_path):
    dead = subprocess.Popen(["true"])
    dead.wait()
    left = {pid: tmp_path / f".a.{socket.gethostname()}-{pid}" for pid in (dead.pid, os.getppid())}
    for path in left.values():
        path.mkdir()
    make(tmp_path / "a")
    assert not left[dead.pid].exists() and left[os.getppid()].exists()


def test_broken_jsonl_line_is_named_with_file_and_number(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n\n{"a": \n')
    with pytest.raises(ValueError, match=r"rows.jsonl, line 3: not JSON"):
        list(files.read_jsonl(path))
    path.write_text("[1]\n")
    with pytest.raises(ValueError, match="line 1: found a list, expected an object"):
        list(files.read_jsonl(path))
    with pytest.raises(ValueError, match="cannot read"):
        list(files.read_jsonl(tmp_path / "none.jsonl"))


def test_any_text_survives_the_round_trip(tmp_path):
    rows = [{"text": "\ud800 lone surrogate, \u2028, \x00, é, 😀"}]
    files.write_jsonl(tmp_path / "t.jsonl", rows)
    assert list(files.read_jsonl(tmp_path / "t.jsonl")) == rows


def test_model_digest_sees_weights_config_and_tokenizer_but_no_readme(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"1")
    (tmp_path / "config.json").write_text("{}")
    first = artifacts.model_digest(tmp_path)
    (tmp_path / "README.md").write_text("words")
    (tmp_path / "manifest.json").write_text(json.dumps({}))
    assert artifacts.model_digest(tmp_path) == first
    (tmp_path / "chat_template.jinja").write_text("x")
    assert artifacts.model_digest(tmp_path) != first


@pytest.mark.parametrize("line", ["[" * 100_000, '{"answer": ' + "9" * 5000 + "}", "{"])
def test_a_line_that_json_cannot_read_is_named(tmp_path, line):
    (tmp_path / "t.jsonl").write_text('{"a": 1}\n' + line + "\n")
    with pytest.raises(ValueError, match=r"t.jsonl, line 2: not JSON \(.*\); fix or remove the line"):
        list(files.read_jsonl(tmp_path / "t.jsonl"))
