"""The samples folder: what was asked, what came back; drawn question by question and safe against kill -9.

plan.json        what is being drawn: model, questions, engine, every setting that decides a response
questions.jsonl  id, question, gold, meta, prompt, prompt_tokens
responses.jsonl  {"question" (its id), "first", "tokens": [[..]], "text": [..], "finish_reason": [..]}: a
                 line per request, appended as it finishes; at the end in the order of the questions
manifest.json    last: the folder is complete

n is not part of the plan: a raised n draws what is missing, a lowered n reads the first n of each question.

With `adaptive`, a question has first, first + more, ... or n responses: the smallest number at which the stopping
rule, which is part of the plan, finds it settled. That depends on its own responses alone, so that a folder that
was killed or is topped up ends like an undisturbed one.
"""

import contextlib
import fcntl
import hashlib
import itertools
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import tqdm

from east import models
from east.run import artifacts, files
from east.run.artifacts import Manifest
from east.run.config import Sampling
from east.sampling import engines
from east.sampling.engine_interface import Drawn, Request, context_limit

KIND = "samples"
MAKE = "python sample.py --config X"
IMPORTED = "imported"  # the engine of responses made elsewhere


class StoppingRule(NamedTuple):
    """Adaptive sampling: `settled` says of each row, as `read` yields them, whether its responses are enough.

    settings: what decides that beside sampling.adaptive, for the plan.
    """

    settings: dict[str, Any]
    settled: Callable[[Iterable[dict[str, Any]]], Iterable[bool]]


def draw(
    folder: Path,
    questions: list[dict[str, Any]],
    prompts: list[tuple[str, list[int]]],
    model_folder: Path,
    settings: Sampling,
    rule: StoppingRule | None = None,
) -> Manifest:
    """Draw `settings.n` responses to every question into `folder`, going on where an earlier call stopped.

    prompts: text and token ids, one per question. rule: where `settings.adaptive` is set. Questions whose
    prompt leaves no room for a response are left out and counted (summary["questions_left_out"]). Raises
    ValueError when the folder was made from something else, holds a broken line, is being written by another
    process, or cannot be written.
    """
    assert (rule is None) == (settings.adaptive is None)
    limit = context_limit(model_folder, settings)
    asked, left_out = _fitting(questions, prompts, limit)
    engine = engines.resolve(settings.engine)
    config = {"engine": engine, **plan(settings, rule)}
    inputs = {"model": artifacts.model_digest(model_folder), "questions": files.digest(asked)}
    _begin(folder, config, inputs, asked)
    if artifacts.reusable(folder, KIND, config, inputs, MAKE):
        manifest = artifacts.read(folder, KIND, MAKE)
        if manifest.summary["n"] >= settings.n:
            return manifest
    with _locked(folder / "responses.jsonl") as file:
        book = _Book(folder / "responses.jsonl", [row["id"] for row in asked])
        book.scan()
        (folder / artifacts.MANIFEST).unlink(missing_ok=True)
        draw_them, seconds, before = None, 0.0, book.counts["tokens"]
        for requests in _passes(asked, book, settings, rule):
            if draw_them is None:  # one engine for all passes: a later one asks some of the first one's questions
                context = min(limit, max(len(r.prompt) for r in requests) + settings.max_tokens)
                ends = models.end_tokens(model_folder, models.load_tokenizer(model_folder))
                draw_them = engines.ENGINES[engine](model_folder, settings, ends, context)
            seconds += _append(file, book, draw_them(requests), sum(r.count for r in requests))
        with files.disk_errors(folder):
            book.sort()
            summary = {
                "n": settings.n,
                "questions": len(asked),
                **book.counts,
                "questions_left_out": left_out,
                "drawn_by": engines.drawn_by(engine),
            }
            if settings.adaptive:
                numbers = Counter(book.done.values())
                summary["share_saved"] = 1 - book.counts["responses"] / (len(asked) * settings.n)
                summary["questions_with_responses"] = {str(n): numbers[n] for n in sorted(numbers)}
            summary["tokens_per_second"] = round((book.counts["tokens"] - before) / seconds, 1) if seconds else 0.0
            return artifacts.complete(folder, KIND, config, inputs, summary)


def plan(settings: Sampling, rule: StoppingRule | None) -> dict[str, Any]:
    """What decides a response beside engine, model and question."""
    if settings.adaptive is None or rule is None:
        return settings.plan
    return {**settings.plan, "adaptive": {**settings.adaptive.model_dump(), "grading": rule.settings}}


def hold(folder: Path, settings: Sampling, rule: StoppingRule | None, model: str | None = None) -> Manifest:
    """The manifest of a samples folder that holds what the run asks for, drawn from `model` where it is given.

    Which engine drew does not matter. Raises ValueError where the folder holds something else.
    """
    manifest = artifacts.read(folder, KIND, MAKE)
    found = {k: v for k, v in manifest.config.items() if k != "engine" or v == IMPORTED}
    expected = {"engine": IMPORTED} if settings.responses else plan(settings, rule)
    if model and not settings.responses:
        found, expected = {**found, "model": manifest.inputs.get("model")}, {**expected, "model": model}
    if found != expected:
        raise ValueError(
            f"{folder} holds other responses: {artifacts.difference(found, expected)}; give the run these settings, "
            f"or choose another `run` and sample with `{MAKE}`"
        )
    return manifest


def read(folder: Path, n: int | None = None) -> Iterator[dict[str, Any]]:
    """Questions in order, each with its first n responses (None: the folder's n), in bounded memory.

    Yields {"question" (its id), "gold", "meta", "prompt_tokens", "sample": [..], "tokens": [[..]],
    "text": [..], "finish_reason": [..]}. Imported and adaptive folders may hold fewer than n of a question.
    Raises ValueError when the folder is incomplete or holds fewer than n.
    """
    manifest = artifacts.read(folder, KIND, MAKE)
    n = n or manifest.summary["n"]
    if n > manifest.summary["n"]:
        raise ValueError(f"{folder}: found n={manifest.summary['n']}, expected {n}; draw the others with `{MAKE}`")
    lines = files.read_jsonl(folder / "responses.jsonl")
    groups = itertools.groupby(lines, key=lambda line: line["question"])
    for question, (identity, parts) in zip(files.read_jsonl(folder / "questions.jsonl"), groups, strict=True):
        assert question["id"] == identity, (question["id"], identity)
        yield _row(question, parts, n)


def _row(question: dict[str, Any], parts: Iterable[dict[str, Any]], n: int) -> dict[str, Any]:
    """A question with the first n of its responses, whose lines are `parts`."""
    drawn: dict[str, list[Any]] = {"tokens": [], "text": [], "finish_reason": []}
    for part in parts:
        for key, values in drawn.items():
            values += part[key]
    drawn = {key: values[:n] for key, values in drawn.items()}
    row = {"question": question["id"], **{key: question[key] for key in ("gold", "meta", "prompt_tokens")}}
    return {**row, "sample": list(range(len(drawn["tokens"]))), **drawn}


def question_seed(seed: int, question: str) -> int:
    """Seed of a question, below 2^62 so that adding a sample number overflows no 64-bit integer."""
    text = f"{seed}\n{question}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 2


def import_responses(
    folder: Path,
    path: Path,
    questions: list[dict[str, Any]],
    prompts: list[tuple[str, list[int]]],
    tokenizer: Any,
) -> Manifest:
    """Responses made elsewhere, JSONL: {"question": id, "response": text, "finish_reason": "stop" | "length"}

    Tokenised here, once; the end token follows iff the response stopped by itself (which is assumed where
    finish_reason is absent). Left out and counted: unknown questions, empty responses, questions without a
    response. Raises ValueError for rows of another shape or when nothing is left.
    """
    config = {"engine": IMPORTED}
    asked, _ = _fitting(questions, prompts, None)
    if not path.is_file():
        raise ValueError(f"sampling.responses: found no file {path}; give a .jsonl or .jsonl.gz")
    inputs = {"responses": files.file_digest(path), "tokenizer": files.digest(tokenizer.get_vocab())}
    inputs["questions"] = files.digest(asked)
    if artifacts.reusable(folder, KIND, config, inputs, MAKE):
        return artifacts.read(folder, KIND, MAKE)
    found: dict[str, list[tuple[list[int], str, str]]] = {row["id"]: [] for row in asked}
    dropped, assumed = Counter[str](), 0
    rows = tqdm.tqdm(files.read_jsonl(path), desc="import", unit=" responses")
    for number, row in enumerate(rows, 1):
        identity, text, reason = _imported(row, f"{path}, row {number}")
        if identity not in found:
            dropped["unknown question"] += 1
        elif not text.strip():
            dropped["empty response"] += 1
        else:
            assumed += "finish_reason" not in row
            # hostile text may spell special tokens: they stay text
            tokens = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
            tokens = tokens + [tokenizer.eos_token_id] if reason == "stop" else tokens
            found[identity].append((tokens, text, reason))
    kept = [row for row in asked if found[row["id"]]]
    if not kept:
        raise ValueError(f"{path}: no response to any of {len(asked)} questions ({dict(dropped)}); check ids")
    artifacts.claim(folder, config, inputs, MAKE)  # drawn responses that stand here are not written over
    with artifacts.writing(folder, KIND, config, inputs) as (scratch, summary):
        _begin(scratch, config, inputs, kept)
        lines = [_line(row["id"], 0, *zip(*found[row["id"]], strict=True)) for row in kept]
        files.write_jsonl(scratch / "responses.jsonl", lines)
        every = [response for row in kept for response in found[row["id"]]]
        summary |= {"n": max(len(found[row["id"]]) for row in kept), "questions": len(kept)}
        summary |= {"responses": len(every), "tokens": sum(len(tokens) for tokens, _, _ in every)}
        summary["truncated"] = sum(reason == "length" for _, _, reason in every)
        summary["responses_left_out"], summary["finish_reason_assumed_stop"] = dict(dropped), assumed
        summary["questions_left_out"] = {"no response": len(asked) - len(kept)} if len(asked) > len(kept) else {}
    return artifacts.read(folder, KIND, MAKE)


def _imported(row: dict[str, Any], where: str) -> tuple[str, str, str]:
    identity, text, reason = row.get("question"), row.get("response"), row.get("finish_reason", "stop")
    if identity is None or not isinstance(text, str) or reason not in ("stop", "length"):
        raise ValueError(
            f"{where}: found {json.dumps(row)[:80]}, expected question (id), response (text) "
            'and, if given, finish_reason "stop" or "length"'
        )
    # half of a surrogate pair is no text to a tokenizer
    return str(identity), text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"), reason


def _fitting(
    questions: list[dict[str, Any]], prompts: list[tuple[str, list[int]]], limit: int | None
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Rows of questions.jsonl, and how many prompts leave no room for a single token under `limit`."""
    rows = [
        {**{key: q[key] for key in ("id", "question", "gold", "meta")}, "prompt": text, "prompt_tokens": ids}
        for q, (text, ids) in zip(questions, prompts, strict=True)
    ]
    fitting = [row for row in rows if limit is None or len(row["prompt_tokens"]) < limit]
    if not fitting:
        raise ValueError(
            f"none of {len(rows)} prompts is shorter than the context of {limit} tokens; raise max_model_len"
        )
    lost = len(rows) - len(fitting)
    return fitting, {f"prompt of {limit} tokens or more": lost} if lost else {}


def _passes(
    asked: list[dict[str, Any]], book: "_Book", settings: Sampling, rule: StoppingRule | None
) -> Iterator[list[Request]]:
    """What is still to be drawn, one request per question: all at once, or with a rule step by step.

    A question stands between two steps only where an earlier call had a lower n: it was not settled then.
    """
    rows, done = asked, book.done
    while rows := [row for row in rows if done[row["id"]] < settings.n]:
        if rule:
            judged = [row for row in rows if _next_step(done[row["id"]] - 1, settings) == done[row["id"]]]
            verdicts = zip(judged, rule.settled(map(book.row, judged)), strict=True)
            settled = {row["id"] for row, yes in verdicts if yes}
            rows = [row for row in rows if row["id"] not in settled]
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


def _begin(folder: Path, config: dict[str, Any], inputs: dict[str, str], asked: list[dict[str, Any]]) -> None:
    """Write plan and questions, or check that the folder's plan is this one."""
    artifacts.claim(folder, config, inputs, MAKE)
    with files.disk_errors(folder):
        if not (folder / "questions.jsonl").exists():
            files.write_text(folder / "questions.jsonl", "".join(json.dumps(row) + "\n" for row in asked))


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[BinaryIO]:
    """The file, open for appending by this process alone; unbuffered, so that every write is out at once."""
    with files.disk_errors(path):
        file = path.open("ab", buffering=0)
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{path}: another process is drawing into it; wait for it or stop it") from None
        except OSError as error:
            raise ValueError(
                f"{path}: its file system cannot lock files ({error.strerror}); choose another `run` folder, or mount "
                "it with locks"
            ) from None
        yield file  # type: ignore[misc]


def _append(file: BinaryIO, book: "_Book", drawn: Iterable[Drawn], total: int) -> float:
    """Append finished requests; seconds."""
    start, tokens = time.perf_counter(), 0
    with tqdm.tqdm(total=total, desc="sampling", unit=" responses", smoothing=0) as bar:
        for request in drawn:
            line = _line(*request)
            data = memoryview(json.dumps(line).encode("ascii") + b"\n")
            size = len(data)
            with files.disk_errors(book.path):
                while data:
                    data = data[file.write(data) :]
            book.add(line, size)
            tokens += sum(map(len, request.tokens))
            bar.set_postfix_str(f"{tokens / (time.perf_counter() - start):.0f} tokens/s", refresh=False)
            bar.update(len(request.tokens))
    with files.disk_errors(book.path):
        files.flush(file)
    return time.perf_counter() - start


class _Book:
    """What responses.jsonl holds: `done` samples of each question, counts, and where each line stands."""

    def __init__(self, path: Path, questions: list[str]):
        self.path, self.end = path, 0
        self.done = dict.fromkeys(questions, 0)
        self.counts = {"responses": 0, "tokens": 0, "truncated": 0}
        self.lines: dict[str, list[tuple[int, int]]] = {q: [] for q in questions}  # of each: offset, bytes

    def scan(self) -> None:
        """Enter every line; a torn last one, left by a kill, is cut off. ValueError for broken lines."""
        with self.path.open("rb") as file:
            for number, text in enumerate(file, 1):
                if not text.endswith(b"\n"):
                    os.truncate(self.path, self.end)
                    break
                try:
                    self.add(json.loads(text), len(text))
                except (ValueError, KeyError, TypeError):
                    raise ValueError(
                        f"{self.path}, line {number}: not a line of responses; remove the line and run "
                        f"`{MAKE}`, which draws again what it held"
                    ) from None

    def add(self, line: dict[str, Any], size: int) -> None:
        """Enter the line that stands at the end of the file."""
        question = line["question"]
        if line["first"] != self.done[question]:
            raise ValueError(f"samples of {question} from {line['first']}, expected {self.done[question]}")
        self.lines[question].append((self.end, size))
        self.end += size
        self.done[question] += len(line["tokens"])
        self.counts["responses"] += len(line["tokens"])
        self.counts["tokens"] += sum(map(len, line["tokens"]))
        self.counts["truncated"] += line["finish_reason"].count("length")

    def row(self, question: dict[str, Any]) -> dict[str, Any]:
        """A question with its responses so far, as `read` yields it."""
        parts = []
        with self.path.open("rb") as file:
            for offset, size in self.lines[question["id"]]:
                file.seek(offset)
                parts.append(json.loads(file.read(size)))
        return _row(question, parts, self.done[question["id"]])

    def sort(self) -> None:
        """Put the lines into the order of the questions: the file then tells not which finished first."""
        ordered = [line for lines in self.lines.values() for line in lines]
        if ordered == sorted(ordered):
            return
        scratch = self.path.with_name(".responses.jsonl.sorted")
        with self.path.open("rb") as source, scratch.open("wb") as target:
            for offset, size in ordered:
                source.seek(offset)
                target.write(source.read(size))
            files.flush(target)
        os.replace(scratch, self.path)


def _line(question: str, first: int, tokens: Any, text: Any, finish_reason: Any) -> dict[str, Any]:
    return {
        "question": question,
        "first": first,
        "tokens": tokens,
        "text": text,
        "finish_reason": finish_reason,
    }
