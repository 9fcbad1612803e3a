"""The transformers engine: `model.generate`, with tokens drawn here, and the keys and values of each prompt computed
once for all of its responses.

Shape legend: B rows (responses drawn together), L prompt positions, T response positions, V vocabulary.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from transformers.cache_utils import DynamicLayer

from east import models
from east.models import policy
from east.run.config import Sampling
from east.sampling.engine_interface import Drawn, Engine, Request, response_text

CHECKED = (9, 41, 60, 61)  # lengths of the prompts with which generation is checked
GENERATION = {"float32": 1e-3, "float16": 0.1, "bfloat16": 0.5}  # mean |difference of log-probabilities|, in nats


def transformers_engine(
    model_folder: Path, settings: Sampling, end_ids: list[int], context: int, trust: bool = False
) -> Engine:
    """An engine that runs `model.generate` on a GPU if there is one, else on the CPU, with tokens drawn by `choose`.

    context: largest length of a sequence. trust: run Python code that comes with the model. Raises ValueError when the
    model cannot be loaded or drawn from, and while drawing when a batch does not fit into the memory of the device.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = load_checked(model_folder, settings.dtype, device, trust)
    tokenizer = models.load_tokenizer(model_folder, trust)
    ends = set(end_ids)

    def engine(requests: Iterable[Request]) -> Iterator[Drawn]:
        # longest prompts first: if a batch does not fit into memory, it is the first one
        ordered = sorted(requests, key=lambda r: -len(r.prompt))
        rows = [(request, sample) for request in ordered for sample in range(request.count)]
        waiting: list[tuple[list[int], str]] = []  # responses of requests that are not finished
        for start in range(0, len(rows), settings.batch):
            waiting += _batch(model, tokenizer, rows[start : start + settings.batch], settings, ends, context)
            while ordered and len(waiting) >= ordered[0].count:
                request = ordered.pop(0)
                finished, waiting = waiting[: request.count], waiting[request.count :]
                tokens, reasons = [t for t, _ in finished], [reason for _, reason in finished]
                text = [response_text(tokenizer, t, ends, settings.stop) for t in tokens]
                yield Drawn(request.question, request.first, tokens, text, reasons)

    return engine


def load_checked(model_folder: Path, dtype: str, device: str, trust: bool) -> Any:
    """The model without its own sampling defaults; raises ValueError as `models.load` and `check_generation` do."""
    model = models.load(model_folder, dtype=dtype, trust=trust).to(device)
    # the model's own defaults (top_k, repetition_penalty, ...) must not be added to the run's settings
    model.generation_config = transformers.GenerationConfig()  # type: ignore[no-untyped-call]  # transformers
    check_generation(model)
    return model


@torch.inference_mode()
def check_generation(model: Any) -> None:
    """Compare the logits of a few tokens, generated with cached keys, values and states after prompts of unequal
    lengths in one batch, with those of the model's forward pass over each whole sequence.

    Raises ValueError when they differ by more than rounding explains, or when the model cannot generate like this.
    """
    prompts = [policy.random_sequence(model, length, 1, seed=length)[0] for length in CHECKED]
    ids_BL, mask_BL = _left_padded(prompts, 0)
    ids_BL, mask_BL = ids_BL.to(model.device), mask_BL.to(model.device)
    differences = list[torch.Tensor]()
    try:
        cache = _prompt_cache(model, ids_BL, mask_BL, [str(length) for length in CHECKED])
        out = model.generate(
            ids_BL,
            attention_mask=mask_BL,
            past_key_values=cache,
            max_new_tokens=5,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
        for row, prompt in enumerate(prompts):
            drawn = out.sequences[row, ids_BL.shape[1] :]
            steps = torch.stack([logits[row] for logits in out.logits]).float().log_softmax(-1)
            of_drawn = steps.gather(1, drawn[:, None])[:, 0]
            differences.append((of_drawn - policy.token_logprobs(model, prompt, drawn)).abs())
    except Exception as error:  # the model classes raise many types for caches that they do not support
        line = f"{type(error).__name__}: {' '.join(str(error).split())[:150]}"
        raise ValueError(
            f"{type(model).__name__}: transformers cannot draw from it in batches ({line}); set sampling.engine=vllm"
        ) from None
    mean, allowed = float(torch.cat(differences).mean()), GENERATION[policy.dtype_name(model)]
    if not mean <= allowed:
        raise ValueError(
            f"{type(model).__name__}: log-probabilities of tokens that transformers draws in a batch differ by "
            f"{mean:.1e} nats from the model's forward pass, expected at most {allowed:g}; set sampling.engine=vllm"
        )


def choose(logits_BV: torch.Tensor, uniforms_B: torch.Tensor, temperature: float, top_p: float) -> torch.Tensor:
    """One token per row, [B] int64, drawn by inverting the cumulative distribution at the row's uniform number.

    logits_BV: any float dtype; uniforms_B: float64 in [0, 1). The distribution is softmax(logits / temperature),
    restricted to the smallest set of most likely tokens whose probability reaches top_p. The cumulative sum is float64:
    over 10^5 tokens, float32 loses the tail.
    """
    probs_BV = torch.softmax(logits_BV.float() / temperature, dim=-1)
    if top_p < 1:
        sorted_BV, order_BV = probs_BV.sort(dim=-1, descending=True)
        above_BV = sorted_BV.cumsum(dim=-1) - sorted_BV  # probability of the tokens that are more likely
        probs_BV = torch.zeros_like(probs_BV).scatter(1, order_BV, sorted_BV.masked_fill(above_BV >= top_p, 0.0))
    cdf_BV = probs_BV.cumsum(dim=-1, dtype=torch.float64)
    return torch.searchsorted(cdf_BV, (uniforms_B * cdf_BV[:, -1])[:, None], right=True)[:, 0]


def uniforms(seed: int, count: int) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1) for the positions of one response, [count], from a counter-based generator with its
    seed: a longer array begins with a shorter one."""
    return np.random.Generator(np.random.Philox(key=seed)).random(count)


class _OnlyDrawnToken(transformers.LogitsProcessor):
    """Sets the scores of all tokens but the one drawn by `choose` to -inf, so that greedy decoding picks that one.

    uniforms_BT: a uniform number per row and response position; width: prompt positions.
    """

    def __init__(self, uniforms_BT: torch.Tensor, width: int, temperature: float, top_p: float):
        self.uniforms_BT, self.width, self.temperature, self.top_p = uniforms_BT, width, temperature, top_p

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        position = input_ids.shape[1] - self.width
        chosen_B = choose(scores, self.uniforms_BT[:, position], self.temperature, self.top_p)
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen_B[:, None], 0.0)


class _Ended(transformers.StoppingCriteria):
    """Which rows have ended: after `length_B` tokens (0: not ended), and by an end token or stop text (`stopped_B`) or
    because their `budget_B` of tokens was used up. width: prompt positions."""

    def __init__(self, width: int, budget_B: torch.Tensor, ends: set[int], stop: list[str], tokenizer: Any):
        self.width, self.budget_B, self.stop, self.tokenizer = width, budget_B, stop, tokenizer
        self.ends = torch.tensor(sorted(ends), device=budget_B.device)
        self.length_B = torch.zeros_like(budget_B)
        self.stopped_B = torch.zeros_like(budget_B, dtype=torch.bool)
        # A stop text has at most one token per byte. More are decoded, because the newest one may complete a character.
        self.window = max((len(s.encode()) for s in stop), default=0) + 8

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> Any:
        drawn = input_ids.shape[1] - self.width
        stopped_B = torch.isin(input_ids[:, -1], self.ends)
        if self.stop:
            stopped_B |= self._has_stop_text(input_ids[:, self.width :])
        new_B = (stopped_B | (self.budget_B <= drawn)) & (self.length_B == 0)
        self.length_B[new_B] = drawn
        self.stopped_B |= new_B & stopped_B
        return self.length_B > 0

    def _has_stop_text(self, tokens_BT: torch.Tensor) -> torch.Tensor:
        tails = self.tokenizer.batch_decode(tokens_BT[:, -self.window :], skip_special_tokens=True)
        return torch.tensor([any(s in tail for s in self.stop) for tail in tails], device=tokens_BT.device)


@torch.inference_mode()
def _batch(
    model: Any,
    tokenizer: Any,
    rows: list[tuple[Request, int]],
    settings: Sampling,
    ends: set[int],
    context: int,
) -> list[tuple[list[int], str]]:
    """Tokens and finish reason of each (request, sample), drawn in one batch."""
    device, width = model.device, max(len(request.prompt) for request, _ in rows)
    budgets = [min(settings.max_tokens, context - len(request.prompt)) for request, _ in rows]
    ids_BL, mask_BL = _left_padded([request.prompt for request, _ in rows], min(ends))
    ended = _Ended(width, torch.tensor(budgets, device=device), ends, settings.stop, tokenizer)
    processors = transformers.LogitsProcessorList()
    if settings.temperature > 0:
        seeds = [request.seed + request.first + sample for request, sample in rows]
        uniforms_BT = torch.from_numpy(np.stack([uniforms(seed, max(budgets)) for seed in seeds])).to(device)
        processors.append(_OnlyDrawnToken(uniforms_BT, width, settings.temperature, settings.top_p))
    try:
        ids_BL, mask_BL = ids_BL.to(device), mask_BL.to(device)
        out = model.generate(
            ids_BL,
            attention_mask=mask_BL,
            past_key_values=_prompt_cache(model, ids_BL, mask_BL, [request.question for request, _ in rows]),
            max_new_tokens=max(budgets),
            do_sample=False,
            logits_processor=processors,
            stopping_criteria=transformers.StoppingCriteriaList([ended]),
        )
    except torch.OutOfMemoryError:
        raise ValueError(
            f"sampling.batch: {len(rows)} sequences do not fit into the memory of {device}; lower it"
        ) from None
    ends_B = zip(ended.length_B.tolist(), ended.stopped_B.tolist(), strict=True)
    return [
        (out[row, width : width + length].tolist(), "stop" if stopped else "length")
        for row, (length, stopped) in enumerate(ends_B)
    ]


def _left_padded(prompts: list[list[int]], filler: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(token ids, mask: 1 where a row has a prompt token), [B, L] int64 on the CPU."""
    width = max(map(len, prompts))
    ids_BL, mask_BL = torch.full((len(prompts), width), filler), torch.zeros((len(prompts), width), dtype=torch.int64)
    for row, prompt in enumerate(prompts):
        ids_BL[row, width - len(prompt) :] = torch.tensor(prompt)
        mask_BL[row, width - len(prompt) :] = 1
    return ids_BL, mask_BL


def _prompt_cache(model: Any, ids_BL: torch.Tensor, mask_BL: torch.Tensor, questions: list[str]) -> Any:
    """Keys and values of all prompt tokens but the last, computed once per question and repeated for its rows.

    mask_BL: 1 where ids_BL has a prompt token, 0 for padding. questions: of each row. None for prompts of one token,
    and for recurrent models, whose state cannot be repeated by row: `generate` then computes each row's prompt.
    """
    cache = transformers.DynamicCache(config=model.config)
    if ids_BL.shape[1] == 1 or not all(isinstance(layer, DynamicLayer) for layer in cache.layers):
        return None
    first: dict[str, int] = {}
    for row, question in enumerate(questions):
        first.setdefault(question, row)
    rows = torch.tensor(list(first.values()), device=ids_BL.device)
    index = {question: i for i, question in enumerate(first)}
    ids, mask = ids_BL[rows, :-1], mask_BL[rows, :-1]
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    model(
        ids,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    cache.batch_select_indices(torch.tensor([index[q] for q in questions], device=ids_BL.device))
    cache.layers = [_Preallocated(layer) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


class _Preallocated(DynamicLayer):  # type: ignore[no-untyped-call]  # transformers
    """The keys and values of a layer in buffers with free space, into which new positions are written.

    The library's own layer copies all earlier positions for each new one, which takes half of the time on a CPU.
    """

    keys: Any
    values: Any

    def __init__(self, layer: DynamicLayer):
        super().__init__()  # type: ignore[no-untyped-call]  # transformers
        self.dtype, self.device, self.is_initialized = layer.dtype, layer.device, True
        self.keys, self.values = layer.keys, layer.values  # from the first update on, views of the buffers
        self.buffers: list[Any] = [layer.keys, layer.values]

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any) -> Any:
        """Append the keys and values of new positions; returns those of all. Full buffers are doubled."""
        old = self.keys.shape[-2]
        new = old + key_states.shape[-2]
        if new > self.buffers[0].shape[-2]:
            shape = (*self.keys.shape[:-2], 2 * new, self.keys.shape[-1])
            larger = [self.keys.new_empty(shape), self.values.new_empty((*shape[:-1], self.values.shape[-1]))]
            for buffer, states in zip(larger, (self.keys, self.values), strict=True):
                buffer[..., :old, :] = states
            self.buffers = larger
        for buffer, states in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[..., old:new, :] = states
        self.keys, self.values = (buffer[..., :new, :] for buffer in self.buffers)
        return self.keys, self.values
