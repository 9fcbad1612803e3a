"""Completion log-probabilities: worked by hand, compared with the full logits of padded batches, and their memory."""

import math
import shutil

import peft
import pytest
import torch
import transformers
from torch.utils._python_dispatch import TorchDispatchMode

from east.training.chunked_logprobs import linear_logprobs
from east.training.logprobs import CompletionLogprobs
from east.training.packing import pack
from tests.yardstick import (
    VOCABULARY,
    gradients,
    padded_logprobs,
    random_sequences,
    relative_distance,
    tiny_llama,
    with_attention,
)

SHARED_PROMPTS, SHARED_COMPLETIONS = (
    [p for p in random_sequences(7, [9, 1, 17], [1] * 3)[0] for _ in (0, 1)],
    random_sequences(8, [1] * 6, [5, 21, 1, 8, 2, 13])[1],
)
COEFFICIENTS = torch.tensor([1.0, -0.01, 30.0, 0.2, -2.0, 0.7])


def compare(model, reference_model, chunk_tokens=2048, share_prompts=True, collision=True, recompute=False):
    """(largest relative difference of values, relative distance of gradients) between the packed forward pass of
    `model` and the padded one of `reference_model`."""
    sums, collisions = padded_logprobs(reference_model, SHARED_PROMPTS, SHARED_COMPLETIONS)
    (COEFFICIENTS.to(sums.dtype) * sums).sum().backward()
    module = CompletionLogprobs(model, chunk_tokens, with_collision=collision, recompute=recompute).train()
    out = module(pack(SHARED_PROMPTS, SHARED_COMPLETIONS, share_prompts))
    (COEFFICIENTS.to(out.sums.dtype) * out.sums).sum().backward()
    assert out.lengths.tolist() == [5, 21, 1, 8, 2, 13]
    difference = ((out.sums - sums).abs() / sums.abs()).max().item()
    if collision:
        assert not out.collision.requires_grad
        difference = max(difference, ((out.collision - collisions).abs() / sums.abs()).max().item())
    return difference, relative_distance(gradients(model), gradients(reference_model))


# The head alone


def test_linear_logprobs_by_hand():
    """hidden = (1, 1), rows of W (0, 0), (ln 2, 0), (0, ln 5): p = (1, 2, 5)/8. Target 1: log(2/8).
    d/dhidden = w_1 - sum p w = (ln 2, 0) - (2/8 ln 2, 5/8 ln 5). d/dW = (onehot - p) hidden^T: rows
    -1/8, 6/8, -5/8. Collision: sum p^2 = (1 + 4 + 25)/64 = 30/64; log((2/8)/(30/64)) = log(16/30)."""
    f64 = {"dtype": torch.float64, "requires_grad": True}
    hidden = torch.tensor([[1.0, 1.0]], **f64)
    weight = torch.tensor([[0, 0], [math.log(2), 0], [0, math.log(5)]], **f64)
    value, collision = linear_logprobs(hidden, weight, None, torch.tensor([1]), 8, with_collision=True)
    value.sum().backward()
    assert value.item() == pytest.approx(math.log(2 / 8), rel=1e-14)
    assert collision is not None and collision.item() == pytest.approx(math.log(16 / 30), rel=1e-14)
    assert hidden.grad[0].tolist() == pytest.approx([0.75 * math.log(2), -0.625 * math.log(5)], rel=1e-14)
    assert weight.grad[:, 0].tolist() == pytest.approx([-0.125, 0.75, -0.625], rel=1e-14)


@pytest.mark.parametrize("chunk_tokens", [1, 3, 7, 100])
@pytest.mark.parametrize("trained", ["hidden weight bias", "hidden", "weight", "bias"])
def test_gradients_by_finite_differences(chunk_tokens, trained):
    generator = torch.Generator().manual_seed(0)
    tensors = {
        name: torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_(name in trained.split())
        for name, shape in {"hidden": (7, 4), "weight": (5, 4), "bias": (5,)}.items()
    }
    targets = torch.tensor([0, 4, 2, 2, 1, 0, 3])
    torch.autograd.gradcheck(lambda *x: linear_logprobs(*x, targets, chunk_tokens)[0], tuple(tensors.values()))


def test_confident_and_impossible_tokens():
    """Logits 0 and -200, whose exponential is 0 in fp32: log p is exactly 0 and -200, and the gradients are
    exactly 0 and -200."""
    hidden = torch.ones(2, 1, requires_grad=True)
    weight, targets = torch.tensor([[0.0], [-200.0]]), torch.tensor([0, 1])
    value, collision = linear_logprobs(hidden, weight, None, targets, 8, with_collision=True)
    value.sum().backward()
    assert value.tolist() == [0.0, -200.0]
    assert collision is not None and collision.tolist() == [0.0, -200.0]
    assert hidden.grad[:, 0].tolist() == [0.0, -200.0]


# The whole module


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("share_prompts", [True, False], ids=["shared", "repeated"])
@pytest.mark.parametrize("chunk_tokens", [1, 16, 2048])
def test_packed_equals_padded(tied, share_prompts, chunk_tokens):
    """Values and gradients agree to 1e-5 in fp32, for all chunk sizes, with and without shared prompts."""
    model = tiny_llama("packed", tied)
    values, slopes = compare(model, with_attention(model, "eager"), chunk_tokens, share_prompts)
    assert values < 1e-5 and slopes < 1e-5


def test_packed_equals_padded_in_float64():
    """To 1e-7 only, because transformers computes norms in fp32 for models of every dtype."""
    model = tiny_llama("packed", dtype=torch.float64)
    values, slopes = compare(model, with_attention(model, "sdpa"), chunk_tokens=16)
    assert values < 1e-7 and slopes < 1e-7


def test_packed_equals_one_by_one():
    """The value of a sequence does not depend on the other sequences of its batch."""
    model = tiny_llama("packed")
    module = CompletionLogprobs(model)
    batched = module(pack(SHARED_PROMPTS, SHARED_COMPLETIONS))
    (COEFFICIENTS * batched.sums).sum().backward()
    batched_gradients = gradients(model)
    model.zero_grad()
    pairs = zip(SHARED_PROMPTS, SHARED_COMPLETIONS, strict=True)
    for s, (prompt, completion) in enumerate(pairs):
        single = module(pack([prompt], [completion])).sums
        (COEFFICIENTS[s] * single).sum().backward()
        torch.testing.assert_close(single[0], batched.sums[s], rtol=1e-5, atol=0)
    assert relative_distance(gradients(model), batched_gradients) < 1e-5


def test_bfloat16_error_is_that_of_the_padded_pass():
    """The distance to fp32 with the same rounded weights is at most 1.5 times that of transformers' padded bf16
    forward pass."""
    model = tiny_llama("packed", dtype=torch.bfloat16)
    padded_model, fp32_model = with_attention(model, "eager"), with_attention(model, "eager").float()
    fp32, _ = padded_logprobs(fp32_model, SHARED_PROMPTS, SHARED_COMPLETIONS)
    padded, _ = padded_logprobs(padded_model, SHARED_PROMPTS, SHARED_COMPLETIONS)
    out = CompletionLogprobs(model)(pack(SHARED_PROMPTS, SHARED_COMPLETIONS))
    assert out.sums.dtype == torch.float32
    for values in (fp32, padded, out.sums):
        (COEFFICIENTS * values).sum().backward()
    assert (out.sums - fp32).norm() < 1.5 * (padded - fp32).norm()
    fp32_gradients = gradients(fp32_model)
    padded_error = relative_distance(gradients(padded_model), fp32_gradients)
    assert relative_distance(gradients(model), fp32_gradients) < 1.5 * padded_error


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_gradient_checkpointing_changes_nothing(use_reentrant):
    model = tiny_llama("packed")
    reference = with_attention(model, "eager")
    model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
    model.train()
    values, slopes = compare(model, reference)
    assert values < 1e-5 and slopes < 1e-5


class MatrixProducts(TorchDispatchMode):
    """Counts 2 m k n for every product (torch's FlopCounterMode leaves out addmm_)."""

    flops = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func._overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.addmm_):
            left, right = args[-2:]
            self.flops += 2 * left.shape[0] * left.shape[1] * right.shape[1]
        return func(*args, **(kwargs or {}))


def test_no_work_for_gradients_that_are_not_needed():
    """50 tokens, V = 61, D = 32: a matrix product is 2 * 50 * 61 * 32 = 195,200 operations. Scoring needs one
    product (logits), training three (logits, d hidden, d weight), and two with a frozen head. With two chunks of
    25, training computes the logits of the first chunk twice: three and a half."""
    hidden = torch.randn(50, 32, requires_grad=True)
    weight = torch.randn(61, 32, requires_grad=True)

    def products(weight: torch.Tensor, chunk_tokens: int, backward: bool = True) -> float:
        with MatrixProducts() as count, torch.set_grad_enabled(backward):
            value, _ = linear_logprobs(hidden, weight, None, torch.arange(50), chunk_tokens)
            if backward:
                value.sum().backward()
        return count.flops / 195_200

    assert products(weight, 50, backward=False) == 1
    assert products(weight, 50) == 3
    assert products(weight.detach(), 25) == 2
    assert products(weight, 25) == 3.5


@pytest.mark.parametrize("chunk_tokens", [8, 16])
def test_logits_never_exceed_one_chunk(chunk_tokens):
    """Except for W and its gradient, no tensor has more than chunk * V elements."""
    from tests.test_packed_attention import LargestTensor

    hidden = torch.randn(200, 2, requires_grad=True)
    weight = torch.randn(1000, 2, requires_grad=True)
    with LargestTensor() as record:
        linear_logprobs(hidden, weight, None, torch.arange(200), chunk_tokens, True)[0].sum().backward()
    assert record.elements == chunk_tokens * 1000


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile on CPU needs g++")
@pytest.mark.parametrize("checkpointing", [False, True])
def test_compiled_layers_change_nothing(checkpointing):
    """With two batches of different shapes: the second must not run a graph that is specialised to the first."""
    model = tiny_llama("packed")
    reference = with_attention(model, "eager")
    module = CompletionLogprobs(model, compiled=True, recompute=checkpointing).train()
    names = list(module.state_dict())
    for seed, prompt_lengths, completion_lengths in ((1, [5, 2], [7, 3]), (2, [1, 9, 4], [2, 30, 1])):
        prompts, completions = random_sequences(seed, prompt_lengths, completion_lengths)
        model.zero_grad()
        reference.zero_grad()
        expected, _ = padded_logprobs(reference, prompts, completions)
        expected.sum().backward()
        sums = module(pack(prompts, completions)).sums
        sums.sum().backward()
        torch.testing.assert_close(sums, expected, rtol=1e-5, atol=0)
        assert relative_distance(gradients(model), gradients(reference)) < 1e-5
    assert names == [f"model.{name}" for name in model.state_dict()]


def test_state_dict_is_that_of_the_model():
    model = tiny_llama("packed", tied=False)
    module = CompletionLogprobs(model)
    assert list(module.state_dict()) == [f"model.{name}" for name in model.state_dict()]
    assert module.model is model
    assert [id(p) for p in module.parameters()] == [id(p) for p in model.parameters()]


# Other architectures, each compared with transformers' eager attention and full logits.

SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("Qwen2", {}),
        ("Qwen3", {"head_dim": 8}),
        ("Mistral", {"sliding_window": 6}),
        ("Granite", {"logits_scaling": 3.0}),
        ("Gemma", {"head_dim": 8}),
        ("Phi3", {}),
        ("Phi", {}),
        ("Olmo2", {}),
        ("Gemma2", {"head_dim": 8, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0, "sliding_window": 6}),
        ("Cohere", {"logit_scale": 0.25}),
    ],
)
def test_other_families(family, settings):
    """Attention biases, query norms, sliding windows shorter than a sequence, scaled logits, scaled embeddings,
    fused projections, a bias in the head, norms after the blocks, softcaps of attention and of logits."""
    config = getattr(transformers, f"{family}Config")(**{**SMALL, **settings})
    torch.manual_seed(3)
    model = getattr(transformers, f"{family}ForCausalLM")(config)
    for p in model.parameters():  # biases are zero at first: a bias that is left out would make no difference
        if p.dim() == 1:
            torch.nn.init.normal_(p, mean=1.0, std=0.3)
    reference = with_attention(model, "eager").eval()
    model.set_attn_implementation("packed")
    values, slopes = compare(model.eval(), reference, chunk_tokens=16)
    assert values < 1e-5 and slopes < 1e-5


def test_a_change_of_logits_without_a_config_key_is_an_error():
    """It is found by comparing the head with the model's own logits."""

    class Scaled(transformers.LlamaForCausalLM):
        def forward(self, *args, **kwargs):
            out = super().forward(*args, **kwargs)
            out.logits = out.logits * 1.01
            return out

    model = tiny_llama("packed")
    model.__class__ = Scaled
    with pytest.raises(ValueError, match="Scaled: log-probabilities differ by .* from the model's own forward pass"):
        CompletionLogprobs(model)


# PEFT


def lora(model, **kwargs):
    torch.manual_seed(11)
    config = peft.LoraConfig(r=4, lora_alpha=8, init_lora_weights=False, **kwargs)
    return peft.get_peft_model(model, config)


@pytest.mark.parametrize(
    "kwargs",
    [{"target_modules": "all-linear"}, {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}],
    ids=["head_frozen", "head_trained"],
)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_lora(kwargs, checkpointing):
    base = tiny_llama("packed", tied=False)
    reference, model = lora(with_attention(base, "eager"), **kwargs), lora(base, **kwargs)
    values, slopes = compare(model, reference, chunk_tokens=16, recompute=checkpointing)
    assert values < 1e-5 and slopes < 1e-5
    assert all("lora" in name or "modules_to_save" in name for name in gradients(model))


def test_disabled_adapter_is_the_base_model():
    base = tiny_llama("packed", tied=False)
    batch = pack(SHARED_PROMPTS, SHARED_COMPLETIONS)
    expected = CompletionLogprobs(base)(batch).sums.detach()
    model = lora(base, target_modules=["q_proj"], modules_to_save=["lm_head"])
    with torch.no_grad():
        model.base_model.model.lm_head.modules_to_save["default"].weight.add_(0.1)
    module = CompletionLogprobs(model)
    assert not torch.allclose(module(batch).sums, expected, rtol=1e-3)
    with model.disable_adapter():
        torch.testing.assert_close(module(batch).sums, expected, rtol=0, atol=0)


def test_lora_on_the_head_is_an_error():
    model = lora(tiny_llama("packed", tied=False), target_modules=["q_proj", "lm_head"])
    with pytest.raises(ValueError, match="modules_to_save"):
        CompletionLogprobs(model)
