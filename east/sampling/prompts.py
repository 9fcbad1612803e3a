"""The questions of a split with their prompts."""

from pathlib import Path
from typing import Any, NamedTuple

from east import models, tasks
from east.run.config import Config
from east.sampling import rendering
from east.sampling.rendering import Prompt
from east.tasks import Question


class Asked(NamedTuple):
    """Questions with their prompts, one per question. dropped: the number of questions left out, by rule."""

    model: Path
    tokenizer: Any
    questions: list[Question]
    prompts: list[Prompt]
    dropped: dict[str, int]


def ask(config: Config, split: str = "train", rows: tuple[int, int] | None = None, model: Path | None = None) -> Asked:
    """The questions of a split and their prompts for a model.

    rows: range [first, last) of the split; by default that of the run file. model: folder; by default the starting
    model. Raises ValueError when questions, model or tokenizer cannot be loaded.
    """
    model = model or models.resolve(*config.starting_model)
    tokenizer = models.load_tokenizer(model, config.model.trust_remote_code)
    questions, dropped = tasks.questions(config.task, split, rows)
    prompts = [rendering.render(tokenizer, q["question"], config.task) for q in questions]
    vocabulary = models.vocabulary(model, config.model.trust_remote_code)
    for question, (_, ids) in zip(questions, prompts, strict=True):
        if max(ids) >= vocabulary:
            raise ValueError(
                f"the prompt of question {question['id']!r} has the token {max(ids)}, and the model's vocabulary is "
                f"{vocabulary}; use the tokenizer of this model"
            )
    return Asked(model, tokenizer, questions, prompts, dropped)
