"""`east check`: checks a run before it uses a GPU, and prints its questions, prompts, examples, weights, steps and
memory."""

import collections
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from east import models, tasks
from east.checks import trial
from east.data import examples, indexed_dataset, training_data
from east.run import artifacts, deepspeed_file, pipeline, summaries
from east.run.artifacts import Artifact
from east.run.config import Config
from east.run.loss_table import LOSSES
from east.sampling import engine_interface, engines, prompts, samples
from east.training import schedule

SHOWN = 2  # examples that are printed


def run(config: Config) -> None:
    """Print what the run would do. Raises ValueError for the first problem that would stop it."""
    asked, trust = prompts.ask(config), config.model.trust_remote_code
    start, tokenizer = asked.model, asked.tokenizer
    print(f"questions: {len(asked.questions)} train (left out: {asked.dropped or 'none'})")
    evaluation(config, {q["question"] for q in asked.questions})
    text, ids = asked.prompts[0]
    print(f"prompt ({len(ids)} tokens, {ids.count(tokenizer.bos_token_id)} BOS):\n    " + text.replace("\n", "\n    "))
    zero = deepspeed_file.zero_settings(config.train)
    outline = models.outline(start, trust)
    print(f"model: {start}, ZeRO stage {zero.get('stage', 0)}\n{trial.run(config, start, outline)}")
    print(memory(config, outline, zero))
    sampling(config, start)
    model = artifacts.model_digest(start)
    if not pipeline.dataset(config).exists():
        return before_index(config, model)
    dataset = training_data.dataset(config, tokenizer, model, verify=True)
    audit(dataset, tokenizer, start)
    training_data.check_lengths(dataset, models.context_limit(start, trust))
    audit_source(dataset, tokenizer, start, config)
    for row in range(min(SHOWN, len(dataset))):
        show(dataset, tokenizer, row)
    audit_columns(dataset, model, config)


def evaluation(config: Config, trained: set[str]) -> None:
    """Print the number of questions that `east evaluate` uses, and how many of them are also trained on."""
    if config.task.name == "jsonl" and config.eval.split == "test" and config.task.test is None:
        return print("evaluation: task.test is not set, and `east evaluate` needs it")
    tests, dropped = tasks.questions(config.task, config.eval.split, config.eval.rows)
    print(f"evaluation: {len(tests)} {config.eval.split} questions (left out: {dropped or 'none'})")
    if overlap := len(trained & {q["question"] for q in tests}):
        print(f"    WARNING: {overlap} of them are also trained on")


def sampling(config: Config, start: Path) -> None:
    """Print where responses come from. Raises ValueError when the engine is not installed, when the file of imported
    responses does not exist, or when sampling.max_model_len exceeds the model's limit."""
    s = config.sampling
    if s.responses:
        if not (Path(s.responses).is_file() or pipeline.samples(config).exists()):
            raise ValueError(f"sampling.responses: found no file {s.responses}; give a .jsonl or .jsonl.gz")
        return print(f"responses: {s.responses}")
    limit = engine_interface.context_limit(start, s, config.model.trust_remote_code)
    print(f"responses: {s.n} per question by {engines.resolve(s.engine)}, of at most {s.max_tokens} tokens; prompt and "
          f"response together at most {limit}")  # fmt: skip


def before_index(config: Config, model: str) -> None:
    """Check samples/ and graded/ against the run and the digest of its model, as `east index` does, and print the first
    stage that is missing."""
    samples = pipeline.samples(config, model=model)
    if missing(samples):
        return
    sampled = samples.open()
    summaries.show("samples", samples.folder, sampled.summary)
    graded = pipeline.graded(config, sampled.fingerprint)
    if missing(graded):
        return
    summaries.show("graded", graded.folder, graded.open().summary)
    missing(pipeline.dataset(config))


def missing(artifact: Artifact) -> bool:
    """Whether a folder of the run is missing or not complete; if so, print the command that makes it."""
    if artifact.exists():
        return False
    print(f"{artifact.kind}: not there yet; make it with `{artifact.command}`, then check again")
    return True


def audit(dataset: indexed_dataset.IndexedDataset, tokenizer: Any, start: Path) -> None:
    """Check that every stored sequence keeps the token contract. Raises ValueError for the first that does not."""
    ends, bos = set(models.end_tokens(start, tokenizer)), models.added_bos(tokenizer)
    counts: collections.Counter[str] = collections.Counter()
    for row in range(len(dataset.sequences)):
        prompt, completion = dataset.prompt(row), dataset.completion(row)
        if fault := examples.token_fault(prompt.tolist(), completion.tolist(), bos, ends):
            raise ValueError(f"{dataset.folder}: sequence {row}: {fault}")
        counts["with an end token" if completion[-1] in ends else "cut, without an end token"] += 1
    lengths = dataset.sequences["prompt_length"] + dataset.sequences["completion_length"]
    print(f"dataset: {len(dataset)} examples, {len(lengths)} sequences, {int(lengths.mean())} tokens on average, "
          f"{lengths.max()} at most; {', '.join(f'{count} {kind}' for kind, count in counts.items())}")  # fmt: skip


def audit_source(dataset: indexed_dataset.IndexedDataset, tokenizer: Any, start: Path, config: Config) -> None:
    """Compare every stored token with samples/: the tokens that are trained must be those that were sampled. Raises
    ValueError for the first sequence that differs.

    Prompts and completions are compared with the ids in samples/, as long as this is the folder that the dataset was
    made from. That the engine was given these prompt ids is not checked here; `sampling.draw` sends what it writes.
    """
    artifact = pipeline.at("samples", config.folder_of("samples"))
    source, made_from = artifact.folder, dataset.manifest.inputs["samples"]
    if not artifact.exists() or artifact.open().fingerprint != made_from:
        print(f"tokens: not compared with {source}, which is missing or not the one that the dataset was made from")
        return
    ends, stops = set(models.end_tokens(start, tokenizer)), bool(config.sampling.stop)
    sequences, index = np.array(dataset.sequences), {id_: i for i, id_ in enumerate(dataset.question_ids())}
    order = np.argsort(sequences["question"], kind="stable")
    bounds = np.searchsorted(sequences["question"][order], np.arange(len(index) + 1))
    compared, bos = 0, models.added_bos(tokenizer)
    remake = f"delete it and run `{pipeline.COMMANDS['dataset']}`"
    for sampled in tqdm(samples.read(artifact), desc="check", unit="question"):
        examples.check_tokens(sampled, bos, ends, stops)
        question = index.get(sampled["question"])
        for row in [] if question is None else order[bounds[question] : bounds[question + 1]]:
            compared += 1
            sample = sequences["sample"][row]
            same = dataset.prompt(row).tolist() == sampled["prompt_tokens"]
            if not same or (sample >= 0 and dataset.completion(row).tolist() != sampled["tokens"][sample]):
                raise ValueError(f"{dataset.folder}: the tokens of sequence {row} differ from {source}; {remake}")
    own = sequences["sample"] >= 0  # the others are KTO's mismatched pairs, with the completion of another sequence
    known = np.isin(sequences["completion_offset"], sequences["completion_offset"][own])
    if compared != len(sequences) or not known.all():
        raise ValueError(f"{dataset.folder}: found sequences that are not in {source}; {remake}")
    print(f"tokens: prompts and completions of all {compared} sequences are those of {source}")


def audit_columns(dataset: indexed_dataset.IndexedDataset, model: str, config: Config) -> None:
    """Check that weights/ and reference/ belong to dataset and model, as training does, and print their summaries.
    Raises ValueError as `training_data.load` does."""
    weights = pipeline.weights(config, dataset.fingerprint)
    if not missing(weights):
        _, kept, manifest = training_data.weights(config, dataset)
        summaries.show("weights", weights.folder, manifest.summary)
        t = config.train
        per_epoch = schedule.steps_per_epoch(len(kept), t.batch_size)
        print(f"steps: {per_epoch} per epoch, {schedule.total_steps(len(kept), t.batch_size, t.epochs)} in all")
    if not LOSSES[config.loss.name].needs_reference:
        return
    reference = pipeline.reference(config, training_data.kernel(), model, dataset.fingerprint)
    if not missing(reference):
        _, manifest = training_data.reference(config, dataset, model)
        summaries.show("reference", reference.folder, manifest.summary)


def show(dataset: indexed_dataset.IndexedDataset, tokenizer: Any, row: int) -> None:
    """Print the responses of an example with special tokens; what is trained is between >>> and <<<."""
    example = dataset.examples[row]
    names = {"response": "chosen" if example["rejected"] >= 0 else "response", "rejected": "rejected"}
    for field, name in names.items():
        if example[field] >= 0:
            prompt = tokenizer.decode(dataset.prompt(example[field]))
            print(f"example {row}, {name}:\n    {prompt}>>>{tokenizer.decode(dataset.completion(example[field]))}<<<")


def memory(config: Config, outline: Any, zero: dict[str, Any]) -> str:
    """A line with the memory per rank in MiB for weights, gradients and optimizer state; activations need more.

    outline: the model on the meta device; it is given LoRA's matrices.
    """
    whole = sum(p.numel() for p in outline.parameters())
    with torch.device("meta"):
        model = models.with_lora(outline, config.model.lora) if config.model.lora else outline
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    half = config.train.dtype == "bfloat16"
    stage = zero.get("stage", 0)
    state = trained * (12 if half else 8)  # in fp32: the two moments of AdamW, and with bf16 a copy of the weights
    parts = {"weights": whole * (2 if half else 4), "gradients": trained * 4, "optimizer": state}
    sharded = {"weights": stage >= 3, "gradients": stage >= 2, "optimizer": stage >= 1}
    offloaded = {"weights": zero.get("offload_param"), "optimizer": zero.get("offload_optimizer")}
    terms = [
        f"{name} {size / 2**20:,.0f}{' / ranks' if sharded[name] else ''}{' on the CPU' if offloaded.get(name) else ''}"
        for name, size in parts.items()
    ]
    return f"memory per rank in MiB, {trained:,} of {whole:,} parameters trained: {', '.join(terms)}, plus activations"
