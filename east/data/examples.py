"""Which responses become training examples: SFT (right), DPO (right and wrong), KTO (either, labelled).

Strings are not read here: a response is right or wrong because the graded folder says so. Draws are seeded
per question, so that adding or removing a question changes no other draw.
"""

import collections
import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from east.data.indexed_dataset import Writer
from east.grading import GradedQuestion
from east.run.config import Examples
from east.run.loss_table import LOSSES
from east.sampling.samples import SampledQuestion


def choose(loss: str, graded: GradedQuestion, usable: list[bool], rules: Examples) -> list[tuple[int, int, bool]] | str:
    """Examples of one question, or the name of the rule that leaves it out.

    `graded` has per response: correct, cluster, source, string_match; `usable` marks responses that may be
    drawn. Returns tuples (response, rejected or -1, desirable) of positions in the question's responses.
    """
    correct, boxed = graded["correct"], [s == "boxed" for s in graded["source"]]
    if not any(correct):
        return "no right response"
    if rules.drop_all_right and all(correct):
        return "no wrong response (drop_all_right)"
    if rules.drop_unboxed and not all(
        any(b and c == right for b, c in zip(boxed, correct, strict=True)) for right in (True, False)
    ):
        return "no boxed right or no boxed wrong response (drop_unboxed)"
    if rules.drop_disagreement and any(s != c for s, c in zip(graded["string_match"], correct, strict=True)):
        return "verifier and string match disagree (drop_disagreement)"
    drawable = [i for i in range(len(correct)) if usable[i] and graded["cluster"][i] >= 0]
    right = [i for i in drawable if correct[i]]
    wrong = [i for i in drawable if not correct[i]]
    if rules.wrong_answer == "most_frequent" and wrong:
        # clusters are sorted by size, so the first wrong one is the largest; its responses may be unusable
        clusters = [graded["cluster"][i] for i in wrong]
        wrong = [i for i in wrong if graded["cluster"][i] == min(clusters)]
    if not right:
        return "no right response of usable length"
    rng = np.random.default_rng([rules.seed, _stable(graded["question"])])
    k = rules.per_question
    if LOSSES[loss].pair:
        if not wrong:
            return "no wrong response to pair"
        pairs = _draw(rng, len(right) * len(wrong), k)
        return [(right[p // len(wrong)], wrong[p % len(wrong)], True) for p in pairs]
    examples = [(right[i], -1, True) for i in _draw(rng, len(right), k)]
    if LOSSES[loss].labelled:
        examples += [(wrong[i], -1, False) for i in _draw(rng, len(wrong), k)]
    return examples


def build(
    writer: Writer, loss: str, rules: Examples, questions: Iterable[tuple[SampledQuestion, GradedQuestion]]
) -> tuple[list[str], dict[str, Any]]:
    """Write the examples of (samples, graded) questions; returns question ids and counts of all that happened.

    Raises ValueError when nothing is left (it says under which rules questions went), when a response breaks
    the token contract, or for KTO with a single question.
    """
    ids: list[str] = []
    dropped, unusable = collections.Counter[str](), collections.Counter[str]()
    examples = responses = 0
    for drawn, graded in questions:
        prompt = drawn["prompt_tokens"]
        usable = []
        for tokens, reason in zip(drawn["tokens"], drawn["finish_reason"], strict=True):
            fault = _fault(len(prompt) + len(tokens), reason, rules)
            usable.append(fault is None)
            if fault:
                unusable[fault] += 1
        responses += len(usable)
        chosen = choose(loss, graded, usable, rules)
        if isinstance(chosen, str):
            dropped[chosen] += 1
            continue
        question, segment, rows = len(ids), writer.segment(prompt), dict[int, int]()
        ids.append(drawn["question"])
        for position in dict.fromkeys(i for first, second, _ in chosen for i in (first, second) if i >= 0):
            completion = writer.segment(drawn["tokens"][position])
            rows[position] = writer.sequence(segment, completion, question, drawn["sample"][position])
        for response, rejected, desirable in chosen:
            writer.example(question, rows[response], rows.get(rejected, -1), desirable)
        examples += len(chosen)
    if not examples:
        raise ValueError(f"no training example is left: questions went by {dict(dropped) or 'no rule (none came in)'}")
    summary = {
        "questions": len(ids),
        "examples": examples,
        "responses": responses,
        "questions_left_out": dict(dropped),
        "responses_left_out": dict(unusable),
    }
    return ids, summary


def mismatched_pairs(writer: Writer, rules: Examples) -> NDArray[np.int64]:
    """KTO's (x_i, y_j): for each plan and example a sequence with another question's completion, [plans, N].

    Each plan is a seeded cycle through all questions; an example takes a response of the next question in the
    cycle (the first further one that fits max_length). Raises ValueError where no other question is there.
    """
    questions, responses = writer.responses()
    assert rules.kl_plans is not None, "resolved by Config"
    assert np.all(np.diff(questions) >= 0), "examples stand by question, as `build` writes them"
    found, first, place, count = np.unique(questions, return_index=True, return_inverse=True, return_counts=True)
    if len(found) < 2:
        raise ValueError("KTO needs responses of at least two questions for its mismatched pairs; found one")
    (starts, prompts), (offsets, completions) = writer.segments(responses)
    plans = np.empty((rules.kl_plans, len(questions)), dtype=np.int64)
    for plan in range(rules.kl_plans):
        rng = np.random.default_rng([rules.seed, plan, _stable("kl")])
        cycle = rng.permutation(len(found))
        turn = np.argsort(cycle)[place]  # where in the cycle the example's question stands
        mates = np.empty(len(questions), dtype=np.int64)  # the examples whose completions are lent
        left = np.arange(len(questions))  # examples without a mate
        for step in range(1, len(cycle)):
            lender = cycle[(turn[left] + step) % len(cycle)]
            drawn = first[lender] + rng.integers(count[lender])
            fits = prompts[left] + completions[drawn] <= rules.max_length
            mates[left[fits]] = drawn[fits]
            left = left[~fits]
            if not len(left):
                break
        else:
            raise ValueError(
                f"KTO: no other response fits beside a prompt of {prompts[left].max()} tokens; raise max_length"
            )
        plans[plan] = writer.sequences((starts, prompts), (offsets[mates], completions[mates]), questions, -1)
    return plans


def check_tokens(drawn: SampledQuestion, bos: int | None, ends: set[int], stops: bool) -> None:
    """The token contract (`token_fault`) and an end token iff the response ended by itself.

    `stops`: stop strings were set, so that a response may end without end token. Raises ValueError.
    """
    where = f"question {drawn['question']!r}"
    for sample, tokens, reason in zip(drawn["sample"], drawn["tokens"], drawn["finish_reason"], strict=True):
        if fault := token_fault(drawn["prompt_tokens"], tokens, bos, ends):
            raise ValueError(f"{where}, sample {sample}: {fault}")
        ended = tokens[-1] in ends
        if (reason == "stop" and not ended and not stops) or (reason == "length" and ended):
            raise ValueError(
                f"{where}, sample {sample}: finish_reason {reason!r} but its last token {tokens[-1]} is "
                f"{'an' if ended else 'no'} end token {sorted(ends)}; the samples do not fit this model"
            )


def token_fault(prompt: Sequence[int], completion: Sequence[int], bos: int | None, ends: set[int]) -> str | None:
    """How a sequence breaks the token contract and what to do; None where it keeps it.

    One BOS in the prompt (`bos`: see `models.added_bos`), no empty completion, no end token before its last token.
    """
    if bos is not None and (found := list(prompt).count(bos)) != 1:
        return f"found {found} BOS in the prompt, expected one; sample again with a mended template or task.prompt"
    if not len(completion):
        return "found an empty response, expected a token at least; sample again"
    if not ends.isdisjoint(completion[:-1]):
        return f"found an end token {sorted(ends)} inside the response, expected it at its end; sample again"
    return None


def _fault(length: int, reason: str, rules: Examples) -> str | None:
    if length > rules.max_length:
        return "longer than max_length"
    if reason == "length" and not rules.keep_truncated:
        return "cut by max_tokens (keep_truncated: false)"
    return None


def _draw(rng: np.random.Generator, total: int, count: int) -> list[int]:
    return [int(i) for i in rng.choice(total, size=min(count, total), replace=False)]


def _stable(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "little")
