"""Questions, gold answers and prompts: the layouts of data sets, and errors."""

import json
import re
from pathlib import Path

import pytest

from east import models, tasks
from east.run.config import SYSTEM_PROMPT, Task
from east.sampling import rendering

DATA = Path(__file__).parent.parent.parent / "shared" / "data"


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_gsm8k_original_jsonl(tmp_path):
    source = write(tmp_path / "t.jsonl", [{"question": "2+3?", "answer": "2+3=<<2+3=5>>5\n#### 5"}])
    kept, dropped = tasks.questions(Task(name="gsm8k", train=source), "train")
    assert [(q["id"], q["question"], q["gold"]) for q in kept] == [("gsm8k/train/0", "2+3?", "5")]
    assert dropped == {}


def test_math_gold_is_the_last_box_and_an_empty_one_is_counted(tmp_path):
    rows = [
        {"problem": "x?", "level": "Level 1", "type": "Algebra", "solution": r"So \boxed{1} or \boxed{\frac{1}{2}}."},
        {"problem": "y?", "level": "Level 2", "type": "Algebra", "solution": r"\boxed{}"},
    ]
    kept, dropped = tasks.questions(Task(name="math", test=write(tmp_path / "t.jsonl", rows)), "test")
    assert [(q["gold"], q["meta"]) for q in kept] == [(r"\frac{1}{2}", {"level": "Level 1", "type": "Algebra"})]
    assert dropped == {"empty gold answer": 1}


def test_jsonl_with_ids_and_a_range_of_rows(tmp_path):
    rows = [{"id": f"n{i}", "question": f"{i}?", "answer": i} for i in range(5)]
    task = Task(name="jsonl", train=write(tmp_path / "t.jsonl", rows), train_rows=(1, 3))
    assert [(q["id"], q["gold"]) for q in tasks.questions(task, "train")[0]] == [("n1", "1"), ("n2", "2")]
    assert [q["id"] for q in tasks.questions(task, "train", rows=(4, 5))[0]] == ["n4"]


def test_a_shuffled_train_split_keeps_ids_and_its_ranges_are_disjoint(tmp_path):
    """The rows are sorted by type; after shuffling, held-out rows have both types. Ids have the number of the row
    before shuffling."""
    rows = [{"question": f"q{i}", "answer": str(i), "type": "ab"[i // 20]} for i in range(40)]
    path = write(tmp_path / "m.jsonl", rows)
    task = Task(name="jsonl", train=str(path), test=str(path), shuffle=0)
    every = tasks.questions(task, "train")[0]
    assert [q["id"] for q in every] != [f"jsonl/train/{i}" for i in range(40)]
    assert {q["id"]: q["question"] for q in every} == {f"jsonl/train/{i}": f"q{i}" for i in range(40)}
    first, last = (tasks.questions(task, "train", part)[0] for part in ((0, 30), (30, 40)))
    assert first + last == every and {q["meta"]["type"] for q in last} == {"a", "b"}
    assert [q["question"] for q in tasks.questions(task, "test")[0]] == [f"q{i}" for i in range(40)]
    with pytest.raises(ValueError, match="arithmetic problems are in random order already"):
        Task(name="arithmetic", shuffle=0)


@pytest.mark.parametrize(("name", "subset"), [("gsm8k", "main"), ("math", "algebra")])
def test_hub_layout_through_datasets(tmp_path, name, subset, monkeypatch):
    """A folder with the layout of the hub's repository, which `datasets` reads like the hub's."""
    monkeypatch.setattr(tasks, "MATH_SUBJECTS", ["algebra"])
    row = {"question": "2+3?", "answer": "#### 5"} if name == "gsm8k" else {"problem": "2+3?", "solution": r"\boxed{5}"}
    (tmp_path / subset).mkdir()
    write(tmp_path / subset / "train.jsonl", [row] * 2)
    files = f"configs:\n- config_name: {subset}\n  data_files:\n  - split: train\n    path: {subset}/train.jsonl\n"
    (tmp_path / "README.md").write_text(f"---\n{files}---\n")
    monkeypatch.setitem(tasks.HUB, name, str(tmp_path))
    raw = tasks._from_hub(name, str(tmp_path), "train")
    assert raw == [row, row]


def test_a_hub_name_that_cannot_be_fetched_is_a_one_line_error(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ValueError, match="cannot load 'no-such/set' from the hub") as error:
        tasks.questions(Task(name="jsonl", train="no-such/set"), "train")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("rows", "change", "message"),
    [
        ([{"q": 1}], {}, r"row 0: found fields \['q'\], expected question"),
        ([{"question": "a", "answer": "1"}], {"train_rows": (0, 5)}, "rows 0:5 .* found 1 rows"),
        ([{"id": 1, "question": "a", "answer": "1"}] * 2, {}, "found the id '1' in 2 rows"),
        ([{"question": "a", "answer": ""}], {}, "no question with a gold answer"),
    ],
)
def test_rows_that_cannot_be_used_are_an_error(tmp_path, rows, change, message):
    with pytest.raises(ValueError, match=message):
        tasks.questions(Task(name="jsonl", train=write(tmp_path / "t.jsonl", rows), **change), "train")


def test_a_missing_source_is_an_error():
    with pytest.raises(ValueError, match="task.train is missing"):
        tasks.questions(Task(name="jsonl"), "train")
    with pytest.raises(ValueError, match="cannot read .*check the path"):
        tasks.questions(Task(name="jsonl", train="nowhere.jsonl"), "train")


def test_prompt_is_the_chat_template_with_the_papers_system_prompt_and_one_bos(tiny_model):
    tokenizer = models.load_tokenizer(tiny_model)
    text, ids = rendering.render(tokenizer, "2+3?", Task())
    assert text.index(SYSTEM_PROMPT) < text.index("2+3?") and text.endswith("<|assistant|>")
    assert ids.count(tokenizer.bos_token_id) == 1 and ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(ids) == text
    assert SYSTEM_PROMPT not in rendering.render(tokenizer, "2+3?", Task(system_prompt=None))[0]


@pytest.mark.parametrize(
    "line",
    [
        "{{ date_string if date_string is defined else strftime_now('%d %b %Y') }}",
        "{{ strftime_now('%d %b %Y') }}",
    ],
    ids=["Llama 3.1 and 3.2", "always today"],
)
def test_a_template_that_prints_a_date_gets_task_date(tiny_model, line):
    tokenizer = models.load_tokenizer(tiny_model)
    tokenizer.chat_template = line + tokenizer.chat_template
    assert rendering.render(tokenizer, "2+3?", Task())[0].startswith("26 Jul 2024")
    assert rendering.render(tokenizer, "2+3?", Task(date="1 Jan 2000"))[0].startswith("1 Jan 2000")


def test_a_template_that_accepts_no_system_message_is_an_error(tiny_model):
    tokenizer = models.load_tokenizer(tiny_model)
    tokenizer.chat_template = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}x"
    with pytest.raises(ValueError, match="refuses the prompt .no system.*task.system_prompt=null"):
        rendering.render(tokenizer, "2+3?", Task())


def test_two_bos_are_an_error(tiny_model):
    tokenizer = models.load_tokenizer(tiny_model)
    tokenizer.chat_template = "{{ bos_token }}" + tokenizer.chat_template
    with pytest.raises(ValueError, match="two BOS"):
        rendering.render(tokenizer, "2+3?", Task())


def test_a_tokenizer_without_template_uses_task_prompt_also_with_latex_braces(tiny_model):
    tokenizer = models.load_tokenizer(tiny_model)
    tokenizer.chat_template = None
    with pytest.raises(ValueError, match="no chat template; set task.prompt"):
        rendering.render(tokenizer, "2+3?", Task())
    text, ids = rendering.render(tokenizer, r"\frac{1}{2}?", Task(prompt="{system} Q: {question}\nA:"))
    assert text == SYSTEM_PROMPT + " Q: \\frac{1}{2}?\nA:"
    assert ids.count(tokenizer.bos_token_id) == 1


@pytest.mark.skipif(not DATA.exists(), reason="needs the folder shared/ next to the checkout")
@pytest.mark.parametrize(
    ("name", "file", "count", "empty"), [("gsm8k", "gsm8k_train", 7473, 0), ("math", "math_train", 7500, 2)]
)
def test_real_files(name, file, count, empty):
    """GSM8K train and MATH train as published; two MATH solutions have an empty box."""
    kept, dropped = tasks.questions(Task(name=name, train=str(DATA / f"{file}.jsonl.gz")), "train")
    assert (len(kept), dropped) == (count - empty, {"empty gold answer": empty} if empty else {})
    if name == "gsm8k":
        assert all(re.fullmatch(r"-?[\d,.]+", q["gold"]) for q in kept)


def test_prompts_need_a_bos_only_if_the_tokenizer_adds_one(tmp_path):
    """The same vocabulary with and without Llama's post-processor; a bos_token alone does not require a BOS."""
    from tokenizers import Tokenizer, processors
    from tokenizers import models as parts
    from transformers import PreTrainedTokenizerFast

    plain = Tokenizer(parts.WordLevel({"<s>": 0, "a": 1, "</s>": 2}, unk_token="a"))
    adding = Tokenizer.from_str(plain.to_str())
    adding.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    added = {}
    for name, tokenizer in (("plain", plain), ("adding", adding)):
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>").save_pretrained(
            tmp_path / name
        )
        (tmp_path / name / "config.json").write_text('{"model_type": "llama", "vocab_size": 3}')
        added[name] = models.added_bos(models.load_tokenizer(tmp_path / name))
    assert added == {"plain": None, "adding": 0}
    (tmp_path / "plain" / "generation_config.json").write_text("{")
    with pytest.raises(ValueError, match=r"generation_config.json: not a JSON object; fix or remove"):
        models.end_tokens(tmp_path / "plain", models.load_tokenizer(tmp_path / "plain"))


@pytest.mark.parametrize(
    ("answer", "gold"), [("7", "7"), (7, "7"), (-0.5, "-0.5"), (["7"], "7"), ([7], "7"), (1e21, "1e+21")]
)
def test_gold_answers(tmp_path, answer, gold):
    (question,), _ = tasks.questions(
        Task(name="jsonl", train=write(tmp_path / "t.jsonl", [{"question": "a", "answer": answer}])), "train"
    )
    assert question["gold"] == gold


@pytest.mark.parametrize("answer", [{"value": 3}, ["2", "3"], [], [["2"]], True, None, float("inf")])
def test_other_golds_are_refused_by_row(tmp_path, answer):
    """An object, several parts, a boolean, null: one line with the row and what was found."""
    rows = [{"question": "a", "answer": "1"}, {"question": "b", "answer": answer}]
    shown = re.escape(json.dumps(answer[0] if answer == [["2"]] else answer))
    with pytest.raises(ValueError, match=rf"t.jsonl, row 1: found the answer {shown}, expected a text or a number"):
        tasks.questions(Task(name="jsonl", train=write(tmp_path / "t.jsonl", rows)), "train")


@pytest.mark.parametrize("identity", [{"a": 1}, True, 1.5, ["x"]])
def test_ids_are_texts_or_numbers(tmp_path, identity):
    rows = [{"question": "a", "answer": "1", "id": identity}]
    with pytest.raises(ValueError, match="row 0: found the id .*, expected a text or a number"):
        tasks.questions(Task(name="jsonl", train=write(tmp_path / "t.jsonl", rows)), "train")


@pytest.mark.parametrize("field", ["question", "answer", "id"])
@pytest.mark.parametrize("text", ["caf\\udce9", "half \\ud83d a pair"])
def test_text_that_is_no_unicode_is_refused_by_row(tmp_path, field, text):
    """A byte of Latin-1 as `read_jsonl` keeps it, and half a surrogate pair: tokenizers raise on both."""
    path = tmp_path / "t.jsonl"
    path.write_text(f'{{"question": "a", "answer": "1", "{field}": "{text}"}}\n')
    with pytest.raises(ValueError, match=rf"t.jsonl, row 0: its {field} has '.ud\w+' at character \d+.*as UTF-8"):
        tasks.questions(Task(name="jsonl", train=str(path)), "train")


def test_a_latin_1_file_is_refused_by_row(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_bytes('{"question": "un café", "answer": "1"}\n'.encode("latin-1"))
    with pytest.raises(ValueError, match=r"row 0: its question has .*udce9. at character 6"):
        tasks.questions(Task(name="jsonl", train=str(path)), "train")


def test_an_empty_question_is_refused_by_row(tmp_path):
    rows = [{"question": " ", "answer": "1"}]
    with pytest.raises(ValueError, match=r"t.jsonl, row 0: the question is empty"):
        tasks.questions(Task(name="jsonl", train=write(tmp_path / "t.jsonl", rows)), "train")
