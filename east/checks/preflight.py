"""Look at a run before a GPU is spent on it: files, prompts, tokens, weights, steps, memory."""

import collections
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tqdm import tqdm

from east import models, tasks
from east.data import examples, indexed_dataset, training_data
from east.run import artifacts, deepspeed_file, pipeline, summaries
from east.run.artifacts import Artifact
from east.run.config import Config
from east.run.loss_table import LOSSES
from east.sampling import engine_interface, engines, samples
from east.training import schedule

SHOWN = 2


def run(config: Config) -> None:
    """Print what the run would do. Raises ValueError for the first thing that would stop it."""
    start = models.resolve(*config.starting_model)
    tokenizer = models.load_tokenizer(start)
    questions, dropped = tasks.questions(config.task, "train")
    print(f"questions: {len(questions)} train (left out: {dropped or 'none'})")
    evaluation(config, {q["question"] for q in questions})
    text, ids = tasks.render(tokenizer, questions[0]["question"], config.task)
    print(f"prompt ({len(ids)} tokens, {ids.count(tokenizer.bos_token_id)} BOS):\n    " + text.replace("\n", "\n    "))
    zero = deepspeed_file.zero_settings(config.train)
    print(f"model: {start}, ZeRO stage {zero.get('stage', 0)}\n{memory(config, start, zero)}")
    sampling(config, start)
    model = artifacts.model_digest(start)
    if not pipeline.dataset(config).exists():
        return before_index(config, model)
    dataset = training_data.dataset(config, tokenizer, model, verify=True)
    audit(dataset, tokenizer, start)
    audit_source(dataset, tokenizer, start, config)
    for row in range(min(SHOWN, len(dataset))):
        show(dataset, tokenizer, row)
    audit_columns(dataset, model, config)


def evaluation(config: Config, trained: set[str]) -> None:
    """Count the questions that `evaluate` would ask, and those that are trained on, too."""
    if config.task.name == "jsonl" and config.eval.split == "test" and config.task.test is None:
        return print("evaluation: task.test is not set, `evaluate` will ask for it")
    tests, dropped = tasks.questions(config.task, config.eval.split, config.eval.rows)
    print(f"evaluation: {len(tests)} {config.eval.split} questions (left out: {dropped or 'none'})")
    if both := len(trained & {q["question"] for q in tests}):
        print(f"    WARNING: {both} of them are trained on")


def sampling(config: Config, start: Path) -> None:
    """Where responses come from. Raises ValueError where the engine or the file is not there, or nothing would fit."""
    s = config.sampling
    if s.responses:
        if not (Path(s.responses).is_file() or pipeline.samples(config).exists()):
            raise ValueError(f"sampling.responses: found no file {s.responses}; give a .jsonl or .jsonl.gz")
        return print(f"responses: {s.responses}")
    limit = engine_interface.context_limit(start, s)
    print(f"responses: {s.n} a question by {engines.resolve(s.engine)}, {s.max_tokens} tokens at most, prompt and "
          f"response {limit}")  # fmt: skip


def before_index(config: Config, model: str) -> None:
    """Check samples/ and graded/ against the run and the model's digest, as `index` will, and name the first stage
    that is missing."""
    samples = pipeline.samples(config, model=model)
    if missing(samples):
        return
    drawn = samples.open()
    summaries.show("samples", samples.folder, drawn.summary)
    graded = pipeline.graded(config, drawn.fingerprint)
    if missing(graded):
        return
    summaries.show("graded", graded.folder, graded.open().summary)
    missing(pipeline.dataset(config))


def missing(artifact: Artifact) -> bool:
    """Whether a folder of the run is not complete; then says how it is made."""
    if artifact.exists():
        return False
    print(f"{artifact.kind}: not there yet; make it with `{artifact.command}`, then check again")
    return True


def audit(dataset: indexed_dataset.IndexedDataset, tokenizer: Any, start: Path) -> None:
    """Hold every stored sequence to the token contract. Raises ValueError for the first that breaks it."""
    ends, bos = set(models.end_tokens(start, tokenizer)), models.added_bos(tokenizer)
    found: collections.Counter[str] = collections.Counter()
    for row in range(len(dataset.sequences)):
        prompt, completion = dataset.prompt(row), dataset.completion(row)
        if fault := examples.token_fault(prompt.tolist(), completion.tolist(), bos, ends):
            raise ValueError(f"{dataset.folder}: sequence {row}: {fault}")
        found["end token trained" if completion[-1] in ends else "cut, not taught to stop"] += 1
    lengths = dataset.sequences["prompt_length"] + dataset.sequences["completion_length"]
    limit = transformers.AutoConfig.from_pretrained(start).get_text_config().max_position_embeddings
    if lengths.max() > limit:
        raise ValueError(f"a sequence of {lengths.max()} tokens exceeds the model's {limit}; lower examples.max_length")
    print(f"dataset: {len(dataset)} examples, {len(lengths)} sequences, {int(lengths.mean())} tokens on average, "
          f"{lengths.max()} at most; {dict(found)}")  # fmt: skip


def audit_source(dataset: indexed_dataset.IndexedDataset, tokenizer: Any, start: Path, config: Config) -> None:
    """Hold every stored token to samples/: what was sampled is what is trained. Raises ValueError where it is not.

    Proves equality with the ids on disk, prompts included, while samples/ is what the dataset was made from; that
    the engine was given those ids is `samples.draw`'s to keep.
    """
    artifact = pipeline.at("samples", config.folder_of("samples"))
    source, made_from = artifact.folder, dataset.manifest.inputs["samples"]
    if not artifact.exists() or artifact.open().fingerprint != made_from:
        print(f"tokens: {source} is not what the dataset was made from (any more); they were compared with no sample")
        return
    ends, stops = set(models.end_tokens(start, tokenizer)), bool(config.sampling.stop)
    sequences, place = np.array(dataset.sequences), {id_: i for i, id_ in enumerate(dataset.question_ids())}
    order = np.argsort(sequences["question"], kind="stable")
    bounds = np.searchsorted(sequences["question"][order], np.arange(len(place) + 1))
    held, bos = 0, models.added_bos(tokenizer)
    for drawn in tqdm(samples.read(artifact), desc="check", unit="question"):
        examples.check_tokens(drawn, bos, ends, stops)
        question = place.get(drawn["question"])
        for row in [] if question is None else order[bounds[question] : bounds[question + 1]]:
            held += 1
            sample = sequences["sample"][row]
            same = dataset.prompt(row).tolist() == drawn["prompt_tokens"]
            if not same or (sample >= 0 and dataset.completion(row).tolist() != drawn["tokens"][sample]):
                raise ValueError(f"{dataset.folder}: sequence {row} is not what {source} holds; make the index again")
    own = sequences["sample"] >= 0  # the others, KTO's mismatched pairs, point to another sequence's completion
    if held != len(sequences) or not np.isin(sequences["completion_offset"], sequences["completion_offset"][own]).all():
        raise ValueError(f"{dataset.folder}: holds sequences that {source} does not; make the index again")
    print(f"tokens: prompts and completions of all {held} sequences are those of {source}")


def audit_columns(dataset: indexed_dataset.IndexedDataset, model: str, config: Config) -> None:
    """Hold weights/ and reference/ to dataset and model as training does. Raises ValueError as `columns.load`."""
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
    """One example as text; what is trained stands between >>> and <<<, special tokens included."""
    example = dataset.examples[row]
    names = {"response": "chosen" if example["rejected"] >= 0 else "response", "rejected": "rejected"}
    for field, name in names.items():
        if example[field] >= 0:
            prompt = tokenizer.decode(dataset.prompt(example[field]))
            print(f"example {row}, {name}:\n    {prompt}>>>{tokenizer.decode(dataset.completion(example[field]))}<<<")


def memory(config: Config, start: Path, zero: dict[str, Any]) -> str:
    """A floor of the memory per rank, in MiB: weights, gradients, optimizer state; activations come on top."""
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.from_pretrained(start))
        whole = sum(p.numel() for p in model.parameters())
        if config.model.lora:
            model = models.with_lora(model, config.model.lora)
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    half = config.train.dtype == "bfloat16"
    stage = zero.get("stage", 0)
    state = trained * (12 if half else 8)  # two AdamW moments, and a master copy under bf16, fp32
    parts = {"weights": whole * (2 if half else 4), "gradients": trained * 4, "optimizer": state}
    shared = {"weights": stage >= 3, "gradients": stage >= 2, "optimizer": stage >= 1}
    off = {"weights": zero.get("offload_param"), "optimizer": zero.get("offload_optimizer")}
    rows = [
        f"{name} {size / 2**20:,.0f}{' / ranks' if shared[name] else ''}{' on the CPU' if off.get(name) else ''}"
        for name, size in parts.items()
    ]
    return f"memory per rank (MiB, {trained:,} of {whole:,} parameters trained): {', '.join(rows)}; activations on top"
