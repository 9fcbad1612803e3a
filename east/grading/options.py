"""The settings of grading, each with its default."""

from dataclasses import dataclass
from typing import Literal

from east.grading.extraction import Boxes, Extraction

VERSION = 1  # raised with every change of what the grader says of some answer


@dataclass(frozen=True)
class Grading:
    r"""How responses are graded.

    What counts as an answer:
    extraction: "boxed" trusts \boxed{} and `####` only; "marked" also a sentence such as "the answer is 5";
        "last number" falls back to the last number of a response that was not cut.
    boxes: "joined" reads boxes with only commas, "and" or "y =" between them as one list; "last" takes the
        last.
    missing: responses without an answer are one wrong "cluster", each its "own", or "excluded" (left out of
        the clusters and of every share, but counted).

    What counts as equal among predictions:
    clusters: "value" pools answers of equal value and every answer that matches the gold; "qwen-string" pools
        equal strings after the normalisation of the Qwen2.5-Math evaluation, as the authors' release does;
        there the gold answer is such a string too, no convention applies, and the last box is the answer.

    What counts as the gold answer beyond equal values:
    list_order: "ignored" (1, 2 is 2, 1) or "kept".
    percent: "either" lets 25% be 25 or 0.25, "value" only 0.25, "sign" only 25 (the sign is dropped).
    units: "compatible" lets a unit be missing or added but not be another one (metres are not feet, m/s is not m,
        cm is not cm^2; only units in the table of `units` are told apart, apples are oranges), and reads 250 cents
        as $2.50; nothing else is converted. "ignored" drops every unit.
    base: "optional" lets 152A be 152A_11; "required" does not.
    unevaluated: "equal" lets 2^8 be 256; "different" wants numbers worked out.
    rounded_digits: a decimal of at least so many significant digits equals the number it rounds (0.8660254038
        and sqrt(3)/2); 0 means never.

    Decided without an option:
    A word behind a number is a unit unless it may be mathematics; with "3 dozen", "2 thirds", "5 or more" and
        "2 hours 30 minutes" an answer is none of 3, 2, 5 and 60 but text, right only against the same text.
    One letter behind a number is a symbol, and towards the gold also a unit: 48g is a gold of 48. 2:00 pm is 2.
    A sentence says its only number where no word may change it. Numbers in words are read ("twenty-one").
    x > 3 and t > 3 name different things, as x = 5 and y = 5 do; (3, oo) names none and is both. f(x) < 3 is
        not x < 3. A \ {points} is a union of intervals, {x : x < 2} is x < 2, but x != 1 is not a set.
    A ratio keeps its terms (2:3 is not 4:6, nor 2/3), a base that is a letter (101_b) is text, a column vector is
        not a pair, and a choice is its letter alone: C, (C) and C), but not "option C" or "(C) 12".
    A convention towards the gold moves answers into the gold's cluster: with gold 0.33, 33\% is right and 33 is
        not; with gold 5 both are one wrong cluster. "Correct" is always membership of the gold's cluster.

    Bounds and checks:
    workers: child processes for values that are not rational. timeout_s: seconds for the values of one answer.
    memory_mb: address space of one child. math_verify_sample: distinct answers shown to Math-Verify for the
        report (0: none). disagreements: how many of its disagreements the report lists. seed: of that sample.
    """

    extraction: Extraction = "marked"
    boxes: Boxes = "joined"
    missing: Literal["cluster", "own", "excluded"] = "cluster"
    clusters: Literal["value", "qwen-string"] = "value"
    list_order: Literal["ignored", "kept"] = "ignored"
    percent: Literal["either", "value", "sign"] = "either"
    units: Literal["compatible", "ignored"] = "compatible"
    base: Literal["optional", "required"] = "optional"
    unevaluated: Literal["equal", "different"] = "equal"
    rounded_digits: int = 10
    workers: int = 2
    timeout_s: float = 1.0
    memory_mb: int = 1024
    math_verify_sample: int = 200
    disagreements: int = 50
    seed: int = 0
