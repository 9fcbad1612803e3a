"""Make an untrained tiny model and worked solutions to teach it by: stand-ins for a pretrained model.

The solutions enter the pipeline as responses made elsewhere (`sampling.responses`), at `grade`.
"""

import argparse
from pathlib import Path

from east import tasks
from east.run import files
from east.run.config import Config
from east.toy import tiny_model

EXAMPLE = "east tiny --config configs/quickstart_teach.yaml"


def run(config: Config, arguments: argparse.Namespace) -> None:
    """Write the model folder `model.path` and the JSONL `sampling.responses`, where they are missing.

    Raises ValueError when the task has no worked solutions or no file is named for them.
    """
    questions, _ = tasks.questions(config.task, "train")
    if not all(q["solution"] for q in questions):
        raise ValueError(f"task.name: found {config.task.name} without solutions; teach by task.name=arithmetic")
    if config.sampling.responses is None:
        raise ValueError("sampling.responses is missing; name the JSONL that the worked solutions go to")
    folder, path = Path(config.model.path), Path(config.sampling.responses)
    if not (folder / "config.json").exists():
        tiny_model.make_tiny_model(folder, [f"{q['question']}\n{q['solution']}" for q in questions])
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_jsonl(path, ({"question": q["id"], "response": q["solution"]} for q in questions))
    print(f"tiny: {folder} (untrained), {path} ({len(questions)} worked solutions)")
