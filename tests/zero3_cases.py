"""The models and sequences of test_zero3.py, built identically in the test and on every rank."""

from collections.abc import Callable

import peft
import torch

from tests.yardstick import random_sequences, tiny_llama

COEFFICIENTS = torch.tensor([1.0, -0.1, 3.0, 0.2, -2.0, 0.7, 0.5, -1.0]) / 100


def sequences() -> tuple[list, list]:
    """Four prompts, each shared by two of eight completions of different lengths."""
    prompts, _ = random_sequences(7, [9, 1, 17, 4], [1] * 4)
    _, completions = random_sequences(8, [1] * 8, [5, 21, 1, 8, 2, 30, 11, 9])
    return [p for p in prompts for _ in (0, 1)], completions


def _checkpointed() -> torch.nn.Module:
    model = tiny_llama("packed")
    model.gradient_checkpointing_enable({"use_reentrant": False})
    return model.train()


def _lora(**kwargs) -> torch.nn.Module:
    torch.manual_seed(11)
    config = peft.LoraConfig(r=4, lora_alpha=8, init_lora_weights=False, target_modules=["q_proj"], **kwargs)
    return peft.get_peft_model(tiny_llama("packed", tied=False), config)


CASES: dict[str, Callable[[], torch.nn.Module]] = {
    "tied": lambda: tiny_llama("packed"),
    "untied": lambda: tiny_llama("packed", tied=False),
    "checkpointed": _checkpointed,
    "lora": _lora,
    "lora_with_trained_head": lambda: _lora(modules_to_save=["lm_head"]),
}
