"""Draw n responses to every question into the samples folder, and continue after a crash.

plan.json        what is drawn: model, questions, engine, every setting that decides a response
questions.jsonl  the questions and their prompts
responses.jsonl  the responses, appended when they are finished
manifest.json    written last: the folder is complete

With `sampling.adaptive`, a question gets first, first + more, ... or n responses: the smallest of these numbers at
which the stopping rule says that they are enough. The rule is part of the plan and reads only the question's own
responses, so that a run that was killed, or one whose n was raised later, ends with the same responses.
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
from east.sampling.first_answers import ENOUGH, FirstAnswers
from east.sampling.journal import Journal
from east.sampling.rendering import Prompt
from east.sampling.samples import AskedQuestion, SampledQuestion
from east.tasks import Question

Settled = Callable[[Iterable[SampledQuestion]], Iterable[bool]]  # for each question: are its responses enough?


def draw(
    artifact: Artifact,
    questions: list[Question],
    prompts: list[Prompt],
    model_folder: Path,
    settings: Sampling,
    settled: Settled | None = None,
    answers: FirstAnswers | None = None,
    trust: bool = False,
) -> Manifest:
    """Draw `settings.n` responses to every question, continuing where an earlier call stopped.

    prompts: one per question. settled: the stopping rule if `settings.adaptive` is set, else None. answers: watches
    the first responses, unless an earlier call has drawn enough of them. trust: run Python code that comes with the
    model. Questions whose prompt leaves no room for a
    response are left out and counted (summary["questions_left_out"]). Raises ValueError when the folder was made from
    something else, has a broken line, is being written by another process, or cannot be written.
    """
    assert (settled is None) == (settings.adaptive is None)
    limit = context_limit(model_folder, settings, trust)
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
        respond, seconds, before = None, 0.0, journal.counts["tokens"]
        if journal.counts["responses"] - journal.counts["truncated"] >= ENOUGH:
            answers = None
        for requests in _passes(asked, journal, settings, settled):
            if respond is None:  # one engine for all passes: later passes have some of the questions of the first one
                context = min(limit, max(len(r.prompt) for r in requests) + settings.max_tokens)
                ends = models.end_tokens(model_folder, models.load_tokenizer(model_folder, trust))
                respond = engines.ENGINES[engine](model_folder, settings, ends, context, trust)
            drawn = answers.watch(respond(requests)) if answers else respond(requests)
            seconds += journal.append(file, drawn, sum(r.count for r in requests))
        if answers:
            answers.end()
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
            tokens = journal.counts["tokens"] - before
            summary["tokens_per_second"] = round(tokens / seconds, 1) if seconds else 0.0
            return artifact.finish(summary)


def asked_questions(
    questions: list[Question], prompts: list[Prompt], limit: int | None
) -> tuple[list[AskedQuestion], dict[str, int]]:
    """(rows of questions.jsonl, counts of what was left out by rule).

    limit: largest length of prompt and response in tokens; prompts of that length or more are left out (None: no
    limit). Raises ValueError when no question is left.
    """
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
            f"none of {len(rows)} prompts is shorter than the context of {limit} tokens; raise sampling.max_model_len"
        )
    left_out = len(rows) - len(fitting)
    return fitting, {f"prompt of {limit} tokens or more": left_out} if left_out else {}


def begin(artifact: Artifact, folder: Path, asked: list[AskedQuestion]) -> None:
    """Write plan.json and questions.jsonl, or compare with the plan of a folder that has one.

    folder: that of the artifact, or the temporary one in which it is written. Raises ValueError when the plans differ.
    """
    dataclasses.replace(artifact, folder=folder).claim()
    with files.disk_errors(folder):
        if not (folder / "questions.jsonl").exists():
            files.write_text(folder / "questions.jsonl", "".join(json.dumps(row) + "\n" for row in asked))


def question_seed(seed: int, question: str) -> int:
    """Seed of a question, from the seed of the run and the question's id. It is below 2^62, so that a sample number can
    be added to it in 64-bit integers."""
    text = f"{seed}\n{question}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 2


def _passes(
    asked: list[AskedQuestion], journal: Journal, settings: Sampling, settled: Settled | None
) -> Iterator[list[Request]]:
    """The requests that are still to be drawn, one per question: all of them in one pass, or with a stopping rule one
    step of responses per pass.

    A question has a number of responses between two steps only if an earlier call had a lower n. The rule is not
    applied then, because it was not met at the step before.
    """
    rows, done = asked, journal.done
    while rows := [row for row in rows if done[row["id"]] < settings.n]:
        if settled:
            at_step = [row for row in rows if _next_step(done[row["id"]] - 1, settings) == done[row["id"]]]
            decisions = zip(at_step, settled(map(journal.question, at_step)), strict=True)
            enough = {row["id"] for row, is_settled in decisions if is_settled}
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
