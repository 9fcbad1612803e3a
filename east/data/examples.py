"""Which responses become training examples. SFT: right responses; DPO: pairs of a right and a wrong one; KTO: right and
wrong ones with a label.

Whether a response is right comes from the graded folder; texts are not read here. Draws are seeded per question, so
that adding or removing a question does not change the examples of the others.
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
    """The examples of one question, or the name of the rule by which the question is left out.

    usable: for each response, whether it may be drawn. An example is (response, rejected, desirable), where the first
    two are positions in the question's responses and rejected is -1 unless the loss has pairs.
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
        # clusters are sorted by size: the smallest number is the largest wrong cluster with a usable response
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
    """Write the examples of all questions, given as (sampled, graded); returns the ids of the questions that have
    examples, and a summary with counts of examples and of what was left out, by rule.

    Raises ValueError when no example is left, with the rules that left questions out.
    """
    ids: list[str] = []
    dropped, unusable = collections.Counter[str](), collections.Counter[str]()
    examples = responses = 0
    for drawn, graded in questions:
        prompt = drawn["prompt_tokens"]
        usable = []
        for tokens, reason in zip(drawn["tokens"], drawn["finish_reason"], strict=True):
            rule = _leaves_out(len(prompt) + len(tokens), reason, rules)
            usable.append(rule is None)
            if rule:
                unusable[rule] += 1
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
        left_out = ", ".join(f"{rule}: {count}" for rule, count in dropped.items()) or "found no questions"
        raise ValueError(
            f"no training example is left; questions left out by rule: {left_out}; change the section examples, or "
            "draw more responses"
        )
    summary = {
        "questions": len(ids),
        "examples": examples,
        "responses": responses,
        "questions_left_out": dict(dropped),
        "responses_left_out": dict(unusable),
    }
    return ids, summary


def mismatched_pairs(writer: Writer, rules: Examples) -> NDArray[np.int64]:
    """KTO's mismatched pairs (x_i, y_j): writes sequences of each example's prompt with a completion of another
    question, and returns their rows, [plans, examples].

    Each plan is a seeded cycle through all questions. An example gets a response of the next question in the cycle, or
    of the first further one whose response fits into max_length. Raises ValueError with fewer than two questions, and
    when no response fits.
    """
    questions, responses = writer.responses()
    assert rules.kl_plans is not None, "resolved by Config"
    assert np.all(np.diff(questions) >= 0), "examples are in the order of the questions, as `build` writes them"
    distinct, first, index, count = np.unique(questions, return_index=True, return_inverse=True, return_counts=True)
    if len(distinct) < 2:
        raise ValueError(
            "KTO: found training examples of one question, expected two or more for mismatched pairs; train "
            "on more questions"
        )
    (starts, prompts), (offsets, completions) = writer.segments(responses)
    plans = np.empty((rules.kl_plans, len(questions)), dtype=np.int64)
    for plan in range(rules.kl_plans):
        rng = np.random.default_rng([rules.seed, plan, _stable("kl")])
        cycle = rng.permutation(len(distinct))
        position = np.argsort(cycle)[index]  # of each example's question in the cycle
        partner = np.empty(len(questions), dtype=np.int64)  # for each example, the one whose completion it gets
        open_rows = np.arange(len(questions))  # examples without a partner yet
        for step in range(1, len(cycle)):
            other = cycle[(position[open_rows] + step) % len(cycle)]
            drawn = first[other] + rng.integers(count[other])
            fits = prompts[open_rows] + completions[drawn] <= rules.max_length
            partner[open_rows[fits]] = drawn[fits]
            open_rows = open_rows[~fits]
            if not len(open_rows):
                break
        else:
            raise ValueError(
                f"KTO: no response of another question fits into examples.max_length with a prompt of "
                f"{prompts[open_rows].max()} tokens; raise examples.max_length"
            )
        plans[plan] = writer.sequences((starts, prompts), (offsets[partner], completions[partner]), questions, -1)
    return plans


def check_tokens(drawn: SampledQuestion, bos: int | None, ends: set[int], stops: bool) -> None:
    """Check a question's responses: each keeps the token contract (`token_fault`), and has an end token if and only if
    it ended by itself.

    bos: see `models.added_bos`. ends: ids of end tokens. stops: whether stop texts were set, with which a response may
    stop without an end token. Raises ValueError for the first response that breaks a rule.
    """
    where = f"question {drawn['question']!r}"
    for sample, tokens, reason in zip(drawn["sample"], drawn["tokens"], drawn["finish_reason"], strict=True):
        if fault := token_fault(drawn["prompt_tokens"], tokens, bos, ends):
            raise ValueError(f"{where}, sample {sample}: {fault}")
        ended = tokens[-1] in ends
        if (reason == "stop" and not ended and not stops) or (reason == "length" and ended):
            raise ValueError(
                f"{where}, sample {sample}: finish_reason {reason!r} but its last token {tokens[-1]} is "
                f"{'an' if ended else 'no'} end token {sorted(ends)}; the samples are of another model: sample again"
            )


def token_fault(prompt: Sequence[int], completion: Sequence[int], bos: int | None, ends: set[int]) -> str | None:
    """How a sequence breaks the token contract, and what to do; None if it does not.

    The contract: one BOS in the prompt (bos: see `models.added_bos`), a completion of at least one token, and no end
    token before its last token.
    """
    if bos is not None and (count := list(prompt).count(bos)) != 1:
        return f"found {count} BOS in the prompt, expected one; fix the chat template or task.prompt and sample again"
    if not len(completion):
        return "found an empty response, expected one or more tokens; sample again"
    if not ends.isdisjoint(completion[:-1]):
        return f"found an end token {sorted(ends)} inside the response, expected it at its end; sample again"
    return None


def _leaves_out(length: int, reason: str, rules: Examples) -> str | None:
    """The rule by which a response of `length` tokens, prompt included, is left out; None if it is used."""
    if length > rules.max_length:
        return "longer than max_length"
    if reason == "length" and not rules.keep_truncated:
        return "cut by max_tokens (keep_truncated: false)"
    return None


def _draw(rng: np.random.Generator, total: int, count: int) -> list[int]:
    """`count` of the numbers below `total`, without replacement; all of them if there are fewer."""
    return [int(i) for i in rng.choice(total, size=min(count, total), replace=False)]


def _stable(text: str) -> int:
    """A hash of the text, equal on every machine, unlike Python's own."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "little")
