"""Intervals and tests over seeds and questions, numpy only: Student t, crossed seeds and questions, sign flips, Holm.

An accuracy is a mean over questions of a model that one seed made. Two things are drawn: the seed (samples, order,
examples) and the questions. What an interval speaks of is which of the two it lets vary.
"""

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import mpmath
import numpy as np
from numpy.typing import ArrayLike, NDArray

Z95 = 1.959963984540054  # 97.5 % quantile of the standard normal
RESAMPLES = 10_000
MOST_FLIPPED = 16  # seeds up to which all 2^S sign patterns are gone through


class Interval(NamedTuple):
    """A mean and its 95 % interval; low and high are nan where one value gives no interval."""

    mean: float
    low: float
    high: float


class Series(NamedTuple):
    """A line of a figure: y[i] is the mean and interval at x[i]. marked: x holds all that was measured."""

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


def wilson(correct: int, n: int, z: float = Z95) -> tuple[float, float]:
    """Wilson (1927) score interval of a proportion: (low, high)."""
    p, zz = correct / n, z * z / n
    centre, half = (p + zz / 2) / (1 + zz), z * math.sqrt(p * (1 - p) / n + zz / (4 * n)) / (1 + zz)
    return max(0.0, centre - half), min(1.0, centre + half)


def mcnemar(gained: int, lost: int) -> float:
    """Exact two-sided McNemar p: under no difference each of the gained + lost flips is a fair coin."""
    flips, few = gained + lost, min(gained, lost)
    tail = term = 1  # exact integers: C(flips, k) from C(flips, k - 1)
    for k in range(1, few + 1):
        term = term * (flips - k + 1) // k
        tail += term
    return min(1.0, 2 * tail / 2**flips)


def paired_bootstrap(ours: Any, theirs: Any, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of the difference of accuracies, questions drawn with replacement.

    A resample's difference is (gains - losses) / n, and its counts of gains and losses are multinomial.
    """
    difference = np.asarray(ours, dtype=float) - np.asarray(theirs, dtype=float)
    n = len(difference)
    shares = [float((difference > 0).mean()), float((difference < 0).mean())]
    draws = np.random.default_rng(seed).multinomial(n, [*shares, max(0.0, 1 - sum(shares))], size=RESAMPLES)
    low, high = np.quantile((draws[:, 0] - draws[:, 1]) / n, [0.025, 0.975])
    return float(low), float(high)


def t_two_sided(t: float, df: float) -> float:
    """P(|T| >= |t|) for Student's t: the regularised incomplete beta I_x(df/2, 1/2) at x = df / (df + t^2)."""
    if math.isinf(t):
        return 0.0
    if math.isinf(df):
        return math.erfc(abs(t) / math.sqrt(2))
    return float(mpmath.betainc(df / 2, 0.5, 0, df / (df + t * t), regularized=True))


@functools.lru_cache
def t_quantile(df: float, share: float = 0.95) -> float:
    """The t with P(|T| < t) = share, by bisection."""
    low, high = 0.0, 1.0
    while t_two_sided(high, df) > 1 - share:
        high *= 2
    for _ in range(45):
        middle = (low + high) / 2
        low, high = (middle, high) if t_two_sided(middle, df) > 1 - share else (low, middle)
    return (low + high) / 2


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
    questions are both taken as draws, as readers and cases are in studies of diagnosis: the variance of the mean
    is (MS_s + max(MS_q - MS_sq, 0)) / (S Q) from the two-way table's mean squares, with the degrees of freedom of
    Hillis (2007, Statistics in Medicine 26:596, Eq. for F_DBM): (MS_s + max(MS_q - MS_sq, 0))^2 / (MS_s^2 / (S - 1)).
    Where all seeds have the same mean, MS_s = 0 says that their spread is too small to be seen, not that there is
    none: MS_sq, what MS_s would be without any effect of seeds, stands in for it, with S - 1 degrees of freedom.
    Where no verdict differs from any other there is nothing to estimate an error from: all but the mean is nan.
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
    """Exact two-sided sign-flip p over seeds: under no difference each seed's sign is a fair coin.

    No assumption beside that, and no less than 2 / 2^S: 0.0625 for five seeds. Raises ValueError for over 16.
    """
    d = np.asarray(differences, dtype=np.float64)
    if d.size > MOST_FLIPPED:
        raise ValueError(f"sign flips of {d.size} seeds are too many to go through, expected at most {MOST_FLIPPED}")
    signs: NDArray[Any] = np.array(list(itertools.product((1.0, -1.0), repeat=d.size)))
    return float((np.abs(signs @ d) >= abs(d.sum()) - 1e-12).mean())


def holm(p: Sequence[float]) -> list[float]:
    """Holm (1979) adjusted p-values, in the order given: max over i <= k of (m - i + 1) p_(i), at most 1."""
    adjusted, running = [0.0] * len(p), 0.0
    for rank, place in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        running = max(running, min(1.0, (len(p) - rank) * p[place]))
        adjusted[place] = running
    return adjusted
