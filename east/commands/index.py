"""Choose training examples from samples/ and graded/ and store their tokens: writes dataset/."""

import argparse
from collections.abc import Iterator

from tqdm import tqdm

from east import models
from east.data import examples, indexed_dataset
from east.grading import GradedQuestion
from east.run import artifacts, files, pipeline, summaries
from east.run.artifacts import Artifact
from east.run.config import Config
from east.run.loss_table import LOSSES
from east.sampling import samples
from east.sampling.samples import SampledQuestion

EXAMPLE = "east index --config configs/1b_gsm8k_dpo.yaml examples.wrong_answer=most_frequent"


def run(config: Config, _: argparse.Namespace) -> None:
    """The stage: samples/ and graded/ to dataset/ (tokens, sequences, examples)."""
    start, trust = models.resolve(*config.starting_model), config.model.trust_remote_code
    model = artifacts.model_digest(start)
    drawn = pipeline.samples(config, model=model)
    samples_fingerprint = drawn.open().fingerprint
    graded = pipeline.graded(config, samples_fingerprint)
    verdicts = graded.open()
    tokenizer = models.load_tokenizer(start, trust)
    vocabulary = models.vocabulary(start, trust)
    inputs = {"samples": samples_fingerprint, "graded": verdicts.fingerprint, "model": model}
    artifact = pipeline.dataset(config, models.tokenizer_digest(tokenizer), **inputs)
    if not artifact.complete():
        ends, bos = set(models.end_tokens(start, tokenizer)), models.added_bos(tokenizer)
        with artifact.writing() as (scratch, summary):
            writer = indexed_dataset.Writer(scratch, vocabulary)
            rows = checked(config, drawn, graded, bos, ends, verdicts.summary["questions"])
            ids, counts = examples.build(writer, config.loss.name, config.examples, rows)
            mismatched = LOSSES[config.loss.name].mismatched
            kl = examples.mismatched_pairs(writer, config.examples) if mismatched else None
            writer.close(ids, kl)
            summary.update(counts, vocabulary=vocabulary)
    summaries.show("dataset", artifact.folder, artifact.open().summary)


def checked(
    config: Config, drawn: Artifact, graded: Artifact, bos: int | None, ends: set[int], total: int
) -> Iterator[tuple[SampledQuestion, GradedQuestion]]:
    """(sampled, graded) of every question, their tokens checked against the token contract."""
    verdicts = files.read_jsonl(graded.folder / "questions.jsonl")
    rows = samples.read(drawn, None if config.sampling.responses else config.sampling.n)
    for row, verdict in zip(tqdm(rows, desc="index", unit="question", total=total), verdicts, strict=True):
        assert row["question"] == verdict["question"] and row["sample"] == verdict["sample"]
        examples.check_tokens(row, bos, ends, stops=bool(config.sampling.stop))
        yield row, verdict
