"""The questions of a split as a model is asked them."""

from pathlib import Path
from typing import Any, NamedTuple

from east import models, tasks
from east.run.config import Config
from east.tasks import Prompt, Question


class Asked(NamedTuple):
    """Questions and their prompts, one per question. dropped: rule to number of questions that it left out."""

    model: Path
    tokenizer: Any
    questions: list[Question]
    prompts: list[Prompt]
    dropped: dict[str, int]


def ask(config: Config, split: str = "train", rows: tuple[int, int] | None = None, model: Path | None = None) -> Asked:
    """The questions of a split (of `rows` of it) and their prompts, for `model` or the starting one."""
    model = model or models.resolve(*config.starting_model)
    tokenizer = models.load_tokenizer(model)
    questions, dropped = tasks.questions(config.task, split, rows)
    prompts = [tasks.render(tokenizer, q["question"], config.task) for q in questions]
    return Asked(model, tokenizer, questions, prompts, dropped)
