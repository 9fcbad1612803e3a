"""Draw n responses to every question into the samples folder, question by question, going on after a crash.

plan.json        what is being drawn: model, questions, engine, every setting that decides a response
questions.jsonl  what was asked
responses.jsonl  what came back, appended as it finishes
manifest.json    last: the folder is complete

With `sampling.adaptive`, a question has first, first + more, ... or n responses: the smallest number at which the
stopping rule, which is part of the plan, calls it settled. That depends on its own responses alone, so that a folder
that was killed or is topped up ends like an undisturbed one.
"""

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from east import models
from east.run import artifacts, files
from east.run.artifacts import Artifact, Manifest
from east.run.config import Sampling
from east.sampling import engines
from east.sampling.engine_interface import Request, context_limit
from east.sampling.journal import Journal
from east.sampling.samples import AskedQuestion, SampledQuestion
from east.tasks import Prompt, Question

Settled = Callable[[Iterable[SampledQuestion]], Iterable[bool]]  # of each row: are its responses enough?


def draw(
    artifact: Artifact,
    questions: list[Question],
    prompts: list[Prompt],
    model_folder: Path,
    settings: Sampling,
    settled: Settled | None = None,
) -> Manifest:
    """Draw `settings.n` responses to every question, going on where an earlier call stopped.

    settled: the stopping rule, where `settings.adaptive` is set. Questions whose prompt leaves no room for a response
    are left out and counted (summary["questions_left_out"]). Raises ValueError when the folder was made from something
    else, holds a broken line, is being written by another process, or cannot be written.
    """
    assert (settled is None) == (settings.adaptive is None)
    limit = context_limit(model_folder, settings)
    asked, left_out = asked_questions(questions, prompts, limit)
    engine = engines.resolve(settings.engine)
    inputs = {"model": artifacts.model_digest(model_folder), "questions": files.digest(asked)}
    artifact = dataclasses.replace(artifact, settings={**(artifact.settings or {}), "engine": engine}, inputs=inputs)
    begin(artifact, artifact.folder, asked)
    if artifact.complete() and (manifest := artifact.open()).summary["n"] >= settings.n:
        return manifest
    journal = Journal(artifact.folder / "responses.jsonl", [row["id"] for row in asked])
    with journal.locked() as file:
        journal.scan()
        (artifact.folder / artifacts.MANIFEST).unlink(missing_ok=True)
        draw_them, seconds, before = None, 0.0, journal.counts["tokens"]
        for requests in _passes(asked, journal, settings, settled):
            if draw_them is None:  # one engine for all passes: a later one asks some of the first one's questions
                context = min(limit, max(len(r.prompt) for r in requests) + settings.max_tokens)
                ends = models.end_tokens(model_folder, models.load_tokenizer(model_folder))
                draw_them = engines.ENGINES[engine](model_folder, settings, ends, context)
            seconds += journal.append(file, draw_them(requests), sum(r.count for r in requests))
        with files.disk_errors(artifact.folder):
            journal.sort()
            summary = {
                "n": settings.n,
                "questions": len(asked),
                **journal.counts,
                "questions_left_out": left_out,
                "drawn_by": engines.drawn_by(engine),
            }
            if settings.adaptive:
                numbers = Counter(journal.done.values())
                summary["share_saved"] = 1 - journal.counts["responses"] / (len(asked) * settings.n)
                summary["questions_with_responses"] = {str(n): numbers[n] for n in sorted(numbers)}
            drawn = journal.counts["tokens"] - before
            summary["tokens_per_second"] = round(drawn / seconds, 1) if seconds else 0.0
            return artifact.finish(summary)


def asked_questions(
    questions: list[Question], prompts: list[Prompt], limit: int | None
) -> tuple[list[AskedQuestion], dict[str, int]]:
    """Rows of questions.jsonl, and how many prompts leave no room for a single token under `limit` (None: none)."""
    rows: list[AskedQuestion] = [
        {
            "id": q["id"], "question": q["question"], "gold": q["gold"], "meta": q["meta"],
            "prompt": text, "prompt_tokens": ids,
        }
        for q, (text, ids) in zip(questions, prompts, strict=True)
    ]  # fmt: skip
    fitting = [row for row in rows if limit is None or len(row["prompt_tokens"]) < limit]
    if not fitting:
        raise ValueError(
            f"none of {len(rows)} prompts is shorter than the context of {limit} tokens; raise max_model_len"
        )
    lost = len(rows) - len(fitting)
    return fitting, {f"prompt of {limit} tokens or more": lost} if lost else {}


def begin(artifact: Artifact, folder: Path, asked: list[AskedQuestion]) -> None:
    """Write plan and questions to the folder (the artifact's, or its scratch), or check that its plan is this one."""
    dataclasses.replace(artifact, folder=folder).claim()
    with files.disk_errors(folder):
        if not (folder / "questions.jsonl").exists():
            files.write_text(folder / "questions.jsonl", "".join(json.dumps(row) + "\n" for row in asked))


def question_seed(seed: int, question: str) -> int:
    """Seed of a question, below 2^62 so that adding a sample number overflows no 64-bit integer."""
    text = f"{seed}\n{question}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 2


def _passes(
    asked: list[AskedQuestion], journal: Journal, settings: Sampling, settled: Settled | None
) -> Iterator[list[Request]]:
    """What is still to be drawn, one request per question: all at once, or with a stopping rule step by step.

    A question is between two steps only where an earlier call had a lower n: it was not settled then.
    """
    rows, done = asked, journal.done
    while rows := [row for row in rows if done[row["id"]] < settings.n]:
        if settled:
            judged = [row for row in rows if _next_step(done[row["id"]] - 1, settings) == done[row["id"]]]
            verdicts = zip(judged, settled(map(journal.question, judged)), strict=True)
            enough = {row["id"] for row, yes in verdicts if yes}
            rows = [row for row in rows if row["id"] not in enough]
        if rows:
            yield [
                Request(
                    question=row["id"],
                    prompt=row["prompt_tokens"],
                    first=done[row["id"]],
                    count=_next_step(done[row["id"]], settings) - done[row["id"]],
                    seed=question_seed(settings.seed, row["id"]),
                )
                for row in rows
            ]


def _next_step(done: int, settings: Sampling) -> int:
    """The smallest number of responses above `done` at which drawing may stop, at most n."""
    if settings.adaptive is None:
        return settings.n
    first, more = settings.adaptive.first, settings.adaptive.more
    return min(settings.n, first + more * max(0, (done - first) // more + 1))
