"""Weights of examples, numpy only: the value of a question (entropy, accuracy, rejection), and the mappings from values
to weights of mean one (paper Eq. 3, 4, 6)."""

import collections.abc
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from east.weighting.entropy import ESTIMATORS, Estimator

Array = NDArray[np.float64]
Graded = collections.abc.Mapping[str, Any]
Strategy = Literal["uniform", "entropy", "accuracy", "accuracy_rate", "rejection"]
Mapping = Literal["mean", "linear", "power"]
# The strategies that the paper's Figure 5 and reports compare
COMPARED: tuple[Strategy, ...] = ("entropy", "accuracy", "rejection")
LARGEST_EXPONENT = 10.0  # of auto_exponent: with it, a sampling error of 7 % in a value doubles the weight


def question_values(strategy: Strategy, questions: Sequence[Graded], estimator: Estimator = "plugin") -> Array:
    """The value of each graded question under a strategy, float64 [questions].

    `entropy`: h in nats, by one of entropy.ESTIMATORS from the sizes of the question's clusters; `accuracy`: 1 - A;
    `accuracy_rate`: A (the paper's released code, for DPO); `rejection`: R, the share of all responses in the largest
    wrong cluster; `uniform`: 1. Questions may have different numbers of responses.
    questions: graded rows, of which clusters (with count), accuracy and rejection are read.
    """
    value: dict[Strategy, Callable[[Graded], float]] = {
        "uniform": lambda q: 1.0,
        "entropy": lambda q: ESTIMATORS[estimator]([cluster["count"] for cluster in q["clusters"]]),
        "accuracy": lambda q: 1.0 - q["accuracy"],
        "accuracy_rate": lambda q: q["accuracy"],
        "rejection": lambda q: q["rejection"],
    }
    return np.array([value[strategy](q) for q in questions], dtype=np.float64)


def linear_mapping(values: Array, spread: float) -> Array:
    """Eq. 4: a v + b with a = spread / (max - min), b = 1 - a mean(v), float64 [N]: mean 1, max - min = spread.

    Raises ValueError unless 0 <= spread <= (max - min) / (mean - min), above which weights are negative.
    """
    _check_values(values)
    low, high, mean = values.min(), values.max(), values.mean()
    if spread < 0 or (spread > 0 and high == low):
        raise ValueError(
            f"linear mapping: found spread {spread:g} for values from {low:g} to {high:g}; expected 0 or more, and 0 "
            "where all values are equal; change weighting.spread"
        )
    if spread == 0:
        return np.ones_like(values)
    bound = (high - low) / (mean - low)
    if spread > bound:
        raise ValueError(
            f"linear mapping: found spread {spread:g}, expected at most (max - min) / (mean - min) = {bound:.6g}, "
            "above which weights are negative; lower weighting.spread"
        )
    slope = spread / (high - low)
    weights: Array = np.maximum(slope * (values - mean) + 1.0, 0.0)  # at the bound, rounding may give -1e-17
    return weights


def power_mapping(values: Array, a: float) -> Array:
    """Eq. 6: v^a N / sum_i v_i^a, float64 [N]; with a = 1 Eq. 3, v / mean(v). 0^a = 0 for a > 0, 0^0 = 1. Powers are
    computed in log space, so that no exponent overflows.

    Raises ValueError when a < 0 and a value is zero, or when a > 0 and all values are zero.
    """
    _check_values(values)
    zeros = int((values == 0).sum())
    if a == 0:
        return np.ones_like(values)
    if a < 0 and zeros:
        raise ValueError(
            f"power mapping: {zeros} of {values.size} values are 0 (entropy: one cluster only), and a = {a:g} < 0 "
            "has no weight for them; set weighting.zero=drop to leave them out, or choose a > 0"
        )
    if zeros == values.size:
        raise ValueError(f"power mapping: all {zeros} values are 0, so no weights with mean 1 exist; check the samples")
    with np.errstate(divide="ignore"):
        logs = a * np.log(values)
    scaled = np.exp(logs - logs.max())
    weights: Array = scaled * (values.size / scaled.sum())
    return weights


def auto_exponent(values: Array, min_ess: float) -> float:
    """The largest a in (0, LARGEST_EXPONENT] whose power weights have an effective sample size of at least min_ess N.

    min_ess: between 0 and 1. With K(a) = ln mean exp(a ln v) over the positive values, ln ESS(a) = 2 K(a) - K(2a) +
    constant. K is convex (a cumulant generating function), so that the derivative 2 K'(a) - 2 K'(2a) is <= 0 for a > 0
    (and >= 0 for a < 0): the effective sample size falls as |a| grows, and bisection finds where it crosses min_ess N.

    Zeros have weight 0 for every a > 0 but are counted in N: the effective sample size is at most the number of
    positive values. It is at least the number of values equal to the maximum: if these are min_ess N or more (such as
    when all are equal), every exponent qualifies and LARGEST_EXPONENT is returned. Raises ValueError when no a > 0
    qualifies, because too many values are zero.
    """
    _check_values(values)
    low, high = 0.0, LARGEST_EXPONENT
    least = min_ess * values.size
    if effective_sample_size(power_mapping(values, high)) >= least:
        return high
    for _ in range(60):  # until low and high differ by the last bit of a float64
        middle = (low + high) / 2
        enough = effective_sample_size(power_mapping(values, middle)) >= least
        low, high = (middle, high) if enough else (low, middle)
    if low == 0:
        raise ValueError(
            f"weighting.a=auto: {int((values == 0).sum())} of {values.size} values are 0, so every exponent above 0 "
            f"has an effective sample size below {min_ess:g} N; lower weighting.min_ess, or give weighting.a a number"
        )
    return low


def effective_sample_size(weights: Array) -> float:
    """(sum w)^2 / sum w^2 (Kish 1965): the number of equally weighted examples whose mean has the same variance."""
    return float(weights.sum() ** 2 / (weights**2).sum())


def example_weights(
    values: Array, *, strategy: Strategy, mapping: Mapping, a: float, spread: float | None, zero: str
) -> tuple[Array, NDArray[np.bool_]]:
    """(weights float64 [N], with mean 1 over the kept examples; kept bool [N]).

    values: [N], the value of each example's question. With zero="drop" and a < 0, examples of value 0 are left out:
    weight 0, kept False. Raises ValueError as the mappings do.
    """
    kept = np.ones(values.shape, dtype=bool)
    if strategy == "uniform":
        return np.ones_like(values), kept
    if mapping == "power" and a < 0 and zero == "drop":
        kept = values > 0
    weights = np.zeros_like(values)
    if mapping == "linear":
        assert spread is not None
        weights[kept] = linear_mapping(values[kept], spread)
    else:
        weights[kept] = power_mapping(values[kept], 1.0 if mapping == "mean" else a)
    return weights, kept


def summary(weights: Array, kept: NDArray[np.bool_]) -> dict[str, float]:
    """Numbers of kept examples and of those left out; over the kept ones the smallest, largest and mean weight, the
    share of zero weights, and the effective sample size, also as a share of the kept examples."""
    w = weights[kept]
    size = effective_sample_size(w)
    return {
        "examples": int(w.size),
        "left_out": int((~kept).sum()),
        "min": float(w.min()),
        "max": float(w.max()),
        "mean": float(w.mean()),
        "share_zero": float((w == 0).mean()),
        "effective_sample_size": size,
        "effective_share": size / w.size,
    }


def _check_values(values: Array) -> None:
    """Raise ValueError without values, and for values that are negative or not finite."""
    if values.size == 0:
        raise ValueError("found no examples to weigh: every question was left out; see the dataset's summary")
    if not np.isfinite(values).all() or values.min() < 0:
        raise ValueError(f"weights need finite values >= 0, found {values[~(values >= 0)][:3]}; grade again")
