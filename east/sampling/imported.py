"""Responses made elsewhere become a samples folder: `sampling.responses`, read by `east grade`."""

import dataclasses
import json
from collections import Counter
from pathlib import Path
from typing import Any

import tqdm

from east.run import files
from east.run.artifacts import Artifact, Manifest
from east.sampling.draw import asked_questions, begin
from east.sampling.samples import response_line
from east.tasks import Prompt, Question


def import_responses(
    artifact: Artifact, path: Path, questions: list[Question], prompts: list[Prompt], tokenizer: Any
) -> Manifest:
    """Read a JSONL of {"question": id, "response": text, "finish_reason": "stop" | "length"} into a samples folder.

    Tokenised here, once; the end token follows iff the response stopped by itself (which is assumed where
    finish_reason is absent). Left out and counted: unknown questions, empty responses, questions without a
    response. Raises ValueError for rows of another shape or when nothing is left.
    """
    asked, _ = asked_questions(questions, prompts, None)
    if not path.is_file():
        raise ValueError(f"sampling.responses: found no file {path}; give a .jsonl or .jsonl.gz")
    inputs = {"responses": files.file_digest(path), "tokenizer": files.digest(tokenizer.get_vocab())}
    artifact = dataclasses.replace(artifact, inputs={**inputs, "questions": files.digest(asked)})
    if artifact.complete():
        return artifact.open()
    responses: dict[str, list[tuple[list[int], str, str]]] = {row["id"]: [] for row in asked}
    dropped, assumed = Counter[str](), 0
    rows = tqdm.tqdm(files.read_jsonl(path), desc="import", unit=" responses")
    for number, row in enumerate(rows, 1):
        identity, text, reason = _checked(row, f"{path}, row {number}")
        if identity not in responses:
            dropped["unknown question"] += 1
        elif not text.strip():
            dropped["empty response"] += 1
        else:
            assumed += "finish_reason" not in row
            # hostile text may spell special tokens: they stay text
            tokens = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
            tokens = tokens + [tokenizer.eos_token_id] if reason == "stop" else tokens
            responses[identity].append((tokens, text, reason))
    kept = [row for row in asked if responses[row["id"]]]
    if not kept:
        raise ValueError(f"{path}: no response to any of {len(asked)} questions ({dict(dropped)}); check ids")
    artifact.claim()  # drawn responses in this folder are not written over
    with artifact.writing() as (scratch, summary):
        begin(artifact, scratch, kept)
        lines = [response_line(row["id"], 0, *map(list, zip(*responses[row["id"]], strict=True))) for row in kept]
        files.write_jsonl(scratch / "responses.jsonl", lines)
        every = [response for row in kept for response in responses[row["id"]]]
        summary |= {"n": max(len(responses[row["id"]]) for row in kept), "questions": len(kept)}
        summary |= {"responses": len(every), "tokens": sum(len(tokens) for tokens, _, _ in every)}
        summary["truncated"] = sum(reason == "length" for _, _, reason in every)
        summary["responses_left_out"], summary["finish_reason_assumed_stop"] = dict(dropped), assumed
        left_out = len(asked) - len(kept)
        summary["questions_left_out"] = {"no response": left_out} if left_out else {}
    return artifact.open()


def _checked(row: dict[str, Any], where: str) -> tuple[str, str, str]:
    """(question id, text, finish reason) of a row."""
    identity, text, reason = row.get("question"), row.get("response"), row.get("finish_reason", "stop")
    if identity is None or not isinstance(text, str) or reason not in ("stop", "length"):
        raise ValueError(
            f"{where}: found {json.dumps(row)[:80]}, expected question (id), response (text) "
            'and, if given, finish_reason "stop" or "length"'
        )
    # half of a surrogate pair is no text to a tokenizer
    return str(identity), text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"), reason
