"""Questions and their prompts: GSM8K, MATH, arithmetic (toy/), and any JSONL file of questions and answers."""

import collections
from pathlib import Path
from typing import Any, TypedDict

import jinja2
import numpy as np

from east.grading import gold_answer
from east.run import files
from east.run.config import Task
from east.toy import arithmetic

Prompt = tuple[str, list[int]]  # text and token ids
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
        if question["gold"]:
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
    text = row.get("question", row.get("problem"))
    solution, answer = row.get("solution"), row.get("answer")
    if not isinstance(text, str) or (solution is None and answer is None):
        raise ValueError(
            f"{source}, row {index}: found fields {sorted(row)}, expected question (or problem) and answer "
            "(or solution); rename the fields"
        )
    if name == "gsm8k":
        solution, gold = answer, gold_answer(str(answer))
    elif name == "math" and solution is not None:
        gold = gold_answer(solution)
    else:
        gold = str(answer if answer is not None else gold_answer(str(solution)) or "")
    identity = row.get("id", row.get("unique_id"))
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


def render(tokenizer: Any, question: str, task: Task) -> Prompt:
    """Prompt text and its token ids, by the model's chat template, or by `task.prompt` where it has none.

    The ids have exactly one BOS if the tokenizer has one and its template writes it. Templates that print a date get
    the fixed `task.date`, so that prompts do not change from day to day.
    Raises ValueError without a template and `task.prompt`, when the template raises an error, for an empty prompt, and
    for a prompt that begins with two BOS.
    """
    if tokenizer.chat_template:
        messages = [{"role": "user", "content": question}]
        if task.system_prompt is not None:
            messages.insert(0, {"role": "system", "content": task.system_prompt})
        try:
            text = tokenizer.apply_chat_template(
                messages,
                tokenize=False,
                add_generation_prompt=True,
                date_string=task.date,
                strftime_now=lambda _: task.date,
            )
        except jinja2.TemplateError as error:
            raise ValueError(
                f"the chat template refuses the prompt ({error}); if it does not accept a system message, set "
                "task.system_prompt=null"
            ) from None
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    elif task.prompt is not None:
        # replace, not format: questions and prompts may have the braces of LaTeX
        text = task.prompt.replace("{system}", task.system_prompt or "").replace("{question}", question)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if tokenizer.bos_token_id is not None:
            ids = [tokenizer.bos_token_id, *ids]
    else:
        raise ValueError(
            "the tokenizer has no chat template; set task.prompt, e.g. task.prompt='Question: {question}\\nAnswer:'"
        )
    if not ids:
        raise ValueError(f"found an empty prompt for the question {question[:60]!r}; check task.prompt")
    bos = tokenizer.bos_token_id
    if bos is not None and ids[:2].count(bos) == 2:
        raise ValueError("the prompt begins with two BOS tokens; remove BOS from task.prompt or the chat template")
    return text, ids
