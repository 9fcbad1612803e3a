"""A tiny model, questions and requests that the tests of sampling share."""

import json
from pathlib import Path
from typing import Any

from east import models, tasks
from east.grading import Grading
from east.run import pipeline
from east.run.config import Sampling, Task
from east.sampling import draw as draw_module
from east.sampling import imported, rendering, samples
from east.sampling.engine_interface import Drawn, Request
from east.toy import arithmetic, tiny_model
from tests import stages

TASK = Task(name="arithmetic", train_rows=(0, 12))
# many end tokens, so that an untrained model ends some of its responses
ENDS = list(range(300, 330))


def make_model(folder: Path) -> Path:
    """A random Llama whose generation_config.json lists ENDS. Its heads have size 32, vLLM's smallest on a CPU."""
    rows = arithmetic.problems("easy", "train", 200, 0)
    texts = [f"{row['question']} {row['solution']}" for row in rows]
    tiny_model.make_tiny_model(folder, texts, hidden_size=64, layers=2, heads=2, intermediate_size=64)
    settings = json.loads((folder / "generation_config.json").read_text())
    settings["eos_token_id"] = ENDS
    (folder / "generation_config.json").write_text(json.dumps(settings))
    return folder


def ends(folder: Path) -> list[int]:
    return models.end_tokens(folder, models.load_tokenizer(folder))


def settings(**values: Any) -> Sampling:
    n = 1 if values.get("temperature") == 0 else 4
    return Sampling(**{"engine": "transformers", "dtype": "float32", "max_tokens": 12, "n": n, "batch": 16, **values})


def asked(folder: Path, task: Task = TASK) -> tuple[list[dict[str, Any]], list[tuple[str, list[int]]]]:
    """Questions and rendered prompts."""
    questions, _ = tasks.questions(task, "train")
    tokenizer = models.load_tokenizer(folder)
    return questions, [rendering.render(tokenizer, row["question"], task) for row in questions]


def draw(
    folder: Path,
    questions: Any,
    prompts: Any,
    model: Path,
    settings: Sampling,
    settled: Any = None,
    answers: Any = None,
    **grading: Any,
) -> Any:
    """`draw.draw` into a folder."""
    artifact = stages.drawn(folder, settings, Grading(**grading))
    return draw_module.draw(artifact, questions, prompts, model, settings, settled, answers)


def read(folder: Path, n: int | None = None) -> Any:
    """`samples.read` of a folder, whatever it was made from."""
    return samples.read(stages.folder_of("samples", folder), n)


def import_responses(folder: Path, *arguments: Any) -> Any:
    """`imported.import_responses` into a folder."""
    artifact = stages.folder_of("samples", folder, {"engine": pipeline.IMPORTED})
    tokenizer = arguments[-1]
    return imported.import_responses(artifact, *arguments, tokenizer.eos_token_id, len(tokenizer))


def requests(folder: Path, count: int, first: int = 0) -> list[Request]:
    """One request per question of TASK, for samples [first, first + count)."""
    questions, prompts = asked(folder)
    return [
        Request(row["id"], ids, first, count, seed=1000 * index)
        for index, (row, (_, ids)) in enumerate(zip(questions, prompts, strict=True))
    ]


def by_question(drawn: Any) -> dict[str, Drawn]:
    return {d.question: d for d in drawn}
