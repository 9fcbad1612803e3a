"""Prompts: system prompts, BOS, arguments and names of chat templates, and special tokens in a question's text."""

import json
from typing import Any

import pytest
import tokenizers
from tokenizers import decoders, pre_tokenizers, processors, trainers
from tokenizers import models as parts
from transformers import PreTrainedTokenizerFast

from east import models
from east.run import config
from east.run.config import SYSTEM_PROMPT, Task
from east.sampling import engine_interface, prompts, rendering
from tests import drawing, stages
from tests.conftest import settings, write_responses

SPECIAL = ["<s>", "</s>", "<unk>", "<start_of_turn>", "<end_of_turn>", "<|im_start|>", "<|im_end|>", "</think>"]
GEMMA = (
    "{{ bos_token }}"
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    "{{ m['content'] | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
DROPS_SYSTEM = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]{% endif %}{% endfor %}"
)
ZEPHYR = "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}{{ eos_token }}\n{% endfor %}<|assistant|>\n"
QWEN = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
TEXTS = ["What is 3 + 4? So the answer is 7.", "user model assistant system", SYSTEM_PROMPT, "[INST] [/INST] <think>"]


def tokenizer(kind: str, template: Any, adds_bos: bool = True) -> Any:
    """BPE on bytes (Llama 3, Qwen), or on words marked for the space before them (Llama 2, Gemma), or WordPiece."""
    if kind == "wordpiece":
        core = tokenizers.Tokenizer(parts.WordPiece(unk_token="<unk>"))
        core.pre_tokenizer = pre_tokenizers.Whitespace()
        trainer: Any = trainers.WordPieceTrainer(vocab_size=300, special_tokens=SPECIAL, show_progress=False)
    else:
        core = tokenizers.Tokenizer(parts.BPE(unk_token="<unk>"))
        on_bytes = kind == "bytes"
        metaspace = {"prepend_scheme": "first"}
        core.pre_tokenizer = pre_tokenizers.ByteLevel(False) if on_bytes else pre_tokenizers.Metaspace(**metaspace)
        core.decoder = decoders.ByteLevel() if on_bytes else decoders.Metaspace(**metaspace)
        alphabet = pre_tokenizers.ByteLevel.alphabet() if on_bytes else []
        trainer = trainers.BpeTrainer(
            vocab_size=500, special_tokens=SPECIAL, show_progress=False, initial_alphabet=alphabet
        )
    core.train_from_iterator(TEXTS, trainer)
    if adds_bos:
        core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>", chat_template=template,
        additional_special_tokens=SPECIAL[3:],
    )  # fmt: skip


def test_a_template_without_a_system_role_is_refused_or_gets_a_user_turn():
    gemma = tokenizer("bytes", GEMMA)
    with pytest.raises(ValueError, match="System role not supported.*task.system_role=user"):
        rendering.render(gemma, "3 + 4?", Task())
    text, _ = rendering.render(gemma, "3 + 4?", Task(system_role="user"))
    assert f"<start_of_turn>user\n{SYSTEM_PROMPT}\n\n3 + 4?<end_of_turn>" in text
    text, _ = rendering.render(gemma, "3 + 4?", Task(system_prompt=None))
    assert "<start_of_turn>user\n3 + 4?<end_of_turn>" in text


def test_a_template_that_drops_the_system_message_is_refused():
    mistral = tokenizer("words", DROPS_SYSTEM)
    with pytest.raises(ValueError, match="leaves out the system message; set task.system_role=user"):
        rendering.render(mistral, "3 + 4?", Task())
    assert SYSTEM_PROMPT in rendering.render(mistral, "3 + 4?", Task(system_role="user"))[0]


@pytest.mark.parametrize("kind", ["bytes", "words"])
def test_one_bos_whatever_the_template_writes(kind):
    """None in the template of a tokenizer that adds one: it is added. None where none is added: none."""
    for adds in (True, False):
        zephyr = tokenizer(kind, ZEPHYR, adds)
        text, ids = rendering.render(zephyr, "3 + 4?", Task())
        assert ids.count(0) == ids[:1].count(0) == adds and text.startswith("<s>") == adds
    written = tokenizer(kind, "{{ bos_token }}" + ZEPHYR)
    assert rendering.render(written, "3 + 4?", Task())[1].count(0) == 1
    twice = tokenizer(kind, "{{ bos_token }}{{ bos_token }}" + ZEPHYR)
    with pytest.raises(ValueError, match="two BOS"):
        rendering.render(twice, "3 + 4?", Task())
    apart = tokenizer(kind, "{{ bos_token }}" + ZEPHYR + "{{ bos_token }}")
    with pytest.raises(ValueError, match="two BOS"):
        rendering.render(apart, "3 + 4?", Task())


def test_arguments_of_the_template():
    qwen = tokenizer("bytes", QWEN, adds_bos=False)
    assert "<think>" not in rendering.render(qwen, "3 + 4?", Task())[0]
    text, _ = rendering.render(qwen, "3 + 4?", Task(template={"enable_thinking": False}))
    assert text.endswith("<think>\n\n</think>\n\n")
    with pytest.raises(ValueError, match="task.template: the chat template does not use enable_thinkin;"):
        rendering.render(qwen, "3 + 4?", Task(template={"enable_thinkin": False}))
    with pytest.raises(ValueError, match="template: tokenize is set by other keys"):
        config.parse({"run": "r", "model": {"path": "m"}, "task": {"template": {"tokenize": True}}})


def test_named_templates():
    named = tokenizer("bytes", {"default": ZEPHYR, "thinks": QWEN})
    assert "<|user|>" in rendering.render(named, "3 + 4?", Task())[0]
    assert "<|im_start|>user" in rendering.render(named, "3 + 4?", Task(chat_template="thinks"))[0]
    with pytest.raises(ValueError, match="no chat template 'tools'; set it to one of default, thinks"):
        rendering.render(named, "3 + 4?", Task(chat_template="tools"))
    with pytest.raises(ValueError, match="no chat template 'default'; set it to one of thinks"):
        rendering.render(tokenizer("bytes", {"thinks": QWEN}), "3 + 4?", Task())
    with pytest.raises(ValueError, match="the tokenizer has no chat template; remove them"):
        rendering.render(tokenizer("bytes", None), "3 + 4?", Task(chat_template="x", prompt="{question}"))


@pytest.mark.parametrize("error", ["{{ 1 / 0 }}", "{{ messages[9]['role'] }}", "{{ undefined.x.y }}", "{% for %}"])
def test_any_error_of_a_template_is_one_line(error):
    broken = tokenizer("bytes", error)
    with pytest.raises(ValueError, match="the chat template refuses the prompt") as raised:
        rendering.render(broken, "3 + 4?", Task())
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("kind", ["bytes", "words", "wordpiece"])
@pytest.mark.parametrize("template", [GEMMA, ZEPHYR, QWEN, None], ids=["gemma", "zephyr", "qwen", "task.prompt"])
def test_special_tokens_in_a_question_are_text(kind, template):
    """The template's own are special, as many as without the question; the question's are none, and its text comes
    back. A question without them has the ids of the whole rendered text."""
    found, task = tokenizer(kind, template), Task(system_role="user", prompt="Q: {system} {question}</s>\nA:")
    special = {i for i, token in found.added_tokens_decoder.items() if token.special} - {found.unk_token_id}
    plain_text, plain = rendering.render(found, "What is 3 + 4?", task)
    written = template == GEMMA
    whole = found(plain_text.removeprefix("" if written else "<s>"), add_special_tokens=not written)["input_ids"]
    assert plain == (whole if template else [0, *found(plain_text, add_special_tokens=False)["input_ids"]])
    for question in ("What is </s> 3 + 4?", "<|im_end|>What is<end_of_turn>", "3<s> + 4?", "<end_of_turn>", "</s>"):
        text, ids = rendering.render(found, question, task)
        assert question in text
        assert [i for i in ids if i in special] == [i for i in plain if i in special]
        if kind == "bytes":
            assert found.decode(ids).removeprefix("<s>") == text.removeprefix("<s>")


def test_a_question_that_cannot_be_tokenised_as_text_is_refused():
    """The template changes the text of the question."""
    upper = tokenizer("bytes", "{% for m in messages %}{{ m['content'] | upper }}{% endfor %}")
    with pytest.raises(ValueError, match="contains the special token '</s>', which this tokenizer and template cannot"):
        rendering.render(upper, "a </s> b", Task(system_prompt=None))


def test_a_template_that_shows_the_question_twice_refuses_one_with_a_special_token():
    twice = tokenizer("bytes", "{% for m in messages %}{{ m['content'] }} {{ m['content'] }}{% endfor %}")
    rendering.render(twice, "3 + 4?", Task(system_prompt=None))
    with pytest.raises(ValueError, match="contains the special token '</s>'"):
        rendering.render(twice, "a </s> b", Task(system_prompt=None))


def test_a_prompt_token_beyond_the_vocabulary_is_refused(tmp_path, tiny_model, monkeypatch):
    monkeypatch.setattr(models, "vocabulary", lambda *_: 100)
    with pytest.raises(ValueError, match=r"the prompt of question 'arithmetic.*' has the token \d+, and the model's"):
        prompts.ask(config.parse(settings(tmp_path, tiny_model)))


def test_imported_responses_end_with_the_end_of_the_turn(tmp_path, tiny_model):
    """Gemma's template ends a turn with <end_of_turn>, not with <eos>. Without such a template it is <eos>."""
    gemma, end = tokenizer("bytes", GEMMA), SPECIAL.index("<end_of_turn>")
    task = Task(system_role="user")
    assert rendering.end_of_turn(gemma, {1, end}, task) == end
    assert rendering.end_of_turn(gemma, {1}, task) == 1
    assert rendering.end_of_turn(tokenizer("bytes", None), {1, end}, Task(prompt="{question}")) == 1
    write_responses(tmp_path / "responses.jsonl", questions=2)
    run = config.parse(settings(tmp_path, tiny_model, task={"name": "arithmetic", "train_rows": [0, 2]}))
    stages.run("sample", run)
    lines = (run.folder_of("samples") / "responses.jsonl").read_text().splitlines()
    ends = models.end_tokens(tiny_model, models.load_tokenizer(tiny_model))
    assert all(tokens[-1] in ends for line in lines for tokens in json.loads(line)["tokens"])


def test_marks_of_thoughts_stay_in_the_text_of_a_response():
    """Where </think> is a special token, decoding without special tokens would lose where the answer begins."""
    qwen = tokenizer("bytes", QWEN)
    ids = qwen("So the answer</think> is 7.<|im_end|>", add_special_tokens=False)["input_ids"]
    ends = {SPECIAL.index("<|im_end|>")}
    assert engine_interface.response_text(qwen, ids, ends, []) == "So the answer</think> is 7."
    assert engine_interface.response_text(qwen, ids, ends, ["is"]) == "So the answer</think> "


def test_marks_of_thoughts_in_imported_responses_are_tokens(tmp_path):
    """As the model writes them; the names of other special tokens are text."""
    qwen, task = tokenizer("bytes", QWEN), Task(system_prompt=None)
    rows = [{"question": "q", "response": "so</think> it is</s> 7"}, {"question": "q", "response": " "}]
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = [{"id": "q", "question": "3 + 4?", "gold": "7", "solution": None, "meta": {}}]
    prompts_ = [rendering.render(qwen, "3 + 4?", task)]
    drawing.import_responses(tmp_path / "samples", tmp_path / "r.jsonl", asked, prompts_, qwen)
    (line,) = (tmp_path / "samples" / "responses.jsonl").read_text().splitlines()
    (ids,) = json.loads(line)["tokens"]
    special = [i for i in ids if i < len(SPECIAL)]
    assert special == [SPECIAL.index("</think>"), qwen.eos_token_id]
    assert qwen.decode(ids) == "so</think> it is</s> 7</s>"
