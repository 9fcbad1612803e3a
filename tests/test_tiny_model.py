"""The tiny model: a tokenizer that can encode every text, one BOS, single digits, a folder that transformers loads."""

import hashlib

import jinja2
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from east.run.config import SYSTEM_PROMPT
from east.toy import arithmetic, tiny_model

PRINTABLE = "".join(map(chr, range(32, 127))) + "\n\t"


def texts():
    rows = arithmetic.problems("easy", "train", 500, 0) + arithmetic.problems("hard", "train", 500, 0)
    return [text for row in rows for text in (row["question"], row["solution"])]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    tiny_model.make_tiny_model(folder, texts())
    return folder


@pytest.fixture(scope="module")
def tokenizer(folder):
    return AutoTokenizer.from_pretrained(folder)


def encode(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize(
    "text",
    [PRINTABLE, "Zoë paid 3½ € for 12\u00a0“peas”\n\n  日本", "<unk> \\boxed{-7} 1,000.5", " 7  8 ", ""],
)
def test_decoding_gives_every_text_back(tokenizer, text):
    assert tokenizer.decode(encode(tokenizer, text)) == text


def test_decoding_gives_problems_back_and_they_have_few_tokens(tokenizer):
    for text in texts()[:200]:
        assert tokenizer.decode(encode(tokenizer, text)) == text
    question, solution = arithmetic.problems("easy", "test", 1, 0)[0]["question"], "12+30=42\n\\boxed{42}"
    assert len(encode(tokenizer, question)) < len(question) / 2
    assert len(encode(tokenizer, solution)) == 13  # 12+30=42: 8, line end, \boxed{, 4, 2, }


def test_a_digit_is_always_one_token(tokenizer):
    digits = {encode(tokenizer, d)[0] for d in "0123456789"}
    assert len(digits) == 10
    for text in ("1234567890", "100 100", "=100\n\\boxed{100}", "day 31."):
        ids = encode(tokenizer, text)
        assert sum(i in digits for i in ids) == sum(c.isdigit() for c in text)


def test_special_tokens_are_distinct_and_the_system_prompt_is_one_token(tokenizer):
    special = [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id]
    special += [tokenizer.convert_tokens_to_ids(role) for role in tiny_model.ROLES]
    assert len(set(special)) == 6 and None not in special
    assert len(encode(tokenizer, SYSTEM_PROMPT)) == 1
    assert tokenizer.decode(encode(tokenizer, "So " + SYSTEM_PROMPT)) == "So " + SYSTEM_PROMPT


def test_the_template_writes_one_bos_and_ends_each_turn(tokenizer):
    messages = [{"role": "system", "content": SYSTEM_PROMPT}, {"role": "user", "content": "2+3?"}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert prompt == f"<|begin|><|system|>{SYSTEM_PROMPT}<|end|><|user|>2+3?<|end|><|assistant|>"
    ids = encode(tokenizer, prompt)
    assert ids.count(tokenizer.bos_token_id) == 1 and ids[0] == tokenizer.bos_token_id
    assert tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"] == ids
    answered = [*messages, {"role": "assistant", "content": "5"}]
    assert tokenizer.apply_chat_template(answered, tokenize=False) == prompt + "5<|end|>"


def test_an_unknown_role_is_an_error(tokenizer):
    with pytest.raises(jinja2.TemplateError, match="unknown role tool"):
        tokenizer.apply_chat_template([{"role": "tool", "content": "x"}])


def test_the_folder_loads_and_generates(folder, tokenizer):
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.dtype == torch.float32
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert len(tokenizer) <= model.config.vocab_size
    prompt = torch.tensor([[tokenizer.bos_token_id, *encode(tokenizer, "2+3?")]])
    out = model.generate(prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=4)
    assert out.shape[0] == 1 and prompt.shape[1] < out.shape[1] <= prompt.shape[1] + 4


def test_parameter_count_by_hand(tmp_path):
    """d=16, f=32, 2 layers, V tokens, tied: V*16 + 2*(4*16*16 + 3*16*32 + 2*16) + 16 = 16 V + 5200."""
    count = tiny_model.make_tiny_model(tmp_path, ["a b"], hidden_size=16, intermediate_size=32, layers=2, heads=2)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert count == sum(p.numel() for p in model.parameters()) == 16 * model.config.vocab_size + 5200


def test_about_a_million_parameters_by_default(folder):
    count = sum(p.numel() for p in AutoModelForCausalLM.from_pretrained(folder).parameters())
    assert 0.8e6 < count < 1.5e6


def test_equal_arguments_write_equal_files_and_do_not_change_the_global_generator(tmp_path):
    digests = []
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        torch.manual_seed(5)
        tiny_model.make_tiny_model(
            tmp_path / name, texts()[:200], hidden_size=32, intermediate_size=64, layers=1, seed=seed
        )
        assert torch.rand(1) == torch.rand(1, generator=torch.Generator().manual_seed(5))
        files = sorted((tmp_path / name).iterdir())
        digests.append({file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files})
    first, again, other = digests
    assert first == again
    assert {name for name in first if first[name] != other[name]} == {"model.safetensors"}


def test_a_vocabulary_too_small_for_all_bytes_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="vocab_size: found 200, expected 264 or more"):
        tiny_model.make_tiny_model(tmp_path, ["a"], vocab_size=200)
