"""Questions: GSM8K, MATH, arithmetic (toy/), and any JSONL file of questions and answers."""

import collections
import json
import math
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from east.grading import gold_answer
from east.run import files
from east.run.config import Task
from east.toy import arithmetic

HUB = {"gsm8k": "openai/gsm8k", "math": "EleutherAI/hendrycks_math"}
MATH_SUBJECTS = [
    "algebra", "counting_and_probability", "geometry", "intermediate_algebra", "number_theory", "prealgebra",
    "precalculus",
]  # fmt: skip
ARITHMETIC_SEED = 0
ARITHMETIC_MOST = 1_000_000  # problems are generated one after another: more take minutes


class Question(TypedDict):
    """A question of a task."""

    id: str
    question: str
    gold: str  # the final answer
    solution: str | None
    meta: dict[str, Any]  # level, type and subject, if the row has them


def questions(task: Task, split: str, rows: tuple[int, int] | None = None) -> tuple[list[Question], dict[str, int]]:
    """(questions of a split, number of questions left out by rule).

    split: "train" or "test". rows: range [first, last), instead of the task's. Raises ValueError for a source that is
    missing or cannot be read, rows without question or answer, a range that the source does not have, repeated ids, and
    when no question is left.
    """
    source = (task.train if split == "train" else task.test) or HUB.get(task.name)
    rows = rows or (task.train_rows if split == "train" else task.test_rows)
    if task.name == "arithmetic":
        first, last = rows or (0, 1000)
        if last > ARITHMETIC_MOST:
            raise ValueError(
                f"task.{split}_rows: found {last:,}, expected at most {ARITHMETIC_MOST:,} for arithmetic; lower it"
            )
        raw = arithmetic.problems(task.level, split, last, ARITHMETIC_SEED)
        source = f"arithmetic-{task.level}"
    elif source is None:
        raise ValueError(f"task.{split} is missing; set it to the JSONL file or hub name of the {split} questions")
    elif Path(source).exists() or source.endswith((".jsonl", ".jsonl.gz", ".json")):
        raw = list(files.read_jsonl(Path(source)))
    else:
        raw = _from_hub(task.name, source, split)
    first, last = rows or (0, len(raw))
    if not 0 <= first < last <= len(raw):
        raise ValueError(f"task: rows {first}:{last} of {source} asked for, found {len(raw)} rows; fix the range")
    order = list(range(len(raw)))
    if split == "train" and task.shuffle is not None:  # ids contain the number of the row before shuffling
        order = np.random.default_rng(task.shuffle).permutation(len(raw)).tolist()
    kept, dropped = list[Question](), collections.Counter[str]()
    for index in order[first:last]:
        question = _question(task.name, split, index, raw[index], source)
        if question["gold"].strip():
            kept.append(question)
        else:
            dropped["empty gold answer"] += 1
    ids = collections.Counter(question["id"] for question in kept)
    repeated = [i for i, count in ids.items() if count > 1]
    if repeated:
        raise ValueError(f"{source}: found the id {repeated[0]!r} in {ids[repeated[0]]} rows; make ids unique")
    if not kept:
        raise ValueError(
            f"{source}: found no question with a gold answer in rows {first}:{last}; check fields and range"
        )
    return kept, dict(dropped)


def _question(name: str, split: str, index: int, row: dict[str, Any], source: str) -> Question:
    """The question of a row in the layout of the task `name`. index: number of the row in its source."""
    text, solution = row.get("question", row.get("problem")), row.get("solution")
    where = f"{source}, row {index}"
    if not isinstance(text, str) or ("answer" not in row and solution is None):
        raise ValueError(
            f"{where}: found fields {sorted(row)}, expected question (or problem) and answer (or solution); rename the "
            "fields"
        )
    if not text.strip():
        raise ValueError(f"{where}: the question is empty; fix or remove the row")
    if name == "gsm8k":
        solution = _gold(row.get("answer"), where)
        gold = gold_answer(solution)
    elif solution is not None and (name == "math" or row.get("answer") is None):
        gold = gold_answer(_gold(solution, where))
    else:
        gold = _gold(row.get("answer"), where)
    for field, value in (("question", text), ("answer", gold), ("solution", solution), ("id", row.get("id"))):
        _check_text(value, f"{where}: its {field}")
    identity = row.get("id", row.get("unique_id"))
    if identity is not None and type(identity) not in (str, int):
        raise ValueError(f"{where}: found the id {json.dumps(identity)[:60]}, expected a text or a number; fix the row")
    meta: dict[str, Any] = {k: row[k] for k in ("level", "type", "subject") if k in row}
    identity = f"{name}/{split}/{index}" if identity is None else str(identity)
    return {"id": identity, "question": text, "gold": gold or "", "solution": solution, "meta": meta}


def _from_hub(name: str, source: str, split: str) -> list[dict[str, Any]]:
    """Rows of a data set on the hub. source: owner/name or owner/name:subset."""
    import datasets  # slow to import, and needed for hub names only

    repo, _, subset = source.partition(":")
    subsets = [subset] if subset else {"gsm8k": ["main"], "math": MATH_SUBJECTS}.get(name, [None])
    if name == "math" and not subset and repo != HUB["math"]:
        subsets = [None]
    try:
        parts = [datasets.load_dataset(repo, part, split=split) for part in subsets]
    except Exception as error:  # datasets raises many unrelated types when it finds nothing
        line = " ".join(str(error).split())[:200]
        raise ValueError(f"task.{split}: cannot load {source!r} from the hub ({line}); give a local .jsonl") from None
    return [dict(row) for part in parts for row in part]


def _gold(value: Any, where: str) -> str:
    """The text of a gold answer: a text, a number as JSON writes it, or a list of one of them.

    Raises ValueError for other values. A longer list may mean several parts or several spellings.
    """
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, str):
        return value
    if type(value) is int or (type(value) is float and math.isfinite(value)):
        return json.dumps(value)
    shown = json.dumps(value)[:60]
    raise ValueError(
        f"{where}: found the answer {shown}, expected a text or a number; write an answer of several parts as one "
        'text, e.g. "2, 3", or remove the row'
    )


def _check_text(value: Any, where: str) -> None:
    """Raise ValueError for bytes that were not UTF-8, which `read_jsonl` keeps, and for half a surrogate pair."""
    try:
        str(value).encode("utf-8")
    except UnicodeEncodeError as error:
        character = str(value)[error.start]
        raise ValueError(
            f"{where} has {character!a} at character {error.start}, which is no Unicode text; save the file as UTF-8, "
            "or remove the row"
        ) from None
