"""The data of the page's question explorer: an index of all questions, and their responses in trimmed chunks.

A page must open in seconds at a million responses, so it has only some of them. The clusters of a question, largest
first, take turns in adding their next response, PER_CLUSTER times, until the question's share of BUDGET characters is
used up. What was left out is counted.
"""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

from east.grading import GradedQuestion
from east.report.weights_by_question import Column
from east.run import files, pipeline
from east.run.artifacts import Manifest
from east.sampling import samples

CHUNK = 64  # questions unpacked at a click
PER_CLUSTER = 4  # responses
CLUSTERS = 40  # listed per question
CHARACTERS = 700  # of a response: its first and its last half
ANSWER, QUESTION, SNIPPET = 160, 4000, 110  # characters of an answer, of a question, and of it in the list
BUDGET = 24_000_000  # characters of responses in a page


class Trimmed(TypedDict):
    """How much of the responses a page has."""

    responses: int
    shown: int  # responses whose text is in the page
    clipped: int  # of those, cut in the middle
    clusters: int
    clusters_listed: int


class QuestionSet(NamedTuple):
    """One explorer: gzipped JSON of all questions (table) and of CHUNK questions each (chunks), as page.js reads it."""

    name: str
    table: bytes
    chunks: list[bytes]
    trimmed: Trimmed


class Response(TypedDict):
    """A response in the page."""

    sample: int  # its number
    text: list[str | int]  # [text], or [first half, characters left out, last half]
    cut: bool  # did it reach the token limit?


class ListedCluster(TypedDict):
    """A cluster in the page, see `grading.rows.Cluster`."""

    answer: str | None
    count: int
    correct: bool
    kind: str
    responses: list[Response]


class Detail(TypedDict):
    """What a click on a question shows."""

    question: str
    gold: str
    clusters: list[ListedCluster]
    hidden: int  # clusters that are not listed


def question_set(
    name: str, graded: Path, drawn: Path | None, columns: list[Column], pair: tuple[int, int], budget: int = BUDGET
) -> QuestionSet:
    """Pack a graded folder, the samples it was made from (None: no texts) and weight columns, in bounded memory.

    pair: positions of the columns whose difference orders the list (entropy and accuracy). Raises ValueError where
    graded and samples do not belong together.
    """
    manifest = pipeline.at("graded", graded).open()
    share = budget // max(1, manifest.summary["questions"])
    trimmed: Trimmed = {"responses": 0, "shown": 0, "clipped": 0, "clusters": 0, "clusters_listed": 0}
    index: dict[str, list[Any]] = {key: [] for key in ("id", "text", "entropy", "accuracy", "rejection", "k", "n")}
    chunks, chunk = [], []
    for row, texts, asked in _rows(graded, manifest, drawn):
        index["id"].append(row["question"])
        index["text"].append(" ".join(asked[:SNIPPET].split()))
        index["entropy"].append(round(row["entropy"], 4))
        index["accuracy"].append(round(row["accuracy"], 4))
        index["rejection"].append(round(row["rejection"], 4))
        index["k"].append(row["k"])
        index["n"].append(row["n"])
        chunk.append(_detail(row, texts, asked, share, trimmed))
        if len(chunk) == CHUNK:
            chunks.append(_pack(chunk))
            chunk = []
    chunks += [_pack(chunk)] if chunk else []
    packed = [
        {"label": c.label, "source": c.source, "w": [_short(c.weights.get(i)) for i in index["id"]]} for c in columns
    ]
    return QuestionSet(name, _pack({**index, "columns": packed, "pair": pair, "chunk": CHUNK}), chunks, trimmed)


def _rows(graded: Path, manifest: Manifest, drawn: Path | None) -> Iterator[tuple[GradedQuestion, list[str], str]]:
    """(graded row, texts of its responses or [], text of the question) in order."""
    rows = files.read_jsonl(graded / "questions.jsonl")
    if drawn is None:
        yield from ((row, [], "") for row in rows)
        return
    source = pipeline.at("samples", drawn)
    if source.open().fingerprint != manifest.inputs["samples"]:
        raise ValueError(
            f"{graded} was made from other samples than those of {drawn}; delete it and run "
            f"`{pipeline.COMMANDS['graded']}`"
        )
    asked = (q["question"] for q in files.read_jsonl(drawn / "questions.jsonl"))
    for row, sample, text in zip(rows, samples.read(source, manifest.config["n"]), asked, strict=True):
        assert row["question"] == sample["question"] and row["sample"] == sample["sample"]
        yield row, sample["text"], text


def _detail(row: GradedQuestion, texts: list[str], asked: str, share: int, trimmed: Trimmed) -> Detail:
    """A question with at most `share` characters of its responses; adds to the counts of `trimmed`."""
    members: dict[int, list[int]] = {}
    for position, cluster in enumerate(row["cluster"]):
        members.setdefault(cluster, []).append(position)
    listed = row["clusters"][:CLUSTERS]
    places = list(range(len(listed)))
    if -1 in members:  # answers missing and left out of the clusters (grading.missing: excluded)
        listed.append({"answer": None, "count": len(members[-1]), "correct": False, "kind": "left out of the clusters"})
        places.append(-1)
    chosen = _chosen([members[p] for p in places], texts, share) if texts else [[] for _ in places]
    clusters: list[ListedCluster] = []
    for c, positions in zip(listed, chosen, strict=True):
        responses: list[Response] = [
            {"sample": row["sample"][p], "text": _halves(texts[p]), "cut": row["truncated"][p]} for p in positions
        ]
        answer = None if c["answer"] is None else _clip(c["answer"], ANSWER)
        clusters.append({**c, "answer": answer, "responses": responses})
        trimmed["shown"] += len(positions)
        trimmed["clipped"] += sum(len(texts[p]) > CHARACTERS for p in positions)
    trimmed["responses"] += len(row["cluster"])
    trimmed["clusters"] += len(row["clusters"])
    hidden = max(0, len(row["clusters"]) - CLUSTERS)
    trimmed["clusters_listed"] += len(row["clusters"]) - hidden
    question, gold = _clip(asked, QUESTION), _clip(row["gold"], ANSWER)
    return {"question": question, "gold": gold, "clusters": clusters, "hidden": hidden}


def _chosen(members: list[list[int]], texts: list[str], share: int) -> list[list[int]]:
    """Positions of the responses shown per cluster: round robin, until the share of characters is used up."""
    chosen: list[list[int]] = [[] for _ in members]
    for turn in range(PER_CLUSTER):
        for kept, positions in zip(chosen, members, strict=True):
            if turn < len(positions):
                size = min(len(texts[positions[turn]]), CHARACTERS)
                if size > share:
                    return chosen
                share -= size
                kept.append(positions[turn])
    return chosen


def _clip(text: str, most: int) -> str:
    return text if len(text) <= most else text[:most] + f"… ({len(text) - most:,} characters more)"


def _halves(text: str) -> list[str | int]:
    """[text], or [first half, characters left out, last half]: the conclusion of a response is at its end."""
    if len(text) <= CHARACTERS:
        return [text]
    half = CHARACTERS // 2
    return [text[:half], len(text) - 2 * half, text[-half:]]


def _short(weight: float | None) -> float | None:
    return None if weight is None else float(f"{weight:.5g}")


def _pack(value: Any) -> bytes:
    """Gzipped ASCII JSON: half a surrogate pair survives as its escape."""
    return gzip.compress(json.dumps(value, separators=(",", ":")).encode("ascii"), 6, mtime=0)


def trims(each: QuestionSet) -> str:
    """What a page leaves out of a set, in words."""
    t = each.trimmed
    if not t["shown"]:
        return f"The texts of {t['responses']:,} responses are not in this page: there is no complete samples folder."
    parts = [f"{t['shown']:,} of {t['responses']:,} responses are in this page"]
    if t["shown"] < t["responses"]:
        parts[0] += (
            f" (at most {PER_CLUSTER} per cluster, from the largest on; {BUDGET // 1_000_000} MB of text per page)"
        )
    if t["clipped"]:
        parts.append(f"{t['clipped']:,} of them are cut in the middle to {CHARACTERS} characters")
    if hidden := t["clusters"] - t["clusters_listed"]:
        parts.append(f"{hidden:,} clusters beyond the {CLUSTERS} largest of their questions are not listed")
    return "; ".join(parts) + ". Counts, entropies and weights are those of all responses."
