"""The data of benchmarks/train.py: a model with random weights and a run folder with random examples."""

import argparse
import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
import yaml
from tokenizers import Tokenizer, models

from east.data import indexed_dataset
from east.models import load_tokenizer, tokenizer_digest
from east.run import config, pipeline
from east.run.artifacts import model_digest
from east.run.loss_table import LOSSES
from east.training import metrics, schedule

ROOT = Path(__file__).resolve().parents[1]
SPREAD = (0.35, 0.4)  # standard deviation of prompt and response lengths, as a share of their means


def prepare(workspace: Path, shape: transformers.LlamaConfig, arguments: argparse.Namespace) -> list:
    """Write model, run file, dataset, weights and reference. Returns for each step the (prompt, completion) lengths of
    its sequences, in tokens."""
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(shape, dtype=getattr(torch, arguments.dtype))
    model.save_pretrained(workspace / "model")
    save_tokenizer(workspace / "model", shape.vocab_size)
    batch_size = arguments.micro_batch * arguments.accumulation
    steps = arguments.steps + 1
    (workspace / "run.yaml").write_text(yaml.safe_dump(run_file(workspace, arguments, batch_size, steps)))
    settings = config.load(workspace / "run.yaml")
    write_examples(settings, shape.vocab_size, batch_size * steps, arguments.lengths)
    if LOSSES[arguments.loss].needs_reference:
        command = [sys.executable, "-m", "east", "reference", "--config", str(workspace / "run.yaml")]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    dataset = indexed_dataset.IndexedDataset(pipeline.dataset(settings))
    lengths = []
    for rows in step_order(settings, len(dataset)):
        examples = dataset.examples[rows]
        sequences = np.concatenate([examples["response"], examples["rejected"][examples["rejected"] >= 0]])
        chosen = dataset.sequences[sequences]
        lengths.append(list(zip(chosen["prompt_length"].tolist(), chosen["completion_length"].tolist(), strict=True)))
    return lengths


def run_file(workspace: Path, arguments: argparse.Namespace, batch_size: int, steps: int) -> dict[str, Any]:
    """Settings that TRL has as well: SFT averaged over the tokens of a step, z0 per micro-batch."""
    train = {"epochs": 1, "batch_size": batch_size, "micro_batch": arguments.micro_batch}
    stage = {"float32": 0, "bfloat16": 1}[arguments.dtype]  # ZeRO 0 accumulates bfloat16 gradients in bfloat16
    train |= {
        "deepspeed": str(ROOT / f"ds_configs/zero{stage}.json"),
        "micro_tokens": arguments.micro_tokens,
        "gradient_checkpointing": arguments.gradient_checkpointing,
        "lr": 1e-2 if arguments.model == "tiny" else 1e-5,  # tiny: high, so that losses change within a few steps
        "head_chunk": 2048,
        "schedule": "constant",
        "warmup_ratio": 0.0,
        "dtype": arguments.dtype,
        "checkpoint_every": steps + 1,
    }
    loss = {
        "name": arguments.loss,
        "beta": 1.0 if arguments.model == "tiny" else 0.1,
        "normalization": "token",
        "kl": "microbatch",
    }
    model: dict[str, Any] = {"path": str(workspace / "model")}
    if arguments.model == "llama-8b":
        model["lora"] = {"r": 16, "alpha": 16}
    return {
        "run": str(workspace / "run"),
        "model": model,
        "loss": loss,
        "train": train,
        "weighting": {"strategy": "uniform"},
    }


def step_order(settings: config.Config, examples: int) -> list[Any]:
    """Example rows of every optimizer step, in the order of train.py."""
    t = settings.train
    steps = schedule.total_steps(examples, t.batch_size, t.epochs)
    return [schedule.step_rows(np.arange(examples), step, t.batch_size, t.seed)[1] for step in range(steps)]


def save_tokenizer(folder: Path, vocabulary: int) -> None:
    """A word-level tokenizer whose words are numbers; only its size and special tokens are used."""
    words = {"<s>": 0, "</s>": 1, "<pad>": 2, **{str(i): i for i in range(3, vocabulary)}}
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="<pad>")),
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
    ).save_pretrained(folder)


def write_examples(settings: config.Config, vocabulary: int, count: int, means: list[int]) -> None:
    """Write dataset/ and weights/ of `count` random examples. For KTO, every other example is desirable, and each
    mismatched pair has the completion of the previous example."""
    rng = np.random.default_rng(0)

    def tokens(mean: int, spread: float) -> Any:
        length = np.clip(rng.normal(mean, spread * mean), 16, mean * (1 + 3 * spread))
        return rng.integers(3, vocabulary, int(length))

    of_prompts, of_responses = zip(means, SPREAD, strict=True)

    kind = LOSSES[settings.loss.name]
    start = Path(settings.model.path)
    dataset = pipeline.dataset(settings, tokenizer_digest(load_tokenizer(start)), model=model_digest(start))
    with dataset.writing() as (scratch, summary):
        writer = indexed_dataset.Writer(scratch, vocabulary)
        for i in range(count):
            prompt = writer.segment(tokens(*of_prompts))
            first, *second = [
                writer.sequence(prompt, writer.segment(tokens(*of_responses)), i, s) for s in range(1 + kind.pair)
            ]
            writer.example(i, first, second[0] if second else -1, not kind.labelled or i % 2 == 0)
        writer.close([str(i) for i in range(count)], mismatched(settings, writer, count) if kind.mismatched else None)
        summary.update(vocabulary=vocabulary)
    with pipeline.weights(settings, dataset.open().fingerprint).writing() as (scratch, _):
        np.save(scratch / "weights.npy", np.ones(count))
        np.save(scratch / "kept.npy", np.ones(count, dtype=bool))


def mismatched(settings: config.Config, writer: indexed_dataset.Writer, count: int) -> Any:
    """Write the sequences (prompt i, completion i-1); returns their rows, [1, count]."""
    rows = np.arange(count)
    prompts, _ = writer.segments(rows)
    _, completions = writer.segments(rows - 1)
    return writer.sequences(prompts, completions, rows, 1)[None]


def read_metrics(side: str, workspace: Path, name: str) -> list[dict[str, Any]]:
    """For each step of a run: seconds, loss, and ended, the time of day; on a GPU also gpu_memory, peak bytes."""
    if side == "trl":
        return json.loads((workspace / f"{name}.json").read_text())
    folder = config.load(workspace / "run.yaml", [f"name={name}"]).folder_of("train")
    rows = [{**row, "seconds": row["tokens"] / row["tokens_per_second"]} for row in metrics.read(folder)]
    ended = (folder / metrics.FILE).stat().st_mtime  # of the last step, whose row is written before the checkpoint
    for row in reversed(rows):
        row["ended"] = ended
        ended -= row["seconds"]
    return rows


def machine() -> str:
    """Name of the GPU, or of the processor with its number of cores."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return f"{names[0].split(':')[1].strip()} x {len(names)}" if names else platform.processor()
