"""The interface of sampling engines: their requests and results.

An engine is a callable that takes requests and yields each of them when it is finished, in completion order. Sample k
of a question is drawn with the seed `request.seed + k`, so that a response depends neither on its batch nor on how the
samples are divided into requests (except for rounding, which may differ between batched kernels).

Token contract: the tokens of a response end with an end token if and only if the response ended by itself. A response
that was cut by a length limit has no end token; one that was ended by a stop text ends with the tokens of that text.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from east import models
from east.grading import is_mark
from east.run.config import Sampling


class Request(NamedTuple):
    """A request for samples [first, first + count) of one question. seed: of the question."""

    question: str  # its id
    prompt: list[int]  # token ids
    first: int
    count: int  # type: ignore[assignment]  # hides tuple.count
    seed: int


class Drawn(NamedTuple):
    """A finished request; the lists have one entry per sample."""

    question: str  # its id
    first: int
    tokens: list[list[int]]
    text: list[str]
    finish_reason: list[str]  # "stop" or "length"


Engine = Callable[[Iterable[Request]], Iterator[Drawn]]


def context_limit(model_folder: Path, settings: Sampling, trust: bool = False) -> int:
    """Largest length of prompt and response in tokens: `max_model_len`, or the model's own limit.

    Raises ValueError when the model names no limit and max_model_len is not set, or when it exceeds the model's limit.
    """
    limit = models.context_limit(model_folder, trust) or settings.max_model_len
    if limit is None:
        raise ValueError(f"{model_folder}: config.json names no max_position_embeddings; set sampling.max_model_len")
    if settings.max_model_len and settings.max_model_len > limit:
        raise ValueError(
            f"sampling.max_model_len: found {settings.max_model_len}, expected at most the model's limit of {limit}; "
            "lower it"
        )
    return settings.max_model_len or limit


def thought_tokens(tokenizer: Any) -> dict[int, str]:
    """The special tokens that are marks of thoughts, by id: decoding without special tokens would lose them."""
    return {
        id_: token.content
        for id_, token in tokenizer.added_tokens_decoder.items()
        if token.special and is_mark(token.content)
    }


def _decoded(tokenizer: Any, ids: list[int]) -> str:
    text: str = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text


def response_text(tokenizer: Any, tokens: list[int], ends: set[int], stop: list[str]) -> str:
    """Text of a response, without special tokens and without what begins at the first stop text. ends: end tokens.

    The marks of thoughts (</think>) are kept: some tokenizers have them as special tokens.
    """
    ids = tokens[:-1] if tokens[-1] in ends else tokens
    parts, start = list[str](), 0
    marks = thought_tokens(tokenizer)
    for place in [i for i, token in enumerate(ids) if token in marks] if marks else []:
        parts += [_decoded(tokenizer, ids[start:place]), marks[ids[place]]]
        start = place + 1
    text = "".join([*parts, _decoded(tokenizer, ids[start:])])
    return text[: min((i for s in stop if (i := text.find(s)) >= 0), default=len(text))]
