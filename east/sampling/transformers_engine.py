"""The transformers engine: the library's `generate`, with draws of our own and the prompt computed once.

Shape legend: B rows (responses drawn together), L prompt positions, T response positions, V vocabulary.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers.cache_utils import DynamicLayer

from east import models
from east.run.config import Sampling
from east.sampling.engine_interface import Drawn, Engine, Request, response_text


def transformers_engine(model_folder: Path, settings: Sampling, end_ids: list[int], context: int) -> Engine:
    """`model.generate` on a GPU where there is one, else on the CPU; the draw is ours (see `choose`).

    context: most positions of a sequence. Raises ValueError when the model cannot be loaded, or when a batch
    does not fit into the device's memory.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = getattr(torch, settings.dtype)
    try:
        model: Any = transformers.AutoModelForCausalLM.from_pretrained(model_folder, dtype=dtype)
    except Exception as error:  # the loaders raise many types
        raise ValueError(f"{model_folder}: cannot load the model ({' '.join(str(error).split())[:300]})") from None
    model.to(device).eval()
    # the folder's own defaults (top_k, repetition_penalty, ...) must not mix with ours
    model.generation_config = transformers.GenerationConfig()
    tokenizer = models.load_tokenizer(model_folder)
    ends = set(end_ids)

    def engine(requests: Iterable[Request]) -> Iterator[Drawn]:
        # longest first: a batch that does not fit into memory says so at the start
        ordered = sorted(requests, key=lambda r: -len(r.prompt))
        rows = [(request, sample) for request in ordered for sample in range(request.count)]
        tokens: list[list[int]] = []
        reasons: list[str] = []
        for start in range(0, len(rows), settings.batch):
            for found, reason in _batch(
                model, tokenizer, rows[start : start + settings.batch], settings, ends, context
            ):
                tokens.append(found)
                reasons.append(reason)
            while ordered and len(tokens) >= ordered[0].count:
                request = ordered.pop(0)
                own, tokens = tokens[: request.count], tokens[request.count :]
                why, reasons = reasons[: request.count], reasons[request.count :]
                text = [response_text(tokenizer, t, ends, settings.stop) for t in own]
                yield Drawn(request.question, request.first, own, text, why)

    return engine


def choose(logits_BV: torch.Tensor, uniforms_B: torch.Tensor, temperature: float, top_p: float) -> torch.Tensor:
    """One token per row by inverting the distribution function at the row's own uniform number, [B] int64.

    The distribution is softmax(logits / temperature), restricted to the smallest set of most likely tokens
    whose mass reaches top_p. The running sum is float64: over 10^5 tokens float32 loses the tail.
    """
    probs_BV = torch.softmax(logits_BV.float() / temperature, dim=-1)
    if top_p < 1:
        sorted_BV, order_BV = probs_BV.sort(dim=-1, descending=True)
        above_BV = sorted_BV.cumsum(dim=-1) - sorted_BV  # mass of the tokens that are more likely
        probs_BV = torch.zeros_like(probs_BV).scatter(1, order_BV, sorted_BV.masked_fill(above_BV >= top_p, 0.0))
    cdf_BV = probs_BV.cumsum(dim=-1, dtype=torch.float64)
    return torch.searchsorted(cdf_BV, (uniforms_B * cdf_BV[:, -1])[:, None], right=True)[:, 0]


def uniforms(seed: int, count: int) -> np.ndarray:
    """The uniform numbers in [0, 1) of one response, one per position, from a counter keyed on its seed."""
    return np.random.Generator(np.random.Philox(key=seed)).random(count)


class _Choose(transformers.LogitsProcessor):
    """Leaves one token per row, so that the library's arg max takes it."""

    def __init__(self, uniforms_BT: torch.Tensor, width: int, temperature: float, top_p: float):
        self.uniforms_BT, self.width, self.temperature, self.top_p = uniforms_BT, width, temperature, top_p

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        position = input_ids.shape[1] - self.width
        chosen_B = choose(scores, self.uniforms_BT[:, position], self.temperature, self.top_p)
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen_B[:, None], 0.0)


class _Ended(transformers.StoppingCriteria):
    """Which rows have ended: after how many tokens (`length_B`; 0: goes on), and by themselves or not."""

    def __init__(self, width: int, budget_B: torch.Tensor, ends: set[int], stop: list[str], tokenizer: Any):
        self.width, self.budget_B, self.stop, self.tokenizer = width, budget_B, stop, tokenizer
        self.ends = torch.tensor(sorted(ends), device=budget_B.device)
        self.length_B = torch.zeros_like(budget_B)
        self.itself_B = torch.zeros_like(budget_B, dtype=torch.bool)
        # a stop text spans at most one token per byte; the newest token may bring the last byte of it
        self.window = max((len(s.encode()) for s in stop), default=0) + 8

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:  # type: ignore[override]
        drawn = input_ids.shape[1] - self.width
        itself_B = torch.isin(input_ids[:, -1], self.ends)
        if self.stop:
            itself_B |= self._spelt(input_ids[:, self.width :])
        new_B = (itself_B | (self.budget_B <= drawn)) & (self.length_B == 0)
        self.length_B[new_B] = drawn
        self.itself_B |= new_B & itself_B
        return self.length_B > 0

    def _spelt(self, tokens_BT: torch.Tensor) -> torch.Tensor:
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
    """Tokens and finish reason of each (request, sample), drawn together."""
    device, width = model.device, max(len(request.prompt) for request, _ in rows)
    budgets = [min(settings.max_tokens, context - len(request.prompt)) for request, _ in rows]
    ids_BL = torch.full((len(rows), width), min(ends))
    mask_BL = torch.zeros((len(rows), width), dtype=torch.int64)
    for row, (request, _) in enumerate(rows):
        ids_BL[row, width - len(request.prompt) :] = torch.tensor(request.prompt)
        mask_BL[row, width - len(request.prompt) :] = 1
    ended = _Ended(width, torch.tensor(budgets, device=device), ends, settings.stop, tokenizer)
    processors = transformers.LogitsProcessorList()
    if settings.temperature > 0:
        seeds = [request.seed + request.first + sample for request, sample in rows]
        uniforms_BT = torch.from_numpy(np.stack([uniforms(seed, max(budgets)) for seed in seeds])).to(device)
        processors.append(_Choose(uniforms_BT, width, settings.temperature, settings.top_p))
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
        raise ValueError(f"sampling.batch: {len(rows)} sequences do not fit into {device}'s memory; lower it") from None
    ends_B = zip(ended.length_B.tolist(), ended.itself_B.tolist(), strict=True)
    return [
        (out[row, width : width + length].tolist(), "stop" if itself else "length")
        for row, (length, itself) in enumerate(ends_B)
    ]


def _prompt_cache(model: Any, ids_BL: torch.Tensor, mask_BL: torch.Tensor, questions: list[str]) -> Any:
    """Keys and values of all prompt tokens but the last, computed once per question and then repeated."""
    if ids_BL.shape[1] == 1:
        return None
    first: dict[str, int] = {}
    for row, question in enumerate(questions):
        first.setdefault(question, row)
    rows = torch.tensor(list(first.values()), device=ids_BL.device)
    place = {question: i for i, question in enumerate(first)}
    ids, mask = ids_BL[rows, :-1], mask_BL[rows, :-1]
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    cache = transformers.DynamicCache(config=model.config)
    model(
        ids,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    cache.batch_select_indices(torch.tensor([place[q] for q in questions], device=ids_BL.device))
    cache.layers = [_Roomy(layer) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


class _Roomy(DynamicLayer):
    """A layer's keys and values with room ahead: a new position is written in place.

    The library's own layer copies all earlier positions for each new one, half of the time on a CPU.
    """

    keys: Any
    values: Any

    def __init__(self, layer: DynamicLayer):
        super().__init__()
        self.dtype, self.device, self.is_initialized = layer.dtype, layer.device, True
        self.keys, self.values = layer.keys, layer.values  # views of the buffers from the first update on
        self.buffers: list[Any] = [layer.keys, layer.values]

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any) -> Any:
        old = self.keys.shape[-2]
        new = old + key_states.shape[-2]
        if new > self.buffers[0].shape[-2]:
            room = (*self.keys.shape[:-2], 2 * new, self.keys.shape[-1])
            grown = [self.keys.new_empty(room), self.values.new_empty((*room[:-1], self.values.shape[-1]))]
            for buffer, states in zip(grown, (self.keys, self.values), strict=True):
                buffer[..., :old, :] = states
            self.buffers = grown
        for buffer, states in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[..., old:new, :] = states
        self.keys, self.values = (buffer[..., :new, :] for buffer in self.buffers)
        return self.keys, self.values
