"""Turn the cluster sizes of graded/ into one weight per example of dataset/: writes weights/."""

import argparse

import numpy as np
from tqdm import tqdm

from east.data.indexed_dataset import IndexedDataset
from east.run import files, pipeline, summaries
from east.run.config import Config
from east.weighting import weights

EXAMPLE = "east weigh --config configs/1b_gsm8k_sft.yaml weighting.a=2 name=sft-a2"


def run(config: Config, _: argparse.Namespace) -> None:
    """The stage: dataset/ and graded/ to weights/, a float per example, mean one over those that are trained."""
    dataset = IndexedDataset(pipeline.dataset(config))
    w, artifact = config.weighting, pipeline.weights(config, dataset.fingerprint)
    if not artifact.complete():
        graded = pipeline.at("graded", config.folder_of("graded"))
        if graded.open().fingerprint != dataset.manifest.inputs["graded"]:
            raise ValueError(
                f"{dataset.folder} was made from another {graded.folder}; delete it and run "
                f"`{pipeline.COMMANDS['dataset']}`"
            )
        place = {question: i for i, question in enumerate(dataset.question_ids())}
        lines = tqdm(files.read_jsonl(graded.folder / "questions.jsonl"), desc="weigh", unit="question")
        rows = [q for q in lines if q["question"] in place]
        assert [q["question"] for q in rows] == list(place), "graded and dataset order differ"
        values = weights.question_values(w.strategy, rows, w.entropy)[dataset.examples["question"]]
        a = weights.auto_exponent(values, w.min_ess) if w.a == "auto" else w.a
        column, kept = weights.example_weights(
            values, strategy=w.strategy, mapping=w.mapping, a=a, spread=w.spread, zero=w.zero
        )
        with artifact.writing() as (scratch, summary):
            np.save(scratch / "weights.npy", column)
            np.save(scratch / "kept.npy", kept)
            summary.update({"a": a} if w.mapping == "power" and w.strategy != "uniform" else {})
            summary.update(weights.summary(column, kept))
    summaries.show("weights", artifact.folder, artifact.open().summary)
