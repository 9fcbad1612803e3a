"""Hugging Face models and tokenizers: found, loaded, adapted by LoRA, and written back."""

from east.models.adapter import save_and_merge, with_lora
from east.models.export import verify, write
from east.models.folder import config, context_limit, vocabulary
from east.models.policy import TOLERANCE, load, outline, token_logprobs
from east.models.resolve import resolve
from east.models.tokenizer import added_bos, end_tokens, load_tokenizer, tokenizer_digest

__all__ = [
    "TOLERANCE",
    "added_bos",
    "config",
    "context_limit",
    "end_tokens",
    "load",
    "load_tokenizer",
    "outline",
    "resolve",
    "save_and_merge",
    "token_logprobs",
    "tokenizer_digest",
    "verify",
    "vocabulary",
    "with_lora",
    "write",
]
