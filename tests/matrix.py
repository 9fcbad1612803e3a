"""What the whole pipeline does with a tiny model of a family: exact with packed rows, exact with a row for each
sequence, or refused by `east check`; and whether transformers can draw from it."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

import train
from east import models
from east.checks import plain_trainer, trial
from east.models import policy
from east.run import config, files
from east.run.config import Config, Lora
from east.training import metrics
from tests import conftest, model_families, stages

EXACT = 2e-5  # relative error of losses and gradient norms, float32
PACKED, UNPACKED, REFUSED = "exact", "exact with `model.packing: none`", "refused"


class Outcome(NamedTuple):
    """training: PACKED, UNPACKED or REFUSED. lora, sampling: "exact" or REFUSED. reasons: the refusals of `check`."""

    training: str
    lora: str
    sampling: str
    reasons: tuple[str, ...]


def outcome(name: str, tmp: Path, tokenizer: Any) -> Outcome:
    """Run `check`'s trial, and what it does not refuse: a greedy draw by transformers, and one step of SFT and of DPO,
    exported and loaded back. Raises AssertionError when one of them is not exact."""
    model = tmp / "model"
    model_families.make(name, model, tokenizer)
    training, packing, reasons = REFUSED, "", list[str]()
    for packing, meaning in (("shared_prompts", PACKED), ("none", UNPACKED)):
        if (refusal := refused(partial(_trial, settings(tmp, model, packing)))) is None:
            training = meaning
            break
        reasons.append(refusal)
    lora = REFUSED
    if training != REFUSED:
        adapted = settings(tmp, model, packing)
        adapted = adapted.model_copy(update={"model": adapted.model.model_copy(update={"lora": Lora(r=4)})})
        refusal = refused(partial(_trial, adapted))
        lora = REFUSED if refusal else PACKED
        reasons += [refusal] if refusal else []
        for loss in ("sft", "dpo"):
            check_step(conftest.prepare(tmp, model, **changes(model, packing), loss={"name": loss}))
    drawn = settings(tmp, model, "none", run=str(tmp / "drawn"), sampling=GREEDY)
    refusal = refused(partial(stages.run, "sample", drawn))
    if refusal is None:
        check_draw(drawn, policy.load(model, dtype="float32"))
    else:
        reasons.append(refusal)
    return Outcome(training, lora, "exact" if refusal is None else REFUSED, tuple(reasons))


GREEDY = {"responses": None, "n": 1, "temperature": 0.0, "max_tokens": 10, "batch": 4, "max_model_len": 125}


def changes(model: Path, packing: str) -> dict[str, Any]:
    """Sections of the run file for one step of the model."""
    return {
        "model": {"path": str(model), "packing": packing},
        "train": {"max_steps": 1, "epochs": 1},
        "task": {"train_rows": [0, 12]},
    }


def settings(tmp: Path, model: Path, packing: str, **more: Any) -> Config:
    """The run file of a family."""
    return config.parse(conftest.settings(tmp, model, **changes(model, packing), loss={"name": "dpo"}, **more))


def refused(action: Callable[[], Any]) -> str | None:
    """The line with which the action refuses, None if it does not."""
    try:
        action()
    except ValueError as error:
        return str(error)
    return None


def _trial(run: Config) -> None:
    start = models.resolve(*run.starting_model)
    trial.run(run, start, models.outline(start))


def check_step(run: Config) -> None:
    """The loss and the gradient norm of the first step are those of the plain trainer, one sequence at a time."""
    train.train(run)
    step = metrics.read(run.folder_of("train"))[0]
    gradient, (loss,) = plain_trainer.train(run, 1)
    norm = float(torch.stack([g.norm() for g in gradient.values()]).norm())
    assert math.isclose(step["loss"], loss, rel_tol=EXACT), (run.loss.name, step["loss"], loss)
    assert math.isclose(step["grad_norm"], norm, rel_tol=EXACT), (run.loss.name, step["grad_norm"], norm)


def check_draw(run: Config, model: Any) -> None:
    """Every greedily drawn token has the largest logit of the model's own forward pass over the whole sequence."""
    folder = run.folder_of("samples")
    rows = zip(files.read_jsonl(folder / "questions.jsonl"), files.read_jsonl(folder / "responses.jsonl"), strict=True)
    for asked, drawn in rows:
        prompt, (tokens,) = asked["prompt_tokens"], drawn["tokens"]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([prompt + tokens]), use_cache=False).logits[0, len(prompt) - 1 : -1]
        chosen = logits.gather(1, torch.tensor(tokens)[:, None])[:, 0]
        assert float((logits.amax(1) - chosen).max()) < 1e-4, (asked["id"], tokens)
