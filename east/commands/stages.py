"""The stages between sampling and training: each reads folders, writes one folder, and says what it did.

A stage whose folder is complete and made from just these inputs is skipped; one made from other inputs stops.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from east import models, tasks
from east.data import examples, indexed_dataset
from east.grading import grader, options
from east.grading.qwen_string import qwen_string
from east.run import artifacts, files
from east.run.config import Config
from east.sampling import samples
from east.weighting import entropy, weights

GRADED = "graded"
WEIGHTS = "weights"
MAKE = "python -m east {} --config X"


class Asked(NamedTuple):
    """Questions as a model is asked them. prompts: text and token ids, one per question; dropped: rule to count."""

    model: Path
    tokenizer: Any
    questions: list[dict[str, Any]]
    prompts: list[tuple[str, list[int]]]
    dropped: dict[str, int]


def ask(config: Config, split: str = "train", rows: tuple[int, int] | None = None, model: Path | None = None) -> Asked:
    """The questions of a split (of `rows` of it) and their prompts, for `model` or the starting one."""
    model = model or models.resolve(*config.starting_model)
    tokenizer = models.load_tokenizer(model)
    questions, dropped = tasks.questions(config.task, split, rows)
    prompts = [tasks.render(tokenizer, q["question"], config.task) for q in questions]
    return Asked(model, tokenizer, questions, prompts, dropped)


def import_responses(config: Config) -> None:
    """Bring your own: `sampling.responses` (JSONL of question id, response) becomes the samples folder."""
    asked, folder = ask(config), config.folder_of("samples")
    path = Path(str(config.sampling.responses))
    made = samples.import_responses(folder, path, asked.questions, asked.prompts, asked.tokenizer)
    report("samples", folder, {**made.summary, "questions_dropped": asked.dropped})


def stopping_rule(config: Config) -> samples.StoppingRule:
    """sampling.adaptive: is a question's entropy settled, its responses graded as `run_grade` will grade them?"""
    assert config.sampling.adaptive is not None
    tolerance = config.sampling.adaptive.tolerance

    def settled(rows: Iterable[dict[str, Any]]) -> Iterator[bool]:
        for graded in grader.grade(rows, **config.grading.model_dump()):
            yield entropy.settled([cluster["count"] for cluster in graded["clusters"]], tolerance)

    return samples.StoppingRule(config.grading.rules, settled)


def run_grade(config: Config) -> None:
    """samples/ to graded/: questions.jsonl, a line per question (see `grade.grade`)."""
    if config.sampling.responses:
        import_responses(config)
    sampled(config)
    grade_folder(config.folder_of("samples"), config.folder_of("graded"), config, drawn_count(config))


def sampled(config: Config, model: str | None = None) -> artifacts.Manifest:
    """The manifest of samples/, held to what the run says of sampling and, where given, to the model's digest."""
    rule = stopping_rule(config) if config.sampling.adaptive else None
    return samples.hold(config.folder_of("samples"), config.sampling, rule, model)


def verdicts(config: Config, drawn: artifacts.Manifest) -> artifacts.Manifest:
    """The manifest of graded/, held to what the run says of grading and to the samples it must be made from."""
    folder, make = config.folder_of("graded"), MAKE.format("grade")
    settings, inputs = grade_settings(config, drawn_count(config)), {"samples": drawn.fingerprint}
    artifacts.reusable(folder, GRADED, settings, inputs, make)
    return artifacts.read(folder, GRADED, make)


def grade_settings(config: Config, n: int | None) -> dict[str, Any]:
    """What a graded folder of the first n responses is made by."""
    return {"grader": options.VERSION, **config.grading.model_dump(exclude={"workers"}), "n": n}


def drawn_count(config: Config) -> int | None:
    """Responses per question that this run uses; imported ones are as many as there are."""
    return None if config.sampling.responses else config.sampling.n


def grade_folder(source: Path, folder: Path, config: Config, n: int | None, make: str = "") -> artifacts.Manifest:
    """Grade a samples folder into `folder` (the training samples, or an evaluation's, made by `make`)."""
    make = make or MAKE.format("grade")
    made = artifacts.read(source, samples.KIND, samples.MAKE)
    settings, inputs = grade_settings(config, n), {"samples": made.fingerprint}
    if not artifacts.reusable(folder, GRADED, settings, inputs, make):
        count = grader.Summary(**config.grading.model_dump())
        with artifacts.writing(folder, GRADED, settings, inputs) as (scratch, summary):
            rows = tqdm(samples.read(source, n), desc="grade", unit="question", total=made.summary["questions"])
            graded = grader.grade(rows, summary=count, **config.grading.model_dump())
            files.write_jsonl(scratch / "questions.jsonl", map(with_string_match, graded))
            summary.update(count.report())
            files.write_text(scratch / "report.json", json.dumps(summary, indent=1) + "\n")
    manifest = artifacts.read(folder, GRADED, make)
    report(GRADED, folder, manifest.summary)
    return manifest


def with_string_match(row: dict[str, Any]) -> dict[str, Any]:
    """Beside the verdict: is the normalised string that of the gold? (examples.drop_disagreement asks)."""
    gold = qwen_string(row["gold"])
    return {**row, "string_match": [a is not None and qwen_string(a) == gold for a in row["answer"]]}


def run_index(config: Config) -> None:
    """samples/ and graded/ to dataset/: tokens, sequences, examples."""
    folder, start = config.folder_of("dataset"), models.resolve(*config.starting_model)
    model = artifacts.model_digest(start)
    drawn = sampled(config, model)
    graded = verdicts(config, drawn)
    tokenizer = models.load_tokenizer(start)
    vocabulary = models.vocabulary(start)
    settings = {**config.dataset_settings, "tokenizer": models.tokenizer_digest(tokenizer)}
    inputs = {"samples": drawn.fingerprint, "graded": graded.fingerprint}
    inputs |= {"model": model} if config.sampling.responses is None else {}
    if not artifacts.reusable(folder, indexed_dataset.KIND, settings, inputs, MAKE.format("index")):
        ends = set(models.end_tokens(start, tokenizer))
        with artifacts.writing(folder, indexed_dataset.KIND, settings, inputs) as (scratch, summary):
            writer = indexed_dataset.Writer(scratch, vocabulary)
            rows = checked(config, models.added_bos(tokenizer), ends, graded.summary["questions"])
            ids, counts = examples.build(writer, config.loss.name, config.examples, rows)
            kl = examples.mismatched_pairs(writer, config.examples) if config.loss.name == "kto" else None
            writer.close(ids, kl)
            summary.update(counts, vocabulary=vocabulary)
    report("dataset", folder, artifacts.read(folder, indexed_dataset.KIND, MAKE.format("index")).summary)


def checked(
    config: Config, bos: int | None, ends: set[int], total: int
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """(samples, graded) of every question, their tokens held to the contract."""
    graded = files.read_jsonl(config.folder_of("graded") / "questions.jsonl")
    drawn = samples.read(config.folder_of("samples"), drawn_count(config))
    for row, verdicts in zip(tqdm(drawn, desc="index", unit="question", total=total), graded, strict=True):
        assert row["question"] == verdicts["question"] and row["sample"] == verdicts["sample"]
        examples.check_tokens(row, bos, ends, stops=bool(config.sampling.stop))
        yield row, verdicts


def run_weigh(config: Config) -> None:
    """dataset/ and graded/ to weights/: one float per example, mean one over those that are trained."""
    dataset = indexed_dataset.IndexedDataset(config.folder_of("dataset"), config.dataset_settings)
    folder, w = config.folder_of("weights"), config.weighting
    inputs = {"dataset": dataset.fingerprint}
    if not artifacts.reusable(folder, WEIGHTS, w.used, inputs, MAKE.format("weigh")):
        graded = config.folder_of("graded")
        if artifacts.read(graded, GRADED, MAKE.format("grade")).fingerprint != dataset.manifest.inputs["graded"]:
            raise ValueError(
                f"{dataset.folder} was made from another {graded}; delete it and run `{MAKE.format('index')}`"
            )
        place = {question: i for i, question in enumerate(dataset.question_ids())}
        lines = tqdm(files.read_jsonl(graded / "questions.jsonl"), desc="weigh", unit="question")
        rows = [q for q in lines if q["question"] in place]
        assert [q["question"] for q in rows] == list(place), "graded and dataset order differ"
        values = weights.question_values(w.strategy, rows, w.entropy)[dataset.examples["question"]]
        a = weights.auto_exponent(values, w.min_ess) if w.a == "auto" else w.a
        column, kept = weights.example_weights(
            values, strategy=w.strategy, mapping=w.mapping, a=a, spread=w.spread, zero=w.zero
        )
        with artifacts.writing(folder, WEIGHTS, w.used, inputs) as (scratch, summary):
            np.save(scratch / "weights.npy", column)
            np.save(scratch / "kept.npy", kept)
            summary.update({"a": a} if w.mapping == "power" and w.strategy != "uniform" else {})
            summary.update(weights.summary(column, kept))
    report(WEIGHTS, folder, artifacts.read(folder, WEIGHTS, MAKE.format("weigh")).summary)


def report(kind: str, folder: Path, summary: dict[str, Any]) -> None:
    """Print what a stage has: one line a figure; lists (disagreements) stand in its folder."""
    print(f"{kind}: {folder}")
    for name, value in summary.items():
        if isinstance(value, dict):
            value = ", ".join(f"{k} {v}" for k, v in value.items() if not isinstance(v, list)) or "none"
        shown = f"{value:.4g}" if isinstance(value, float) else value
        print(f"    {name.replace('_', ' ')}: {shown}")
