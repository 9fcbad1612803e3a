"""The loss equations: values and gradients worked by hand, and compared with TRL's trainers."""

import math
from typing import Any

import numpy as np
import peft
import pytest
import torch

from east.data import training_data
from east.data.indexed_dataset import IndexedDataset, Writer
from east.run.config import Loss, Train
from east.training import losses, objective
from east.training.logprobs import CompletionLogprobs
from east.training.packing import pack
from tests.stages import folder_of
from tests.yardstick import VOCABULARY, gradients, random_sequences, relative_distance, tiny_llama

F64 = torch.float64
CPU = torch.device("cpu")


def vector(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=F64)


def test_sft_example_normalization():
    """lp = -6 over 3 tokens and -1 over 4: 6/3 = 2 and 1/4 = 0.25."""
    assert losses.sft(vector(-6, -1), torch.tensor([3, 4])).tolist() == [2.0, 0.25]


def test_sft_sum_normalization():
    """lp = -6 and -1: 6 and 1."""
    assert losses.sft(vector(-6, -1), torch.tensor([3, 4]), "sum").tolist() == [6.0, 1.0]


def test_sft_token_normalization_is_the_mean_over_the_tokens_of_the_step():
    """7 tokens in 2 examples: mean length 3.5; losses 6/3.5 and 1/3.5; their mean is (6+1)/7 = nats per
    token."""
    values = losses.sft(vector(-6, -1), torch.tensor([3, 4]), "token", mean_length=3.5)
    assert values.tolist() == pytest.approx([12 / 7, 2 / 7], rel=1e-15)
    assert values.mean().item() == pytest.approx(1.0, rel=1e-15)


def test_sft_token_normalization_does_not_depend_on_micro_batches():
    """With the mean length of the step, the losses of two micro-batches add up to that of the whole step."""
    lp, lengths = vector(-6, -1, -3, -8), torch.tensor([3, 4, 2, 7])
    whole = losses.sft(lp, lengths, "token", 4.0).sum()
    parts = [losses.sft(lp[s], lengths[s], "token", 4.0).sum() for s in (slice(0, 1), slice(1, 4))]
    assert sum(parts).item() == pytest.approx(whole.item(), rel=1e-15)


def test_unknown_sft_normalization_is_an_error():
    with pytest.raises(ValueError, match="'tokens'.*example, sum, token, microbatch"):
        losses.sft(vector(-1), torch.tensor([1]), "tokens")  # type: ignore[arg-type]


def test_dpo_by_hand():
    """beta 0.5; r_chosen = -10 - -12 = 2, r_rejected = -9 - -8 = -1: margin 0.5 * 3 = 1.5;
    -log sigmoid(1.5) = log(1 + e^-1.5) = log(1.2231302) = 0.2014133."""
    value = losses.dpo(vector(-10), vector(-9), vector(-12), vector(-8), 0.5)
    assert value.item() == pytest.approx(math.log(1 + math.exp(-1.5)), rel=1e-14)
    assert value.item() == pytest.approx(0.2014133, abs=5e-8)


def test_dpo_gradient_by_hand():
    """dL/d chosen = -beta * sigmoid(-margin) = -0.5 * sigmoid(-1.5) = -0.0912128; opposite for rejected."""
    chosen, rejected = vector(-10).requires_grad_(), vector(-9).requires_grad_()
    losses.dpo(chosen, rejected, vector(-12), vector(-8), 0.5).sum().backward()
    assert chosen.grad.item() == pytest.approx(-0.5 / (1 + math.exp(1.5)), rel=1e-14)
    assert rejected.grad.item() == -chosen.grad.item()


def test_dpo_at_step_zero_is_log_two():
    lp_c, lp_r = vector(-10, -400), vector(-9, -3)
    assert losses.dpo(lp_c, lp_r, lp_c, lp_r, 0.1).tolist() == pytest.approx([math.log(2)] * 2, rel=1e-15)


def test_dpo_does_not_overflow():
    """beta 1, margin -1000: -log sigmoid(-1000) = 1000, and the gradient with respect to chosen is -1."""
    chosen = torch.tensor([-1000.0], requires_grad=True)
    value = losses.dpo(chosen, torch.zeros(1), torch.zeros(1), torch.zeros(1), 1.0)
    value.sum().backward()
    assert value.item() == 1000.0 and chosen.grad.item() == -1.0


def test_kto_by_hand():
    """beta 0.5, z0 = 1, lambda_D = 2, lambda_U = 3.
    Desirable, r = 3: 2 * (1 - sigmoid(0.5 * 2)) = 2 * (1 - 0.7310586) = 0.5378828.
    Undesirable, r = -1: 3 * (1 - sigmoid(0.5 * (1 - -1))) = 3 * 0.2689414 = 0.8068243."""
    value = losses.kto(vector(-7, -5), vector(-10, -4), torch.tensor([True, False]), 1.0, 0.5, 2.0, 3.0)
    assert value.tolist() == pytest.approx([0.5378828, 0.8068243], abs=5e-8)


def test_kto_at_step_zero_is_half_of_lambda():
    lp = vector(-7, -5)
    assert losses.kto(lp, lp, torch.tensor([True, False]), 0.0, 0.1, 1.5, 0.5).tolist() == [0.75, 0.25]


def test_kto_one_class_only():
    """Undesirable only, r = 0, z0 = 2, beta 1: 1 - sigmoid(2) = 0.1192029 each."""
    lp = vector(-7, -5)
    value = losses.kto(lp, lp, torch.tensor([False, False]), 2.0, 1.0)
    assert value.tolist() == pytest.approx([0.1192029] * 2, abs=5e-8)


def test_kto_reference_point_is_clamped_after_the_mean():
    """r = 3 and -1: mean 1. r = -3 and 1: mean -1, clamped to 0 (clamping each first would give 0.5)."""
    assert losses.kto_reference_point(vector(3, -1).sum(), 2).item() == 1.0
    assert losses.kto_reference_point(vector(-3, 1).sum(), 2).item() == 0.0


def test_kto_has_no_gradient_through_the_reference_point():
    lp = vector(-7).requires_grad_()
    kl_lp = vector(-3).requires_grad_()
    z0 = losses.kto_reference_point((kl_lp - vector(-4)).sum(), 1)
    losses.kto(lp, vector(-7), torch.tensor([True]), z0, 0.5).sum().backward()
    assert kl_lp.grad is None
    # d/dlp of 1 - sigmoid(0.5 (r - 1)) at r = 0: -0.5 * sigmoid(-0.5) * sigmoid(0.5) = -0.5 * 0.2350037
    assert lp.grad.item() == pytest.approx(-0.5 * 0.2350037, abs=5e-8)


def test_rewards_have_no_gradient():
    """beta 0.5, r = 2: 1."""
    value = losses.rewards(vector(-10).requires_grad_(), vector(-12), 0.5)
    assert value.tolist() == [1.0] and not value.requires_grad


def test_local_weight_p_by_hand():
    """lp = -2 ln 4 over 2 tokens: perplexity 4. lp = -3 ln 2 over 3: 2. Mean 3: weights 4/3 and 2/3."""
    lp, lengths = vector(-2 * math.log(4), -3 * math.log(2)).requires_grad_(), torch.tensor([2, 3])
    perplexity = losses.perplexity(lp, lengths)
    assert perplexity.tolist() == pytest.approx([4.0, 2.0], rel=1e-14)
    weights = losses.local_weight_p(lp, lengths, perplexity.mean())
    assert weights.tolist() == pytest.approx([4 / 3, 2 / 3], rel=1e-14) and not weights.requires_grad


def test_local_weight_w_by_hand():
    """Two tokens drawn from (1/2, 1/4, 1/4), both the first: sum p^2 = 1/4 + 1/16 + 1/16 = 3/8;
    log(0.5 / 0.375) = log(4/3) each; exp(2 log(4/3) / 2) = 4/3."""
    collision = vector(2 * math.log(0.5 / 0.375)).requires_grad_()
    weight = losses.local_weight_w(collision, torch.tensor([2]))
    assert weight.item() == pytest.approx(4 / 3, rel=1e-14) and not weight.requires_grad


def test_weighted_sum_in_float64():
    """L = -lp/T = 2, 0.25, 3 with weights 0.001, 10, 1: (0.002 + 2.5 + 3) / 3 = 1.834; the gradient of each
    example is -w / (3 T), independent of the other examples: -0.001/9, -10/12, -1/3."""
    lp = vector(-6, -1, -3).requires_grad_()
    loss = (vector(0.001, 10, 1) * losses.sft(lp, torch.tensor([3, 4, 1]))).mean()
    loss.backward()
    assert loss.item() == pytest.approx(1.834, rel=1e-14)
    assert lp.grad.tolist() == pytest.approx([-0.001 / 9, -10 / 12, -1 / 3], rel=1e-14)


def test_weighted_dpo_in_float64():
    """beta 0.5. Weight 0.1, margin 0.5 * (2 - -1) = 1.5: L = log(1 + e^-1.5) = 0.2014133. Weight 3, margin
    0.5 * (-1 - 1) = -1: L = log(1 + e) = 1.3132617. (0.02014133 + 3.9397851) / 2 = 1.9799632.
    d/d chosen = -w beta sigmoid(-margin) / 2: -0.025 * 0.1824255 and -0.75 * 0.7310586; opposite for rejected."""
    chosen, rejected = vector(-10, -6).requires_grad_(), vector(-9, -7).requires_grad_()
    loss = (vector(0.1, 3) * losses.dpo(chosen, rejected, vector(-12, -5), vector(-8, -8), 0.5)).mean()
    loss.backward()
    exact = (0.1 * math.log(1 + math.exp(-1.5)) + 3 * math.log(1 + math.e)) / 2
    assert loss.item() == pytest.approx(exact, rel=1e-14) == pytest.approx(1.9799632, abs=5e-8)
    slopes = [-0.025 / (1 + math.exp(1.5)), -0.75 / (1 + math.exp(-1))]
    assert chosen.grad.tolist() == pytest.approx(slopes, rel=1e-14)
    assert rejected.grad.tolist() == pytest.approx([-x for x in slopes], rel=1e-14)


def test_weighted_kto_in_float64():
    """beta 0.5, lambda_D = 2, lambda_U = 3, z0 = 1 from pairs of r = 3 and -1. Weight 0.1, desirable, r = 3:
    L = 2 sigmoid(-1) = 0.5378828. Weight 3, undesirable, r = -1: L = 3 sigmoid(-1) = 0.8068243.
    (0.05378828 + 2.4204728) / 2 = 1.2371305. With s = sigmoid(1) sigmoid(-1) = 0.1966119 the gradients are
    -0.1 * 2 * 0.5 s / 2 = -0.05 s and 3 * 3 * 0.5 s / 2 = 2.25 s."""
    lp, desirable = vector(-7, -5).requires_grad_(), torch.tensor([True, False])
    z0 = losses.kto_reference_point(vector(3, -1).sum(), 2)
    loss = (vector(0.1, 3) * losses.kto(lp, vector(-10, -4), desirable, z0, 0.5, 2.0, 3.0)).mean()
    loss.backward()
    low = 1 / (1 + math.e)
    assert loss.item() == pytest.approx((0.1 * 2 * low + 3 * 3 * low) / 2, rel=1e-14)
    assert loss.item() == pytest.approx(1.2371305, abs=5e-8)
    slope = low * (1 - low)
    assert lp.grad.tolist() == pytest.approx([-0.05 * slope, 2.25 * slope], rel=1e-14)


# TRL: the same tiny model, tokens and reference. TRL computes its losses inside trainers, so the trainers are run.


def tokenizer():
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"<pad>": 0, "</s>": 1, **{f"t{i}": i for i in range(2, 61)}}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="</s>")


def trl_trainer(kind: str, rows: list[dict], folder, reference_seed: int = 5, **arguments):
    """A TRL trainer on rows that are tokenised already."""
    import trl
    from datasets import Dataset

    trainer_class: Any = getattr(trl, f"{kind}Trainer")
    config_class: Any = getattr(trl, f"{kind}Config")

    class Tokenized(trainer_class):  # type: ignore[misc, valid-type]
        def _prepare_dataset(self, dataset, *_args, **_kwargs):
            return dataset

    config = config_class(
        output_dir=str(folder),
        per_device_train_batch_size=len(rows),
        report_to=[],
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        remove_unused_columns=False,
        max_length=None,
        **arguments,
    )
    return Tokenized(
        model=tiny_llama("sdpa"),
        ref_model=tiny_reference("sdpa", reference_seed),
        args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer(),
    )


def tiny_reference(attention: str, seed: int):
    """The tiny model with noise added to its weights: a reference that differs from the policy."""
    model = tiny_llama(attention)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.02 * torch.randn(p.shape, generator=generator))
    return model


def trl_loss(trainer, rows: list[dict]):
    batch = trainer.data_collator(rows)
    trainer.model.train()
    trainer.model.zero_grad()
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    return loss.item(), gradients(trainer.model)


def reference_sums(prompts: list, completions: list, seed: int = 5) -> torch.Tensor:
    with torch.no_grad():
        return CompletionLogprobs(tiny_reference("packed", seed))(pack(prompts, completions)).sums


@pytest.fixture
def preferences():
    prompts, chosen = random_sequences(3, [7, 1, 12, 4], [5, 9, 1, 14])
    _, rejected = random_sequences(4, [1] * 4, [8, 2, 11, 6])
    return prompts, chosen, rejected


@pytest.mark.parametrize("wpo", [False, True])
def test_dpo_equals_trl(preferences, tmp_path, wpo):
    """Loss and gradient of DPO; with TRL's use_weighting also LW(W), which TRL clamps at 1, as WPO does."""
    prompts, chosen, rejected = preferences
    rows = [
        {"prompt_ids": p.tolist(), "chosen_ids": c.tolist(), "rejected_ids": r.tolist()}
        for p, c, r in zip(prompts, chosen, rejected, strict=True)
    ]
    trainer = trl_trainer("DPO", rows, tmp_path, beta=0.3, use_weighting=wpo)
    expected, expected_gradient = trl_loss(trainer, rows)

    model = tiny_llama("packed")
    out = CompletionLogprobs(model, with_collision=True)(pack(prompts + prompts, chosen + rejected))
    reference = reference_sums(prompts + prompts, chosen + rejected)
    values = losses.dpo(*out.sums.chunk(2), *reference.chunk(2), 0.3)
    if wpo:
        chosen_weight, rejected_weight = losses.local_weight_w(out.collision, out.lengths).chunk(2)
        values = values * (chosen_weight * rejected_weight).clamp(max=1)
    loss = values.mean()
    loss.backward()
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert relative_distance(gradients(model), expected_gradient) < 1e-5


@pytest.mark.parametrize("reference_seed", [6, 5], ids=["z0_positive", "z0_clamped"])
@pytest.mark.parametrize("labels", [[True, False, False, True], [False] * 4], ids=["mixed", "one_class"])
def test_kto_equals_trl(preferences, tmp_path, labels, reference_seed):
    """Loss and gradient of KTO, with z0 over the batch from TRL's mismatched pairs (x_i, y_(i-1))."""
    prompts, completions, _ = preferences
    mismatched = completions[-1:] + completions[:-1]
    rows = [
        {
            "prompt_ids": p.tolist(),
            "completion_ids": c.tolist(),
            "KL_completion_ids": k.tolist(),
            "label": label,
        }
        for p, c, k, label in zip(prompts, completions, mismatched, labels, strict=True)
    ]
    trainer = trl_trainer("KTO", rows, tmp_path, reference_seed, beta=0.3, desirable_weight=1.5, undesirable_weight=0.7)
    expected, expected_gradient = trl_loss(trainer, rows)

    model = tiny_llama("packed")
    module = CompletionLogprobs(model)
    with torch.no_grad():
        kl = module(pack(prompts, mismatched)).sums - reference_sums(prompts, mismatched, reference_seed)
    z0 = losses.kto_reference_point(kl.sum(), len(kl))
    out = module(pack(prompts, completions))
    reference = reference_sums(prompts, completions, reference_seed)
    loss = losses.kto(out.sums, reference, torch.tensor(labels), z0, 0.3, 1.5, 0.7).mean()
    loss.backward()
    assert (z0 > 0) == (reference_seed == 6), "z0 must be positive in one case and clamped to 0 in the other"
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert relative_distance(gradients(model), expected_gradient) < 1e-5


LABELS = [True, False, False, True]


def stored(folder, loss: str, prompts: list, completions: list, others: list) -> training_data.Data:
    """Four examples as `train.py` reads them, of weight 1. others: rejected responses, or those of mismatched pairs."""
    with folder_of("dataset", folder, {}, {}).writing() as (scratch, summary):
        writer, pairs = Writer(scratch, VOCABULARY), []
        for q, (prompt, completion, other) in enumerate(zip(prompts, completions, others, strict=True)):
            segment = writer.segment(prompt)
            first, second = (writer.sequence(segment, writer.segment(ids), q, 0) for ids in (completion, other))
            writer.example(q, first, second if loss == "dpo" else -1, loss == "dpo" or LABELS[q])
            pairs.append(second)
        writer.close(list("abcd"), np.array([pairs]) if loss == "kto" else None)
        summary["vocabulary"] = VOCABULARY
    tokens = IndexedDataset(folder_of("dataset", folder))
    rows = range(len(tokens.sequences))
    column = reference_sums([tokens.prompt(r) for r in rows], [tokens.completion(r) for r in rows], seed=6)
    return training_data.Data(tokens, np.ones(4), np.arange(4), column.double().numpy(), {})


@pytest.mark.parametrize(
    ("loss", "kl", "micro_batch", "trl_batch"),
    [("dpo", "step", 2, 4), ("kto", "step", 1, 4), ("kto", "microbatch", 2, 2)],
)
def test_a_step_equals_trl(preferences, tmp_path, loss, kl, micro_batch, trl_batch):
    """From the dataset on disk to the loss and gradient of a step. With z0 over the step, TRL gets all four examples
    in one batch; with z0 per micro-batch, the expected value is the mean of TRL's on the same two micro-batches."""
    prompts, completions, others = preferences
    others = others if loss == "dpo" else completions[-1:] + completions[:-1]
    data = stored(tmp_path / "data", loss, prompts, completions, others)
    settings = Loss(name=loss, beta=0.3, kl=kl, lambda_desirable=1.5, lambda_undesirable=0.7)
    train = Train(batch_size=4, micro_batch=micro_batch)
    step = objective.load(data, settings, train, "shared_prompts", 0, 0, 1, CPU)
    model = tiny_llama("packed")
    module = CompletionLogprobs(model)
    numbers = objective.step_numbers(settings, module, step, lambda values: values)
    total = 0.0
    for micro, number in zip(step.micro_batches, numbers, strict=True):
        values, _ = objective.example_losses(settings, module(micro.batch), micro, number)
        part = (micro.weights * values).sum() / len(step.rows)
        part.backward()
        total += part.item()

    dpo = {"prompt_ids": prompts, "chosen_ids": completions, "rejected_ids": others}
    kto = {"prompt_ids": prompts, "completion_ids": completions, "KL_completion_ids": others}
    columns = dpo if loss == "dpo" else kto
    rows = [{**{name: values[i].tolist() for name, values in columns.items()}, "label": LABELS[i]} for i in step.rows]
    more = {} if loss == "dpo" else {"desirable_weight": 1.5, "undesirable_weight": 0.7}
    trainer = trl_trainer(loss.upper(), rows, tmp_path, reference_seed=6, beta=0.3, **more)
    parts = [trl_loss(trainer, rows[i : i + trl_batch]) for i in range(0, 4, trl_batch)]
    expected = {name: sum(g[name] for _, g in parts) / len(parts) for name in parts[0][1]}
    assert len({float(number.z0) for number in numbers}) == (2 if kl == "microbatch" else 1)
    assert total == pytest.approx(sum(value for value, _ in parts) / len(parts), rel=1e-5)
    assert relative_distance(gradients(model), expected) < 1e-5


@pytest.mark.parametrize(
    ("settings", "number"),
    [(Loss(name="kto"), "z0"), (Loss(name="dpo", local_weight="lw_p"), "mean_perplexity")],
    ids=["kto", "lw_p"],
)
def test_quantities_of_a_step_are_computed_without_dropout(preferences, tmp_path, settings, number):
    """z0 and mean perplexity are the same for every seed, and the model is in training mode again afterwards."""
    data = stored(tmp_path / "data", settings.name, *preferences)
    step = objective.load(data, settings, Train(batch_size=4, micro_batch=1), "shared_prompts", 0, 0, 1, CPU)
    lora = peft.LoraConfig(r=4, lora_dropout=0.5, init_lora_weights=False, target_modules="all-linear")
    torch.manual_seed(0)
    module = CompletionLogprobs(peft.get_peft_model(tiny_llama("packed"), lora)).train()
    values = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        numbers = objective.step_numbers(settings, module, step, lambda values: values)
        values.append([float(getattr(n, number)) for n in numbers])
    assert values[0] == values[1] and values[0][0] > 0 and module.training
