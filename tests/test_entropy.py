"""Entropy estimators, compared with values worked by hand, with exact arithmetic and with a published package."""

import math
from fractions import Fraction

import numpy as np
import pytest

from east.weighting import entropy
from east.weighting.entropy import ESTIMATORS


def test_entropy_by_hand():
    """Clusters 2, 1, 1 of n = 4: p = 1/2, 1/4, 1/4; h = 1/2 ln 2 + 2 * 1/4 ln 4 = 1.5 ln 2 = 1.0397."""
    assert entropy.plugin([2, 1, 1]) == pytest.approx(1.5 * math.log(2), abs=1e-15)


def test_entropy_of_one_cluster_is_zero_without_sign_and_empty_clusters_add_nothing():
    assert str(entropy.plugin([128])) == "0.0"
    assert entropy.plugin([3, 0, 1]) == entropy.plugin([3, 1])


@pytest.mark.parametrize("estimator", ESTIMATORS.values())
@pytest.mark.parametrize("counts", [[], [0, 0], [2, -1]])
def test_entropy_without_responses_is_an_error(counts, estimator):
    with pytest.raises(ValueError, match="expected none below 0 and at least one above"):
        estimator(counts)


@pytest.mark.parametrize("estimator", ESTIMATORS.values())
def test_every_estimator_is_zero_for_one_cluster_and_only_there(estimator):
    """So that the questions without a weight for a < 0 are the same for each; a single response is one cluster."""
    assert [str(estimator([n])) for n in (1, 2, 3, 16, 128)] == ["0.0"] * 5
    for counts in ([1, 1], [127, 1], [64, 64], [2, 2], [1] * 128, [3, 0, 1]):
        assert 0 < estimator(counts) < math.inf
        assert estimator(counts) == pytest.approx(estimator([*counts[::-1], 0]), rel=1e-12)


def test_miller_madow_by_hand():
    """Clusters 2, 1, 1: 1.5 ln 2 + (3 - 1) / (2 * 4) = 1.5 ln 2 + 1/4."""
    assert entropy.miller_madow([2, 1, 1, 0]) == pytest.approx(1.5 * math.log(2) + 0.25, abs=1e-15)


def test_chao_shen_by_hand():
    """Clusters 2, 1, 1: f1 = 2, C = 1/2, q = 1/4, 1/8, 1/8:
    h = (1/4) ln 4 / (1 - (3/4)^4) + 2 (1/8) ln 8 / (1 - (7/8)^4) = (ln 4) 64/175 + (ln 8) 1024/1695."""
    expected = math.log(4) * 64 / 175 + math.log(8) * 1024 / 1695
    assert entropy.chao_shen([2, 1, 1]) == pytest.approx(expected, abs=1e-14)


def test_chao_wang_jost_by_hand():
    """Clusters 2, 1, 1: first sum 2/4 (1/2 + 1/3) + 2 * 1/4 (1 + 1/2 + 1/3) = 5/12 + 11/12 = 4/3. f1 = 2, f2 = 1:
    A = 2 / (3 * 2 + 2) = 1/4, x = 3/4; f1/n = 1/2: 1/2 (4/3)^3 (ln 4 - 3/4 - 9/32 - 9/64)."""
    expected = 4 / 3 + 0.5 * (4 / 3) ** 3 * (math.log(4) - 3 / 4 - 9 / 32 - 9 / 64)
    assert entropy.chao_wang_jost([2, 1, 1]) == pytest.approx(expected, abs=1e-14)


@pytest.mark.parametrize(("once", "twice"), [(2, 33), (1, 40), (128, 0), (5, 5), (40, 1)])
def test_chao_wang_jost_keeps_eleven_digits(once, twice):
    """(1-A)^(1-n) reaches 10^27 where many answers occur twice: compared with the series as exact fractions."""
    counts = [2] * twice + [1] * once + [128 - once - 2 * twice]
    a = Fraction(2 * twice, 127 * once + 2 * twice) if twice else Fraction(2, 127 * (once - 1) + 2)
    series, x = 0.0, 1.0
    for r in range(128, 128 + min(400_000, int(45 / a))):
        x *= float(1 - a)
        series += x / r
    seen = sum(Fraction(c, 128) * sum(Fraction(1, k) for k in range(c, 128)) for c in counts if c)
    assert entropy.chao_wang_jost(counts) == pytest.approx(float(seen) + once / 128 * series, rel=1e-11)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([5, 3, 2, 1, 1], (1.5907965840134402, 1.6866983195021574, 1.7051739598155964)),
        ([1] * 8, (2.5169415416798357, 4.3916932429210656, 3.790158050981078)),
        ([40, 20, 8, 4, 2, 2, 1, 1, 1, 1], (1.5329876079764402, 1.6167094042495824, 1.5679499682160887)),
        ([4, 4], (0.7556471805599453, 0.6958654047974353, 0.7595238095238093)),
    ],
)
def test_estimators_agree_with_infomeasure(counts, expected):
    """Values of infomeasure 0.6.3: entropy(labels, approach="miller_madow" (and so on), base="e")."""
    values = [ESTIMATORS[name](counts) for name in ("miller_madow", "chao_shen", "chao_wang_jost")]
    assert values == pytest.approx(expected, rel=1e-13)


def test_less_bias_than_the_plugin_at_eight_responses():
    """4,000 draws of 8 responses from a Zipf distribution over 30 answers."""
    p = 1 / np.arange(1, 31)
    p /= p.sum()
    true = -(p * np.log(p)).sum()
    drawn = np.random.default_rng(0).multinomial(8, p, size=4000)
    bias = {name: abs(np.mean([f(c) for c in drawn]) - true) for name, f in ESTIMATORS.items()}
    assert bias["chao_wang_jost"] < bias["miller_madow"] < bias["plugin"] and bias["chao_shen"] < bias["miller_madow"]
    assert bias["plugin"] > 0.9 and bias["chao_wang_jost"] < 0.4


def test_posterior_without_responses_is_the_prior():
    """Dirichlet process of concentration 1: mean psi(2) - psi(1) = 1 nat. With A = 1 only pairs of unseen answers
    count: E[h^2] A (A+1) = (psi(1) - psi(3))^2 - psi'(3) + (psi(2) - psi(3))^2 + psi'(2) - psi'(3)
    = (3/2)^2 - (pi^2/6 - 5/4) + 1/4 + 1/4 = 4 - pi^2/6; variance 2 - pi^2/12 - 1 = 0.1775."""
    mean, deviation = entropy.posterior([])
    assert mean == pytest.approx(1, abs=1e-14)
    assert deviation == pytest.approx(math.sqrt(1 - math.pi**2 / 12), abs=1e-14)


@pytest.mark.parametrize("counts", [[16], [1] * 16, [10, 4, 1, 1], [64, 40, 10, 8, 3, 2, 1]])
def test_posterior_against_draws_from_it(counts):
    """The Dirichlet process is approximated by 500 unseen answers of weight 1/500 each; 20,000 draws."""
    gammas = np.random.default_rng(0).gamma([*counts, *[1 / 500] * 500], size=(20_000, len(counts) + 500))
    p = np.maximum(gammas / gammas.sum(axis=1, keepdims=True), 1e-300)
    h = -(p * np.log(p)).sum(axis=1)
    mean, deviation = entropy.posterior([*counts, 0])
    assert mean == pytest.approx(h.mean(), abs=0.01) and deviation == pytest.approx(h.std(), rel=0.02)


def test_settled_by_hand():
    """Clusters 1, 1: plug-in ln 2; Chao, Wang and Jost with f1 = 2, f2 = 0: A = 2/3, 1 + 3 (ln 1.5 - 1/3) = 3 ln 1.5.
    Settled where (variance + bias^2) / 2 is at most tolerance^2. Without answers a question is not settled."""
    squared = entropy.posterior([1, 1])[1] ** 2 + (3 * math.log(1.5) - math.log(2)) ** 2
    assert entropy.settled([1, 1], math.sqrt(squared / 2) + 1e-9)
    assert not entropy.settled([1, 1], math.sqrt(squared / 2) - 1e-9)
    assert not entropy.settled([], 10.0)


def test_few_equal_or_few_different_responses_are_not_settled():
    """The variance by the delta method is 0 for both; here they are settled only with more responses."""
    for few, many in (([4], [64]), ([1] * 4, [16] * 4)):
        assert not entropy.settled(few, 0.03) and entropy.settled(many, 0.03)
    assert not entropy.settled([1] * 64, 0.1)  # all different: the entropy is far above ln 64
