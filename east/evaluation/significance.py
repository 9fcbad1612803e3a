"""Intervals and tests of accuracies, over seeds and questions.

An accuracy is a mean over questions, of a model trained with one seed. Two things are random: the seed (samples, order,
examples) and the questions. Which of the two an interval lets vary decides what it generalises to.

scipy.stats and statsmodels are imported in the functions that call them: each takes more than half a second.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 10_000
MOST_FLIPPED = 16  # seeds up to which `sign_flip` enumerates all 2^S sign patterns


class Interval(NamedTuple):
    """A mean and its 95 % interval; low and high are nan where there is only one value."""

    mean: float
    low: float
    high: float


class Series(NamedTuple):
    """A line of a figure: y[i] is the mean and interval at x[i]. marked: x are the points that were measured."""

    label: str
    x: list[float]
    y: list[Interval]
    marked: bool = True


class Paired(NamedTuple):
    """A mean difference, its 95 % interval, two-sided p, degrees of freedom (inf: normal); nan where nothing varies."""

    mean: float
    low: float
    high: float
    p: float
    df: float


def wilson(correct: int, n: int) -> tuple[float, float]:
    """Wilson (1927) score interval of a proportion, 95 %: (low, high)."""
    from scipy import stats

    interval = stats.binomtest(correct, n).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def mcnemar(gained: int, lost: int) -> float:
    """Exact two-sided McNemar p: without a difference each of the gained + lost flips is a fair coin; 1 of no flips."""
    from scipy import stats

    return float(stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def paired_bootstrap(verdicts: ArrayLike, baseline: ArrayLike, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of the difference of two accuracies, with questions drawn with replacement.

    verdicts, baseline: [questions], right or wrong.

    A resample's difference is (gains - losses) / n, and its counts of gains and losses are multinomial.
    """
    difference = np.asarray(verdicts, dtype=float) - np.asarray(baseline, dtype=float)
    n = len(difference)
    shares = [float((difference > 0).mean()), float((difference < 0).mean())]
    draws = np.random.default_rng(seed).multinomial(n, [*shares, max(0.0, 1 - sum(shares))], size=RESAMPLES)
    low, high = np.quantile((draws[:, 0] - draws[:, 1]) / n, [0.025, 0.975])
    return float(low), float(high)


def t_quantile(df: float) -> float:
    """The half width of a 95 % interval in standard errors: the t with P(|T| < t) = 0.95 for Student's T."""
    from scipy import stats

    return float(stats.t.ppf(0.975, df))


def t_two_sided(t: float, df: float) -> float:
    """P(|T| >= |t|) for Student's T."""
    from scipy import stats

    return float(2 * stats.t.sf(abs(t), df))


def mean_interval(values: ArrayLike) -> Interval:
    """Mean over seeds and its 95 % t interval: what another seed would give on the same questions.

    values: [seeds]. One value has no interval.
    """
    v = np.asarray(values, dtype=np.float64)
    assert v.ndim == 1 and v.size
    mean = float(v.mean())
    if v.size == 1:
        return Interval(mean, math.nan, math.nan)
    half = t_quantile(v.size - 1) * float(v.std(ddof=1)) / math.sqrt(v.size)
    return Interval(mean, mean - half, mean + half)


def crossed(differences: ArrayLike) -> Paired:
    """Mean difference of two methods whose seeds answered the same questions: would new seeds and questions agree?

    differences: [seeds >= 2, questions >= 2], this method's verdict minus the other's (-1, 0, 1). Seeds and
    questions are both random factors, as readers and cases are in studies of diagnosis: the variance of the mean is
    (MS_s + max(MS_q - MS_sq, 0)) / (S Q) from the two-way table's mean squares, with the degrees of freedom of
    Hillis (2007, Statistics in Medicine 26:596, Eq. for F_DBM): (MS_s + max(MS_q - MS_sq, 0))^2 / (MS_s^2 / (S - 1)).
    Where all seeds have the same mean, MS_s = 0 means that their spread is too small to be seen, not that there is
    none: it is replaced by MS_sq, its expectation without any effect of seeds, with S - 1 degrees of freedom.
    Where no verdict differs from any other no error can be estimated: all but the mean is nan.
    Pooling all S Q verdicts (one McNemar test) would count a question as S new ones and is not used.
    """
    d = np.asarray(differences, dtype=np.float64)
    assert d.ndim == 2 and min(d.shape) >= 2, d.shape
    seeds, questions = d.shape
    mean, by_seed, by_question = float(d.mean()), d.mean(axis=1), d.mean(axis=0)
    if np.ptp(d) == 0:
        return Paired(mean, math.nan, math.nan, math.nan, math.nan)
    tied = np.ptp(d.sum(axis=1)) == 0  # sums of whole numbers are exact, means are not
    rest = d - by_seed[:, None] - by_question[None, :] + mean
    ms_rest = float((rest**2).sum()) / ((seeds - 1) * (questions - 1))
    ms_seed = ms_rest if tied else questions * float(((by_seed - mean) ** 2).sum()) / (seeds - 1)
    ms_question = seeds * float(((by_question - mean) ** 2).sum()) / (questions - 1)
    spread = ms_seed + max(ms_question - ms_rest, 0.0)
    df = seeds - 1.0 if tied else (seeds - 1) * (spread / ms_seed) ** 2
    error = math.sqrt(spread / d.size)
    half = t_quantile(df) * error
    return Paired(mean, mean - half, mean + half, t_two_sided(mean / error, df), df)


def sign_flip(differences: Sequence[float]) -> float:
    """Exact two-sided sign-flip p over seeds: without a difference each seed's sign is a fair coin.

    No other assumption; p is at least 2 / 2^S: 0.0625 for five seeds. Raises ValueError for over 16.
    """
    d = np.asarray(differences, dtype=np.float64)
    if d.size > MOST_FLIPPED:
        raise ValueError(
            f"found {d.size} seeds, expected at most {MOST_FLIPPED} for exact sign flips; leave the test out"
        )
    signs: NDArray[Any] = np.array(list(itertools.product((1.0, -1.0), repeat=d.size)))
    return float((np.abs(signs @ d) >= abs(d.sum()) - 1e-12).mean())


def holm(p: Sequence[float]) -> list[float]:
    """Holm (1979) adjusted p-values, in the order given: max over i <= k of (m - i + 1) p_(i), at most 1."""
    from statsmodels.stats.multitest import multipletests

    return [float(value) for value in multipletests(p, method="holm")[1]]
