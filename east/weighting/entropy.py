"""Entropy of a question's answers from cluster sizes, numpy only: the paper's estimator, others, and its uncertainty.

counts: the sizes of the clusters of equal answers among n responses. p_j: the probability that the model gives answer
j, which may not be among the responses. All entropies are in nats. The plug-in estimator (paper Eq. 1) is too small,
by about (K - 1) / 2n for K answers: the error grows as n falls. The other estimators correct for answers that are
missing from the responses.

All four estimators are exactly 0 with one cluster, and above 0 otherwise, so that the questions without a weight for
a < 0 are the same for each of them. Chao and Shen, and Chao, Wang and Jost estimate the missing answers from those that
occur once or twice. With grading.missing="own" every response without an answer counts as such an answer: use "cluster"
or "excluded" with these two.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def plugin(counts: Sequence[int]) -> float:
    """Paper Eq. 1: h = -sum_j p_j ln p_j in nats, p_j = counts_j / sum counts. Zero counts add nothing.

    Raises ValueError, as the other estimators do, when no count is positive or a count is negative.
    """
    c = _positive(counts)
    p = c / c.sum()
    return max(0.0, float(-(p * np.log(p)).sum()))  # one cluster: -0.0 becomes 0.0


def miller_madow(counts: Sequence[int]) -> float:
    """Miller (1955): the plug-in estimate plus (K - 1) / 2n, for K clusters and n responses, in nats."""
    c = _positive(counts)
    return plugin(counts) + float((c.size - 1) / (2 * c.sum()))


def chao_shen(counts: Sequence[int]) -> float:
    """Chao and Shen (2003): a Horvitz-Thompson sum over shares that are scaled to the coverage C = 1 - f1 / n, in nats.

    h = -sum_j q_j ln q_j / (1 - (1 - q_j)^n), q_j = C counts_j / n, f1 the number of clusters of one response. Where
    all n > 1 responses differ, C would be 0; f1 = n - 1 is then used, as in the R package entropy.
    """
    c = _positive(counts)
    n = c.sum()
    once = (c == 1).sum()
    if once == n > 1:
        once = n - 1
    q = (1 - once / n) * c / n if n > 1 else np.ones(1)
    return max(0.0, float(-(q * np.log(q) / (1 - (1 - q) ** n)).sum()))


def chao_wang_jost(counts: Sequence[int]) -> float:
    """Chao, Wang and Jost (2013), Methods Ecol. Evol. 4: from the slopes of the species accumulation curve (the number
    of different answers by the number of responses), in nats.

    h = sum_j c_j/n sum_{k=c_j}^{n-1} 1/k + f1/n (1-A)^(1-n) [-ln A - sum_{r=1}^{n-1} (1-A)^r / r], with
    A = 2 f2 / ((n-1) f1 + 2 f2), or 2 / ((n-1) (f1-1) + 2) where f2 = 0; f1, f2 the numbers of clusters of one and of
    two responses. The first sum alone is Zhang's (2012) estimator, whose bias falls exponentially with n.
    """
    c = _positive(counts).astype(np.int64)
    n = int(c.sum())
    harmonic = _harmonic(n)
    seen = float((c / n * (harmonic[n - 1] - harmonic[c - 1])).sum())
    once, twice = int((c == 1).sum()), int((c == 2).sum())
    a = 2 * twice / ((n - 1) * once + 2 * twice) if twice else 2 / ((n - 1) * max(once - 1, 0) + 2)
    return seen + once / n * _unseen(a, n) if once and a < 1 else seen


def _unseen(a: float, n: int) -> float:
    """(1-a)^(1-n) [-ln a - sum_{r<n} (1-a)^r / r] = sum_{r>=n} (1-a)^(r-n+1) / r, for 0 < a < 1."""
    x = 1 - a
    scale = x ** (n - 1)
    if scale > 1e-4:  # the difference below keeps 12 digits, and the series would have many terms
        r = np.arange(1, n)
        return float((-np.log(a) - (x**r / r).sum()) / scale)
    k = np.arange(1, int(40 / a) + 1)  # x^k < e^-40 for larger k
    return float((x**k / (n - 1 + k)).sum())


Estimator = Literal["plugin", "miller_madow", "chao_shen", "chao_wang_jost"]
ESTIMATORS: dict[Estimator, Callable[[Sequence[int]], float]] = {
    "plugin": plugin,
    "miller_madow": miller_madow,
    "chao_shen": chao_shen,
    "chao_wang_jost": chao_wang_jost,
}


def posterior(counts: Sequence[int]) -> tuple[float, float]:
    """Posterior mean and standard deviation of the entropy, in nats, given the counts; without counts, those of the
    prior.

    The prior is a Dirichlet process of concentration 1, whose mean entropy is 1 nat; the posterior is a Dirichlet
    distribution over the answers seen (weights c_j) and the unseen mass (weight 1, itself a Dirichlet process),
    for which Wolpert and Wolf (1995), Eq. 7 and 8, hold in the limit of infinitely many unseen answers. With
    A = n + 1 and psi the digamma function: E[h] = psi(A+1) - (psi(1) + sum_j c_j psi(c_j+1)) / A.

    Unlike the deviation by the delta method, this one is not 0 where all responses agree or all differ.
    """
    c = np.array([k for k in counts if k], dtype=np.int64)
    total = int(c.sum()) + 1  # A
    harmonic, squares = _harmonic(total + 1), _harmonic(total + 1, power=2)
    digamma = harmonic - harmonic[total + 1]  # at m: psi(m + 1) - psi(A + 2)
    trigamma = np.pi**2 / 6 - squares  # at m: psi'(m + 1)
    last = trigamma[total + 1]
    weighted = c * digamma[c]
    mean = float(harmonic[total] - (c * harmonic[c]).sum() / total)
    # E[h^2] A (A + 1), over pairs of different answers and of equal ones (indices 0 and 1: an unseen answer)
    pairs = (digamma[0] + weighted.sum()) ** 2 - (weighted**2).sum() - last * (total**2 - (c**2).sum())
    pairs += (c * (c + 1) * (digamma[c + 1] ** 2 + trigamma[c + 1] - last)).sum()
    pairs += digamma[1] ** 2 + trigamma[1] - last
    return mean, float(np.sqrt(max(0.0, pairs / (total * (total + 1)) - mean**2)))


def settled(counts: Sequence[int], tolerance: float) -> bool:
    """Whether a question needs no further responses: sampling.adaptive stops drawing where e^2 / n <= tolerance^2.

    tolerance: in nats. e^2 estimates the squared error of the plug-in entropy, in nats^2: the posterior variance plus
    the squared bias, where the bias is estimated by the distance to Chao, Wang and Jost's estimate. e^2 falls about as
    1 / n, so that one more response lowers it by about e^2 / n. Stopping all questions at the same gain minimises the
    sum of squared errors for a given number of responses (Neyman allocation). False while no response has an answer.
    """
    n = sum(counts)
    if n == 0:
        return False
    squared = posterior(counts)[1] ** 2 + (chao_wang_jost(counts) - plugin(counts)) ** 2
    return squared / n <= tolerance**2


def _positive(counts: Sequence[int]) -> Array:
    """The positive counts. Raises ValueError without any, and for a negative count."""
    c = np.asarray(counts, dtype=np.float64)
    if c.size == 0 or c.min() < 0 or c.sum() == 0:
        raise ValueError(
            f"entropy: found cluster sizes {list(counts)}, expected none below 0 and at least one above; grade again"
        )
    return c[c > 0]


def _harmonic(count: int, power: int = 1) -> Array:
    """sum_{k=1}^m 1 / k^power for m = 0 .. count."""
    return np.concatenate([[0.0], np.cumsum(1 / np.arange(1, count + 1, dtype=np.float64) ** power)])
