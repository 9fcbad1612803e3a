"""Imports responses that were drawn elsewhere (`sampling.responses`) into a samples folder."""

import dataclasses
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import tqdm

from east.run import files
from east.run.artifacts import Artifact, Manifest
from east.sampling.draw import asked_questions, begin
from east.sampling.engine_interface import thought_tokens
from east.sampling.rendering import Prompt
from east.sampling.samples import response_line
from east.tasks import Question


def import_responses(
    artifact: Artifact,
    path: Path,
    questions: list[Question],
    prompts: list[Prompt],
    tokenizer: Any,
    end: int,
    vocabulary: int,
) -> Manifest:
    """Import a JSONL of {"question": id, "response": text, "finish_reason": "stop" | "length"} into a samples folder.

    Responses are tokenised here, once for all stages. The token `end` (`rendering.end_of_turn`) is added if and only if
    the response stopped by itself, which is assumed without finish_reason. Left out and counted are unknown questions,
    empty responses, and questions without a response. Raises ValueError for rows with other fields or tokens that are
    not below `vocabulary`, and when nothing is left.
    """
    asked, _ = asked_questions(questions, prompts, None)
    if not path.is_file():
        raise ValueError(f"sampling.responses: found no file {path}; give a .jsonl or .jsonl.gz")
    inputs = {"responses": files.file_digest(path), "tokenizer": files.digest([tokenizer.get_vocab(), end])}
    artifact = dataclasses.replace(artifact, inputs={**inputs, "questions": files.digest(asked)})
    if artifact.complete():
        return artifact.open()
    responses: dict[str, list[tuple[list[int], str, str]]] = {row["id"]: [] for row in asked}
    dropped, assumed = Counter[str](), 0
    marks = {text: token for token, text in thought_tokens(tokenizer).items()}
    rows = tqdm.tqdm(files.read_jsonl(path), desc="import", unit=" responses")
    for number, row in enumerate(rows, 1):
        identity, text, reason = _checked(row, f"{path}, row {number}")
        if identity not in responses:
            dropped["unknown question"] += 1
        elif not text.strip():
            dropped["empty response"] += 1
        else:
            tokens = _tokens(tokenizer, text, marks)
            if not tokens:  # the tokenizer has none of its characters
                dropped["empty response"] += 1
                continue
            assumed += "finish_reason" not in row
            tokens = tokens + [end] if reason == "stop" else tokens
            if max(tokens) >= vocabulary:
                raise ValueError(
                    f"{path}, row {number}: its text has the token {max(tokens)}, and the model's vocabulary is "
                    f"{vocabulary}; use the tokenizer of this model, or remove the row"
                )
            responses[identity].append((tokens, text, reason))
    kept = [row for row in asked if responses[row["id"]]]
    if not kept:
        raise ValueError(
            f"{path}: found no response to any of {len(asked)} questions ({dict(dropped)}); check its question ids"
        )
    artifact.claim()  # raises if the folder has responses that were drawn, which must not be overwritten
    with artifact.writing() as (scratch, summary):
        begin(artifact, scratch, kept)
        lines = [response_line(row["id"], 0, *map(list, zip(*responses[row["id"]], strict=True))) for row in kept]
        files.write_jsonl(scratch / "responses.jsonl", lines)
        imported = [response for row in kept for response in responses[row["id"]]]
        summary |= {"n": max(len(responses[row["id"]]) for row in kept), "questions": len(kept)}
        summary |= {"responses": len(imported), "tokens": sum(len(tokens) for tokens, _, _ in imported)}
        summary["truncated"] = sum(reason == "length" for _, _, reason in imported)
        summary["responses_left_out"], summary["finish_reason_assumed_stop"] = dict(dropped), assumed
        left_out = len(asked) - len(kept)
        summary["questions_left_out"] = {"no response": left_out} if left_out else {}
    return artifact.open()


def _tokens(tokenizer: Any, text: str, marks: dict[str, int]) -> list[int]:
    """Token ids of a response. The names of special tokens in it are tokenised as text, but for the marks of thoughts,
    which the model writes as tokens."""
    parts = re.split("(" + "|".join(map(re.escape, marks)) + ")", text) if marks else [text]
    tokens = list[int]()
    for part in parts:
        if part in marks:
            tokens.append(marks[part])
        elif part:
            tokens += tokenizer(part, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return tokens


def _checked(row: dict[str, Any], where: str) -> tuple[str, str, str]:
    """(question id, text, finish reason) of a row. Raises ValueError for other fields or values."""
    identity, text, reason = row.get("question"), row.get("response"), row.get("finish_reason", "stop")
    if identity is None or not isinstance(text, str) or reason not in ("stop", "length"):
        raise ValueError(
            f"{where}: found {json.dumps(row)[:80]}, expected question (id), response (text) "
            'and, if given, finish_reason "stop" or "length"; fix the row'
        )
    # tokenizers do not accept half of a surrogate pair: it is replaced
    return str(identity), text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"), reason
