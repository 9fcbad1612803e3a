"""The samples folder and sample.py: kills, raising n later, broken lines, full disks, imported responses."""

import errno
import fcntl
import gzip
import hashlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import sentencepiece
import torch
import transformers
import yaml

from east import models
from east.data import examples
from east.run.config import Task
from east.sampling import rendering
from east.sampling.draw import question_seed
from east.sampling.journal import Journal
from east.toy import arithmetic
from tests import drawing
from tests.stages import folder_of

ROOT = Path(__file__).parent.parent
DATA = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="module")
def whole(model_folder, asked, tmp_path_factory):
    """A folder with n=5 that was drawn without interruption."""
    folder = tmp_path_factory.mktemp("run") / "samples"
    drawing.draw(folder, *asked, model_folder, drawing.settings(n=5))
    return folder


def contents(folder, but=()):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in ("manifest.json", *but)}


def test_questions_are_read_in_order(whole, asked, model_folder):
    rows = list(drawing.read(whole))
    assert [row["question"] for row in rows] == [question["id"] for question in asked[0]]
    assert [row["prompt_tokens"] for row in rows] == [ids for _, ids in asked[1]]
    assert [row["gold"] for row in rows] == [question["gold"] for question in asked[0]]
    ends = set(drawing.ends(model_folder))
    for row in rows:
        assert row["sample"] == [0, 1, 2, 3, 4] and len(row["tokens"]) == len(row["text"]) == 5
        examples.check_tokens(row, bos=0, ends=ends, stops=False)


def test_summary_counts_responses_and_tokens(whole):
    rows = list(drawing.read(whole))
    summary = folder_of("samples", whole).open().summary
    assert summary["n"] == 5 and summary["questions"] == 12 and summary["responses"] == 60
    assert summary["tokens"] == sum(len(tokens) for row in rows for tokens in row["tokens"])
    assert summary["truncated"] == sum(row["finish_reason"].count("length") for row in rows)
    assert 0 < summary["truncated"] < 60 and summary["questions_left_out"] == {}


def test_raising_n_later_equals_the_larger_n_from_the_start(whole, asked, model_folder, tmp_path):
    """n = 2 and then n = 5 draw the same responses as n = 5 at once; the first two are read as before."""
    drawing.draw(tmp_path / "s", *asked, model_folder, drawing.settings(n=2))
    before = list(drawing.read(tmp_path / "s"))
    drawing.draw(tmp_path / "s", *asked, model_folder, drawing.settings(n=5))
    assert list(drawing.read(tmp_path / "s")) == list(drawing.read(whole))
    assert list(drawing.read(tmp_path / "s", 2)) == before and len(before[0]["tokens"]) == 2


def test_nothing_is_drawn_for_a_lower_n(whole, asked, model_folder):
    stamp = (whole / "manifest.json").stat().st_mtime_ns
    assert drawing.draw(whole, *asked, model_folder, drawing.settings(n=3)).summary["n"] == 5
    assert (whole / "manifest.json").stat().st_mtime_ns == stamp
    with pytest.raises(ValueError, match="found n=5, expected 6; draw the others with `python -m east sample"):
        next(drawing.read(whole, 6))


def test_settings_that_only_affect_speed_may_change(whole, asked, model_folder):
    assert drawing.draw(whole, *asked, model_folder, drawing.settings(n=5, batch=3)).summary["n"] == 5


def test_other_settings_are_an_error_and_do_not_change_the_folder(whole, asked, model_folder, tmp_path):
    before = contents(whole, but=())
    other = drawing.make_model(tmp_path / "other")
    weights = transformers.AutoModelForCausalLM.from_pretrained(other, dtype=torch.float32)
    with torch.no_grad():
        weights.lm_head.weight[0, 0] += 1
    weights.save_pretrained(other)
    questions, prompts = asked
    golds = [{**questions[0], "gold": "another"}, *questions[1:]]
    for rows, model, values, expected in (
        (questions, model_folder, {"n": 9, "temperature": 0.5}, "temperature: found 1.0, expected 0.5"),
        (questions, model_folder, {"seed": 1}, "seed: found 0, expected 1"),
        (questions, other, {}, "model: found"),
        (golds, model_folder, {}, "questions: found"),
    ):
        with pytest.raises(ValueError, match=f"made from something else: {expected}"):
            drawing.draw(whole, rows, prompts, model, drawing.settings(**values))
    assert contents(whole) == before


def run_file(folder, model_folder, **sampling):
    path = folder / "run.yaml"
    values = {"engine": "transformers", "n": 5, "max_tokens": 12, "dtype": "float32", "batch": 5, **sampling}
    task = {"name": "arithmetic", "train_rows": [0, 12]}
    run = {"run": str(folder / "run"), "model": {"path": str(model_folder)}, "task": task, "sampling": values}
    path.write_text(yaml.safe_dump(run))
    return path


def command(config, *overrides, largest_file=None):
    """sample.py as a process. largest_file: limit in bytes of the files that it writes."""
    line = [sys.executable, "sample.py", "--config", str(config), *overrides]
    if largest_file is not None:  # set by another process: a fork of this one may need too much memory
        limit = f"resource.setrlimit(resource.RLIMIT_FSIZE, ({largest_file}, {largest_file}))"
        line = [sys.executable, "-c", f"import os, resource, sys; {limit}; os.execv(sys.argv[1], sys.argv[1:])", *line]
    return subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_sampling_resumes_after_a_kill_with_the_same_files(whole, model_folder, tmp_path):
    """kill -9 when two of twelve questions are written: the second run draws the others, and the files are equal byte
    for byte."""
    config = run_file(tmp_path, model_folder)
    folder = tmp_path / "run" / "round_1" / "samples"
    process = command(config)
    end = time.monotonic() + 120
    while not (folder / "responses.jsonl").exists() or (folder / "responses.jsonl").read_bytes().count(b"\n") < 2:
        assert process.poll() is None and time.monotonic() < end, process.communicate()
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    first = (folder / "responses.jsonl").read_bytes()
    assert not (folder / "manifest.json").exists()
    out, err = (again := command(config)).communicate()
    assert again.returncode == 0, err
    assert contents(folder) == contents(whole)
    assert first.splitlines()[0] in (folder / "responses.jsonl").read_bytes().splitlines()
    assert "60" in out and "tokens/s" in err


@pytest.mark.parametrize("lost", [1, 40, 700])
def test_an_incomplete_last_line_is_drawn_again(whole, asked, model_folder, tmp_path, lost):
    """The file may end at any byte: complete lines are kept, and the missing ones are drawn again."""
    folder = tmp_path / "samples"
    folder.mkdir()
    for name, data in contents(whole).items():
        (folder / name).write_bytes(data[: len(data) - lost] if name == "responses.jsonl" else data)
    drawing.draw(folder, *asked, model_folder, drawing.settings(n=5))
    assert contents(folder) == contents(whole)


@pytest.mark.parametrize(
    "line", [b"{broken\n", b'{"question": "nobody", "first": 0, "tokens": [[1]]}\n', b"[]\n", b"\xff\n"]
)
def test_the_error_for_a_broken_line_names_it(whole, asked, model_folder, tmp_path, line):
    folder = tmp_path / "samples"
    folder.mkdir()
    for name, data in contents(whole).items():
        lines = data.splitlines(keepends=True)
        (folder / name).write_bytes(b"".join([*lines[:2], line, *lines[3:]]) if name == "responses.jsonl" else data)
    with pytest.raises(ValueError, match=r"responses\.jsonl, line 3: not a line of responses; remove the line"):
        drawing.draw(folder, *asked, model_folder, drawing.settings(n=5))


def test_a_second_process_cannot_draw_into_the_same_folder(asked, model_folder, tmp_path):
    (tmp_path / "samples").mkdir()
    with (tmp_path / "samples" / "responses.jsonl").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="another process is drawing into it"):
            drawing.draw(tmp_path / "samples", *asked, model_folder, drawing.settings())


def test_a_file_system_without_locks_is_a_one_line_error(tmp_path, monkeypatch):
    def flock(file, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with (
        pytest.raises(ValueError, match=r"its file system cannot lock files \(No locks available\); choose another"),
        Journal(tmp_path / "responses.jsonl", []).locked(),
    ):
        pass


def test_a_full_disk_keeps_complete_lines(asked, model_folder, tmp_path):
    """Files may only grow to half of their final size, as on a full disk. After the error, complete lines are kept, and
    the same command without the limit draws the others."""
    drawing.draw(tmp_path / "free", *asked, model_folder, drawing.settings(n=20))
    expected = contents(tmp_path / "free")
    limit = len(expected["responses.jsonl"]) // 2
    assert limit > len(expected["questions.jsonl"])
    config = run_file(tmp_path, model_folder, n=20)
    folder = tmp_path / "run" / "round_1" / "samples"
    process = command(config, largest_file=limit)
    _, err = process.communicate()
    assert process.returncode == 1 and "Traceback" not in err
    assert "responses.jsonl: cannot write (File too large); what was complete before is intact" in err
    kept = (folder / "responses.jsonl").read_bytes()
    assert len(kept) == limit and not (folder / "manifest.json").exists()
    assert set(kept.splitlines()[:-1]) < set(expected["responses.jsonl"].splitlines())
    again = command(config)
    _, err = again.communicate()
    assert again.returncode == 0, err
    assert contents(folder) == expected


def test_a_folder_that_cannot_be_written_is_a_one_line_error(model_folder, tmp_path):
    (tmp_path / "run").write_text("a file where the run's folder should be")
    process = command(run_file(tmp_path, model_folder))
    _, err = process.communicate()
    assert process.returncode == 1 and "Traceback" not in err
    assert "error: " in err and "cannot write (Not a directory)" in err


def test_an_unknown_key_is_a_one_line_error(model_folder, tmp_path):
    process = command(run_file(tmp_path, model_folder), "sampling.temprature=0.5")
    out, err = process.communicate()
    assert process.returncode == 1 and out == ""
    assert err.strip().splitlines()[-1].startswith("error: ") and "did you mean `sampling.temperature`?" in err


def test_prompts_that_leave_no_room_for_a_response_are_counted(asked, model_folder, tmp_path):
    """The limit is the median length of prompts: those of this length or more are left out and counted."""
    lengths = sorted(len(ids) for _, ids in asked[1])
    limit = lengths[6]
    fitting = sum(length < limit for length in lengths)
    assert 0 < fitting < 12
    manifest = drawing.draw(tmp_path / "s", *asked, model_folder, drawing.settings(n=1, max_model_len=limit))
    assert manifest.summary["questions_left_out"] == {f"prompt of {limit} tokens or more": 12 - fitting}
    assert len(list(drawing.read(tmp_path / "s"))) == manifest.summary["questions"] == fitting
    with pytest.raises(ValueError, match="none of 12 prompts is shorter than the context of 5 tokens"):
        drawing.draw(tmp_path / "t", *asked, model_folder, drawing.settings(max_model_len=5))


def test_question_seed_is_the_same_on_every_machine_and_below_2_to_the_62():
    """The first 62 bits of SHA-256 of "0\\ngsm8k/train/0"."""
    digest = hashlib.sha256(b"0\ngsm8k/train/0").hexdigest()
    assert question_seed(0, "gsm8k/train/0") == int(digest[:16], 16) // 4
    assert question_seed(1, "gsm8k/train/0") != question_seed(0, "gsm8k/train/0")
    seeds = [question_seed(0, f"gsm8k/train/{i}") for i in range(8000)]
    assert max(seeds) + 10**9 < 2**63 - 1
    gaps = [b - a for a, b in zip(sorted(seeds), sorted(seeds)[1:], strict=False)]
    assert min(gaps) > 10**6  # samples of two questions never have the same seed


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_imported_responses(asked, model_folder, tmp_path):
    """Different numbers of responses, an unknown question, an empty response, and texts with special tokens and half of
    a surrogate pair."""
    questions, prompts = asked
    tokenizer = models.load_tokenizer(model_folder)
    a, b = questions[0]["id"], questions[5]["id"]
    rows = [
        {"question": b, "response": r"so \boxed{5}"},
        {"question": a, "response": "cut in the mid", "finish_reason": "length"},
        {"question": "nobody", "response": "x"},
        {"question": a, "response": "  "},
        {"question": b, "response": "evil <|end|> text <|begin|>", "finish_reason": "stop"},
        {"question": b, "response": "half \ud83d end", "finish_reason": "stop"},
    ]
    source = write_rows(tmp_path / "rows.jsonl", rows)
    summary = drawing.import_responses(tmp_path / "s", source, questions, prompts, tokenizer).summary
    assert summary["responses_left_out"] == {"unknown question": 1, "empty response": 1}
    assert summary["questions_left_out"] == {"no response": 10} and summary["finish_reason_assumed_stop"] == 1
    assert (summary["n"], summary["questions"], summary["responses"], summary["truncated"]) == (3, 2, 4, 1)
    first, second = drawing.read(tmp_path / "s")
    assert (first["question"], second["question"]) == (a, b)
    assert first["text"] == ["cut in the mid"] and first["sample"] == [0] and second["sample"] == [0, 1, 2]
    assert tokenizer.decode(first["tokens"][0]) == "cut in the mid"
    assert second["text"][2] == "half \ufffd end"
    for row in (first, second):
        examples.check_tokens(row, bos=0, ends={tokenizer.eos_token_id}, stops=False)
        for tokens in row["tokens"]:
            assert not set(tokens[:-1]) & set(tokenizer.all_special_ids)
    assert len(next(iter(drawing.read(tmp_path / "s", 2)))["tokens"]) == 1
    # importing the same file again changes nothing; another file is an error
    drawing.import_responses(tmp_path / "s", source, questions, prompts, tokenizer)
    write_rows(source, rows[:2])
    with pytest.raises(ValueError, match="made from something else: responses: found"):
        drawing.import_responses(tmp_path / "s", source, questions, prompts, tokenizer)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("{not json", "rows.jsonl, line 2: not JSON"),
        ('{"question": "a"}', "rows.jsonl, row 2: found .*expected question"),
        ('{"question": "a", "response": "x", "finish_reason": "eos"}', 'finish_reason "stop" or "length"'),
    ],
)
def test_errors_of_an_import_name_file_and_line(asked, model_folder, tmp_path, line, expected):
    source = tmp_path / "rows.jsonl"
    source.write_text(json.dumps({"question": asked[0][0]["id"], "response": "1"}) + "\n" + line + "\n")
    with pytest.raises(ValueError, match=expected):
        drawing.import_responses(tmp_path / "s", source, *asked, models.load_tokenizer(model_folder))
    assert not (tmp_path / "s").exists()


def test_real_responses_are_imported(model_folder, tmp_path):
    """800 responses of a Qwen2.5-Math model to 100 MATH problems: decoding the tokens gives the texts."""
    source = DATA / "qwen25math_cot_100x8.jsonl.gz"
    if not source.exists():
        pytest.skip(f"found no {source}")
    with gzip.open(source, "rt", encoding="utf-8") as file:
        real = [json.loads(line) for line in file]
    task = Task(name="jsonl", train=str(write_rows(tmp_path / "q.jsonl", [
        {"id": str(row["idx"]), "question": row["question"], "answer": row["gt"]} for row in real
    ])))  # fmt: skip
    questions, prompts = drawing.asked(model_folder, task)
    rows = [{"question": row["idx"], "response": text} for row in real for text in row["code"]]
    tokenizer = models.load_tokenizer(model_folder)
    source = write_rows(tmp_path / "r.jsonl", rows)
    manifest = drawing.import_responses(tmp_path / "s", source, questions, prompts, tokenizer)
    assert manifest.summary["responses"] == 800 and manifest.summary["n"] == 8
    for row, sampled in zip(real, drawing.read(tmp_path / "s"), strict=True):
        assert sampled["text"] == row["code"]
        assert tokenizer.batch_decode(sampled["tokens"], skip_special_tokens=True) == row["code"]


def test_sampling_with_a_sentencepiece_tokenizer(tmp_path):
    """A model folder like that of Llama 2: tokenizer.model (sentencepiece BPE, byte fallback) and no chat template."""
    rows = arithmetic.problems("easy", "train", 200, 0)
    texts = [f"{row['question']} {row['solution']}".replace("\n", " ") for row in rows]
    folder = tmp_path / "model"
    folder.mkdir()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_prefix=str(folder / "tokenizer"), model_type="bpe", vocab_size=400,
        byte_fallback=True, minloglevel=2,
    )  # fmt: skip
    settings = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=400, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
            max_position_embeddings=256, bos_token_id=1, eos_token_id=[2, *range(300, 330)], tie_word_embeddings=True,
        )
    ).save_pretrained(folder)  # fmt: skip
    task = Task(name="arithmetic", train_rows=(0, 4), prompt="{system} {question}")
    tokenizer = models.load_tokenizer(folder)
    questions, prompts = drawing.asked(folder, task)
    plain = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    for question, (text, ids) in zip(questions, prompts, strict=True):
        assert text == f"{task.system_prompt} {question['question']}"
        assert ids == [1, *plain.encode(text)]
    drawing.draw(tmp_path / "s", questions, prompts, folder, drawing.settings(n=6))
    ends = models.end_tokens(folder, tokenizer)
    reasons = set()
    for row in drawing.read(tmp_path / "s"):
        examples.check_tokens(row, bos=1, ends=set(ends), stops=False)
        reasons |= set(row["finish_reason"])
        for tokens, text in zip(row["tokens"], row["text"], strict=True):
            pieces = [plain.id_to_piece(t) for t in tokens if t not in ends and t > 2 and not plain.is_byte(t)]
            rest = iter(text)  # the pieces are in the text in order; a random model also draws bytes at random
            assert all(letter in rest for letter in "".join(pieces).replace("▁", " ").lstrip())
    assert reasons == {"stop", "length"}
    assert rendering.render(tokenizer, "x", task)[1].count(1) == 1
