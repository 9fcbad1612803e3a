"""What a sampling engine is asked and what it gives back.

An engine is a plain callable: requests in, finished requests out, in completion order. Sample k of a request
draws with the seed `request.seed + k`, so a response depends on neither the batch it was drawn in nor the way
the work was cut into requests (up to floating point: batched kernels may round differently).

Token contract: returned tokens end with an end token iff the response ended by itself. Those of a response
cut by a length limit hold none; those of one ended by a stop text end with the tokens that spelt it.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import transformers

from east.run.config import Sampling


class Request(NamedTuple):
    """Samples [first, first + count) of one question; `seed` belongs to the question."""

    question: str
    prompt: list[int]
    first: int
    count: int  # type: ignore[assignment]  # hides tuple.count
    seed: int


class Drawn(NamedTuple):
    """A finished request; the lists have one entry per sample. finish_reason: "stop" or "length"."""

    question: str
    first: int
    tokens: list[list[int]]
    text: list[str]
    finish_reason: list[str]


Engine = Callable[[Iterable[Request]], Iterator[Drawn]]


def context_limit(model_folder: Path, settings: Sampling) -> int:
    """Most positions (prompt + response) a sequence may have: the model's own limit or `max_model_len`."""
    config = transformers.AutoConfig.from_pretrained(model_folder).get_text_config()
    limit = getattr(config, "max_position_embeddings", None) or settings.max_model_len
    if limit is None:
        raise ValueError(f"{model_folder}: config.json names no max_position_embeddings; set sampling.max_model_len")
    if settings.max_model_len and settings.max_model_len > limit:
        raise ValueError(f"sampling.max_model_len: found {settings.max_model_len}, the model's limit is {limit}")
    return settings.max_model_len or limit


def response_text(tokenizer: Any, tokens: list[int], ends: set[int], stop: list[str]) -> str:
    """Text of a response without special tokens, cut before the first stop text."""
    ids = tokens[:-1] if tokens[-1] in ends else tokens
    text = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text[: min((i for s in stop if (i := text.find(s)) >= 0), default=len(text))]
