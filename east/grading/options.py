"""The settings of grading, each with its default."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from east.grading.extraction import Boxes, Extraction

VERSION = 3  # part of every graded folder's manifest; increase it when a verdict, a cluster or a reason changes


class Grading(BaseModel):
    r"""How responses are graded: the `grading` section of a run file.

    Which part of a response is its answer:

    - `extraction`: "boxed" accepts only `\boxed{}` and `####`. "marked" also accepts, in this order,
      `<answer>5</answer>`, `{"answer": 5}`, a heading such as `### Final Answer`, a sentence such as "the answer is 5",
      and, unless the response was cut at the token limit, a bold number or formula in the last sentence, and a last
      sentence that states one ("She has 5 apples."). "last number" also falls back to the last number of a response
      that was not cut.
    - `boxes`: "joined" reads boxes with only commas, "and" or "y =" between them as one list; "last" takes the last.
    - `missing`: responses without an answer form one wrong "cluster", or each forms its "own" cluster, or they are
      "excluded": left out of the clusters and of every share, but counted.

    Which answers share a cluster:

    - `clusters`: "value" groups answers of equal value, and all answers that match the gold answer. "qwen-string"
      groups equal strings after the normalisation of the Qwen2.5-Math evaluation, as the authors' release does. It
      compares the gold answer as such a string too, applies none of the conventions below, and reads the last box.

    Which answers match the gold answer although their values differ (the conventions):

    - `list_order`: is the order of a list "ignored" (`1, 2` matches `2, 1`) or "kept"?
    - `percent`: "either" reads `25%` as 25 or 0.25, "value" as 0.25 only, "sign" as 25 only (it drops the sign).
    - `units`: "compatible" allows a unit to be missing or added, but not to be another unit: metres are not feet, m/s
      is not m, `cm` is not `cm^2`. It also reads 250 cents as 2.50 dollars; no other unit is converted. Only the units
      in the table of `mathematics/units.py` are distinguished: 5 apples match 5 oranges. "ignored" drops every unit.
    - `base`: "optional" lets `152A` match `152A_11`; "required" does not.
    - `unevaluated`: "equal" lets `2^8` match `256`; "different" accepts only answers that are worked out.
    - `rounded_digits`: a decimal with at least this many significant digits matches a number that it rounds
      (`0.8660254038` and `sqrt(3)/2`); 0 turns this off.

    Rules without a setting:

    - A word after a number is a unit, unless it may be mathematics or a date. "3 dozen", "2 thirds", "5 or more", "7
      halved", "14 April" and "2 hours 30 minutes" are therefore read as text, not as 3, 2, 5, 7, 14 and 60, and match
      only the same text.
    - A word that gives a number its direction is part of the answer: 5 miles north are not 5 miles south, `2:00 pm` is
      not `2:00 am`, "5 profit" is not "5 loss". Without the word an answer matches: `2:00 pm` matches `2`. Words that
      turn the sign do not: "5 less" and "20% decrease" are -5 and -20%, not 5 and 20%.
    - A single letter after a number is a symbol; compared with the gold answer it may also be a unit: `48g` matches
      `48`.
    - A sentence has the value of its only number, if no word in it may change that value, or of a result after "=" and
      one name or calculation: "the total is 2 * 3 = 6". Numbers may be written in words ("twenty-one").
    - `x = 5` has the value 5, and so has `P(A|B) = 5`, whose left side names one number. Two names are two answers. An
      equation that is linear in its one variable is its solution: `2x = 4` has the value 2. Another left side (`x + y =
      5`, `z\overline{z} = 4`) makes an equation, or text.
    - `x > 3` and `t > 3` name different variables, as `x = 5` and `y = 5` do; `(3, oo)` names none and matches both.
      `f(x) < 3` is not `x < 3`. Inequalities that are linear in a variable or in its absolute value are sets, others
      are compared as inequalities. Unions of intervals and points are joined where they meet, `A \ {points}` is such a
      union and `{x : x < 2}` is `x < 2`, but `x != 1` is not a set.
    - A set has no repeated members: `{1, 2, 1}` is `{1, 2}`. A list has.
    - A ratio is not reduced (`2:3` is neither `4:6` nor `2/3`), and a base that is a letter (`101_b`) is text. A column
      vector matches a tuple; `I` and `0` match an identity and a zero matrix. A choice is its letter: `C`, `(C)`, `C)`;
      compared with the gold answer also "option C" and "(C) 12".
    - A convention moves answers into the gold answer's cluster and changes no other cluster: with gold answer `0.33`,
      `33\%` is right and `33` is wrong; with gold answer `5`, both are in one wrong cluster. An answer is right exactly
      when it is in the gold answer's cluster.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    extraction: Extraction = Field("marked", description="where an answer is looked for")
    boxes: Boxes = Field("joined", description="several boxes: one list, or the last")
    missing: Literal["cluster", "own", "excluded"] = Field(
        "cluster", description="responses without answer: one wrong cluster; each its own; left out"
    )
    clusters: Literal["value", "qwen-string"] = Field("value", description="group equal values, or equal strings")
    list_order: Literal["ignored", "kept"] = Field("ignored", description="does 1, 2 match the gold answer 2, 1?")
    percent: Literal["either", "value", "sign"] = Field("either", description="what 25% may be: 25 or 0.25")
    units: Literal["compatible", "ignored"] = Field(
        "compatible", description="may a unit differ from the gold answer's?"
    )
    base: Literal["optional", "required"] = Field("optional", description="may a number's base be left out?")
    unevaluated: Literal["equal", "different"] = Field("equal", description="does 2^8 match the gold answer 256?")
    rounded_digits: int = Field(10, ge=0, description="digits from which a decimal may be rounded; 0 never")
    workers: int = Field(2, ge=1, description="child processes for symbolic values")
    timeout_s: float = Field(1.0, gt=0, description="seconds of processor time for the values of one answer")
    memory_mb: int = Field(1024, ge=64, description="address space of a child process, and of Math-Verify's")
    math_verify_sample: int = Field(200, ge=0, description="answers shown to Math-Verify for the report; 0 for none")
    disagreements: int = Field(50, ge=0, description="disagreements with Math-Verify that the report lists")
    seed: int = Field(0, ge=0, description="seed of the answers shown to Math-Verify")

    @property
    def rules(self) -> dict[str, Any]:
        """The settings that decide verdicts and clusters; the others decide speed and the report."""
        return self.model_dump(mode="json", exclude={"workers", "math_verify_sample", "disagreements", "seed"})
