"""An untrained Llama of about a million parameters, with its own tokenizer and chat template.

It replaces a pretrained model where none can be downloaded: the quickstart teaches it arithmetic, and the tests run the
engines with it. Both `AutoModelForCausalLM` and vLLM load its folder.
"""

from collections.abc import Iterable
from pathlib import Path

import tokenizers
import torch
from tokenizers import decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from east.run.config import SYSTEM_PROMPT

BOS, EOS, PAD = "<|begin|>", "<|end|>", "<|pad|>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
# The system prompt is part of every prompt: as a single token it costs almost nothing.
PHRASES = (SYSTEM_PROMPT, "\\boxed{")
CHAT_TEMPLATE = (
    "{{- bos_token }}"
    "{%- for message in messages %}"
    "{%- if message['role'] not in ['system', 'user', 'assistant'] %}"
    "{{- raise_exception('unknown role ' ~ message['role'] ~ '; expected system, user or assistant') }}"
    "{%- endif %}"
    "{{- '<|' ~ message['role'] ~ '|>' ~ message['content'] ~ eos_token }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|assistant|>' }}{%- endif %}"
)


def make_tokenizer(
    texts: Iterable[str], *, vocab_size: int = 512, phrases: tuple[str, ...] = PHRASES
) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on `texts`: no text is unknown to it, and each digit is a token.

    Merges are within a word and the space before it. Each of `phrases` is one token. At most `vocab_size` tokens.
    Raises ValueError if these are fewer than the 256 bytes, the 6 special tokens and the phrases.
    """
    special = [BOS, EOS, PAD, *ROLES]
    smallest = 256 + len(special) + len(phrases)
    if vocab_size < smallest:
        raise ValueError(
            f"vocab_size: found {vocab_size}, expected {smallest} or more (bytes, special tokens, phrases); raise it"
        )
    bpe = tokenizers.Tokenizer(models.BPE())
    words = tokenizers.Regex(r"\p{N}| ?\p{L}+| ?[^\s\p{L}\p{N}]|\s")
    bpe.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(words, "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=vocab_size - len(phrases), special_tokens=special, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    ))  # fmt: skip
    bpe.add_tokens([tokenizers.AddedToken(phrase, normalized=False) for phrase in phrases])
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # transformers
        tokenizer_object=bpe, bos_token=BOS, eos_token=EOS, pad_token=PAD,
        additional_special_tokens=list(ROLES), chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )  # fmt: skip


def make_tiny_model(
    out_dir: Path,
    texts: Iterable[str],
    *,
    vocab_size: int = 512,
    phrases: tuple[str, ...] = PHRASES,
    hidden_size: int = 128,
    layers: int = 4,
    heads: int = 4,
    intermediate_size: int = 512,
    max_positions: int = 1024,
    seed: int = 0,
) -> int:
    """Write a tokenizer trained on `texts` and a random Llama (float32, tied embeddings) to a folder.

    Returns the number of parameters. The same arguments write the same files. The state of PyTorch's global generator
    is not changed. Raises ValueError as `make_tokenizer` does.
    """
    tokenizer = make_tokenizer(texts, vocab_size=vocab_size, phrases=phrases)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=intermediate_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=max_positions,
        tie_word_embeddings=True,
        initializer_range=0.06,  # with the usual 0.02, which suits wide layers, a narrow model learns half as fast
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)  # type: ignore[no-untyped-call]  # transformers
    model.save_pretrained(out_dir)
    tokenizer.save_pretrained(out_dir)
    return model.num_parameters()
