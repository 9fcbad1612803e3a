"""TRL's part of benchmarks/train.py: its trainer on the same examples in the same order.

python benchmarks/train_trl.py WORKSPACE NAME writes WORKSPACE/NAME.json, a row per optimizer step.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch
import transformers
import trl
from datasets import Dataset

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.train_data import step_order  # noqa: E402
from east.data.indexed_dataset import IndexedDataset  # noqa: E402
from east.run import config, pipeline  # noqa: E402


class Clock(transformers.TrainerCallback):
    """Seconds, loss and memory of each optimizer step."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.began = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.began = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.rows.append({"seconds": time.perf_counter() - self.began, "ended": time.time()})
        if torch.cuda.is_available():
            self.rows[-1]["gpu_memory"] = torch.cuda.max_memory_allocated()

    def on_log(self, *_: Any, logs: dict[str, Any], **__: Any) -> None:  # type: ignore[override]
        if "loss" in logs:
            self.rows[-1]["loss"] = logs["loss"]


def rows_of(dataset: IndexedDataset, order: Any, loss: str) -> list[dict[str, Any]]:
    """The examples `order` in TRL's columns for tokenised data."""
    rows: list[dict[str, Any]] = []
    for row in order:
        example = dataset.examples[row]
        prompt, completion = (f(example["response"]).tolist() for f in (dataset.prompt, dataset.completion))
        if loss == "sft":
            mask = [0] * len(prompt) + [1] * len(completion)
            rows.append({"input_ids": prompt + completion, "completion_mask": mask})
        elif loss == "dpo":
            rejected = dataset.completion(example["rejected"]).tolist()
            rows.append({"prompt_ids": prompt, "chosen_ids": completion, "rejected_ids": rejected})
        else:
            assert dataset.kl is not None
            other = dataset.completion(dataset.kl[0][row]).tolist()
            label = bool(example["desirable"])
            columns = {
                "prompt_ids": prompt,
                "completion_ids": completion,
                "KL_completion_ids": other,
                "label": label,
            }
            rows.append(columns)
    return rows


def make_trainer(settings: config.Config, rows: list[dict[str, Any]], clock: Clock, out: Path) -> Any:
    """TRL's trainer for the loss of the run, with its settings and the examples `rows` in their order."""
    loss, t = settings.loss.name, settings.train
    base: Any = getattr(trl, f"{loss.upper()}Trainer")

    class Ordered(base):  # type: ignore[misc, valid-type]
        """The trainer without tokenisation and shuffling."""

        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

        def _get_train_sampler(self, *_: Any, **__: Any) -> Any:
            return torch.utils.data.SequentialSampler(self.train_dataset)

    of_loss: dict[str, Any] = {"beta": settings.loss.beta, "precompute_ref_log_probs": True}
    if loss == "sft":
        of_loss = {"padding_free": True, "completion_only_loss": True}
    arguments = getattr(trl, f"{loss.upper()}Config")(
        output_dir=str(out),
        per_device_train_batch_size=t.micro_batch,
        gradient_accumulation_steps=t.batch_size // t.micro_batch,
        num_train_epochs=1,
        learning_rate=t.lr,
        lr_scheduler_type="constant",
        weight_decay=t.weight_decay,
        max_grad_norm=t.max_grad_norm,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        bf16=False,
        gradient_checkpointing=t.gradient_checkpointing,
        remove_unused_columns=False,
        max_length=None,
        disable_tqdm=True,
        **of_loss,
    )
    folder = Path(settings.model.path)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, t.dtype))
    lora = settings.model.lora
    return Ordered(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=transformers.AutoTokenizer.from_pretrained(folder),
        callbacks=[clock],
        peft_config=lora
        and peft.LoraConfig(task_type="CAUSAL_LM", r=lora.r, lora_alpha=lora.alpha, target_modules=lora.target_modules),
    )


def main() -> None:
    workspace, name = Path(sys.argv[1]), sys.argv[2]
    settings = config.load(workspace / "run.yaml")
    dataset = IndexedDataset(pipeline.dataset(settings))
    order = np.concatenate(step_order(settings, len(dataset)))
    clock = Clock()
    make_trainer(settings, rows_of(dataset, order, settings.loss.name), clock, workspace / name).train()
    (workspace / f"{name}.json").write_text(json.dumps(clock.rows))


if __name__ == "__main__":
    main()
