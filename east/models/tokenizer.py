"""A model's tokenizer: its end tokens, its BOS, and the hash of what decides token ids."""

from pathlib import Path
from typing import Any

import transformers

from east.models import folder
from east.run import artifacts, files


def load_tokenizer(model: Path, trust: bool = False) -> Any:
    """The tokenizer of a model folder. Raises ValueError when it cannot be loaded or has no end token.

    It may have more tokens than the model has embeddings (some models' image tokens): an id is checked where it is
    used. trust: run Python code that comes with the model.
    """
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(model, trust_remote_code=trust)
    except Exception as error:  # the tokenizer loaders raise many types
        line = " ".join(str(error).split())[:200]
        raise ValueError(f"{model}: cannot load its tokenizer ({line}); fetch or save the folder again") from None
    if tokenizer.eos_token_id is None:
        raise ValueError(f"{model}: the tokenizer has no end token; set eos_token in tokenizer_config.json")
    return tokenizer


def end_tokens(model: Path, tokenizer: Any) -> list[int]:
    """Ids that end a response: the eos token of the tokenizer and those of generation_config.json and config.json,
    sorted. Raises ValueError for one that is not a token id."""
    settings = folder.read_json(model / folder.CONFIG)
    text = settings.get("text_config")
    of_text = text.get("eos_token_id") if isinstance(text, dict) else None
    listed = {
        artifacts.GENERATION: artifacts.listed_end_tokens(model),
        folder.CONFIG: of_text if settings.get("eos_token_id") is None else settings["eos_token_id"],
    }
    ids = {tokenizer.eos_token_id}
    for name, value in listed.items():
        several = value if isinstance(value, list) else [] if value is None else [value]
        if bad := [i for i in several if type(i) is not int or i < 0]:
            raise ValueError(f"{model / name}: found eos_token_id {bad[0]!r}, expected token ids; fix the file")
        ids |= set(several)
    return sorted(ids)


def added_bos(tokenizer: Any) -> int | None:
    """The id of the BOS if the tokenizer puts one before plain text, as Llama's does; None if prompts need none.

    A bos_token alone does not say so: some models name one and were trained without it, or begin every message with it.
    """
    bos = tokenizer.bos_token_id
    return bos if bos is not None and bos in tokenizer("a")["input_ids"][:1] else None


def tokenizer_digest(tokenizer: Any) -> str:
    """Hash of what decides token ids: vocabulary, BOS and EOS."""
    return files.digest(
        {"vocabulary": tokenizer.get_vocab(), "bos": tokenizer.bos_token_id, "eos": tokenizer.eos_token_id}
    )


def same_tokens(one: Any, other: Any, texts: list[str]) -> bool:
    """Whether two tokenizers have the same chat template and give the same ids for the texts, special tokens read."""
    if one.chat_template != other.chat_template:
        return False
    return all(one(text)["input_ids"] == other(text)["input_ids"] for text in texts)
