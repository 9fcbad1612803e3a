"""Weights, compared with values worked by hand from the paper's equations."""

import math

import numpy as np
import pytest

from east.run import config
from east.weighting import weights
from tests import stages
from tests.conftest import prepare, settings
from tests.stages import folder_of


def test_power_by_hand():
    """v = 1, 4 and a = 1/2: v^a = 1, 2, sum 3, N = 2: weights 2/3, 4/3 (Eq. 6)."""
    assert weights.power_mapping(np.array([1.0, 4.0]), 0.5) == pytest.approx([2 / 3, 4 / 3], abs=1e-15)


def test_power_with_negative_exponent_by_hand():
    """v = 1, 2 and a = -1: v^a = 1, 1/2, sum 3/2, N = 2: weights 4/3, 2/3."""
    assert weights.power_mapping(np.array([1.0, 2.0]), -1.0) == pytest.approx([4 / 3, 2 / 3], abs=1e-15)


def test_power_does_not_overflow():
    """v = 1e-200, 2e-200 and a = 500: v^a is 0 in floating point; their ratio is 2^500, so the weights are 0 and 2."""
    mapped = weights.power_mapping(np.array([1e-200, 2e-200]), 500.0)
    assert mapped == pytest.approx([2 * 0.5**500, 2.0], rel=1e-9)


def test_mean_mapping_by_hand():
    """v = 1, 2, 3: mean 2: 0.5, 1, 1.5 (Eq. 3)."""
    values = np.array([1.0, 2.0, 3.0])
    found, kept = weights.example_weights(values, strategy="entropy", mapping="mean", a=7.0, spread=None, zero="refuse")
    assert found == pytest.approx([0.5, 1.0, 1.5], abs=1e-15) and kept.all()


def test_linear_by_hand():
    """v = 0, 1, 3 and R = 1.5: a = 1.5 / 3 = 0.5, b = 1 - 0.5 * 4/3 = 1/3: 1/3, 5/6, 11/6 (Eq. 4)."""
    mapped = weights.linear_mapping(np.array([0.0, 1.0, 3.0]), 1.5)
    assert mapped == pytest.approx([1 / 3, 5 / 6, 11 / 6], abs=1e-15)
    assert mapped.mean() == pytest.approx(1, abs=1e-15)


def test_linear_mapping_accepts_spreads_up_to_its_bound():
    """v = 0, 1, 3: the bound is (3 - 0) / (4/3 - 0) = 2.25, with which the smallest weight is 0."""
    values = np.array([0.0, 1.0, 3.0])
    assert weights.linear_mapping(values, 2.25).min() == pytest.approx(0, abs=1e-15)
    with pytest.raises(ValueError, match="at most .* = 2.25"):
        weights.linear_mapping(values, 2.26)


def test_negative_exponent_with_zero_values_is_an_error_with_their_number():
    with pytest.raises(ValueError, match="2 of 3 values are 0 .*, and a = -1 < 0"):
        weights.power_mapping(np.array([0.0, 1.0, 0.0]), -1.0)


def test_negative_exponent_with_zero_values_dropped():
    """v = 0, 1, 2, a = -1, zero values dropped: N = 2, weights 0, 4/3, 2/3, with mean 1 over the kept ones."""
    column, kept = weights.example_weights(
        np.array([0.0, 1.0, 2.0]), strategy="entropy", mapping="power", a=-1.0, spread=None, zero="drop"
    )
    assert column == pytest.approx([0, 4 / 3, 2 / 3], abs=1e-15)
    assert kept.tolist() == [False, True, True]


def test_all_zero_values_have_no_weights():
    with pytest.raises(ValueError, match="all 2 values are 0"):
        weights.power_mapping(np.zeros(2), 1.0)


@pytest.mark.parametrize("a", [-3, -2.5, -2, -1.5, -1.25, -1, -0.5, 0.1, 0.2, 0.5, 0.7, 1, 1.5, 2, 2.5, 3])
def test_mean_is_one_for_every_exponent_of_the_paper(a):
    values = np.random.default_rng(0).uniform(0.01, 3, size=997)
    assert weights.power_mapping(values, a).mean() == pytest.approx(1, abs=1e-12)


def test_base_of_the_logarithm_does_not_matter():
    """Entropy in bits is entropy in nats / ln 2: power weights are the same."""
    h = np.array([0.3, 0.9, 1.7])
    assert weights.power_mapping(h / math.log(2), 1.5) == pytest.approx(weights.power_mapping(h, 1.5), rel=1e-14)


def test_value_of_a_question_by_strategy():
    """h of clusters 1, 1 is ln 2; Miller and Madow add (2 - 1) / (2 * 2)."""
    question = {"clusters": [{"count": 1}, {"count": 1}], "accuracy": 0.25, "rejection": 0.5}
    values = {s: weights.question_values(s, [question])[0] for s in ("uniform", "entropy", "accuracy", "rejection")}
    assert values == {"uniform": 1.0, "entropy": pytest.approx(math.log(2)), "accuracy": 0.75, "rejection": 0.5}
    assert weights.question_values("accuracy_rate", [question])[0] == 0.25
    assert weights.question_values("entropy", [question], "miller_madow")[0] == pytest.approx(math.log(2) + 0.25)


def test_summary_by_hand():
    """w = 0, 1, 2: (sum w)^2 / sum w^2 = 9 / 5, which is 0.6 of 3 examples."""
    summary = weights.summary(np.array([0.0, 1.0, 2.0]), np.ones(3, dtype=bool))
    assert summary["effective_sample_size"] == pytest.approx(1.8, abs=1e-15)
    assert summary["effective_share"] == pytest.approx(0.6, abs=1e-15)
    assert (summary["min"], summary["max"], summary["mean"]) == (0, 2, 1)
    assert summary["share_zero"] == pytest.approx(1 / 3)


def share(values, a):
    return weights.effective_sample_size(weights.power_mapping(values, a)) / len(values)


def test_auto_exponent_by_hand():
    """v = 1, 2, min_ess = 0.9: (1 + x)^2 = 1.8 (1 + x^2) with x = 2^a: 0.8 x^2 - 2 x + 0.8 = 0, x = 2, a = 1."""
    assert weights.auto_exponent(np.array([1.0, 2.0]), 0.9) == pytest.approx(1, abs=1e-12)


def test_auto_exponent_of_uniform_and_exponential_values():
    """Uniform values in (0, 1): ESS / N = (2a + 1) / (a + 1)^2, one half at a = 1 + sqrt 2. Exponential values:
    Gamma(a + 1)^2 / Gamma(2a + 1), one half at a = 1. The paper's best exponents, 1 to 3, are in this range."""
    even = (np.arange(100_000) + 0.5) / 100_000
    assert weights.auto_exponent(even, 0.5) == pytest.approx(1 + math.sqrt(2), abs=1e-4)
    assert weights.auto_exponent(-np.log(even), 0.5) == pytest.approx(1, abs=1e-3)


def test_effective_sample_size_falls_with_the_exponent_to_min_ess_at_the_auto_exponent():
    values = np.random.default_rng(0).gamma(2.0, size=997)
    for sign in (1, -1):
        shares = [share(values, sign * a) for a in np.linspace(0, 6, 61)]
        assert shares[0] == pytest.approx(1) and all(b < a for a, b in zip(shares, shares[1:], strict=False))
    for least in (0.1, 0.5, 0.99):
        a = weights.auto_exponent(values, least)
        assert share(values, a) == pytest.approx(least, abs=1e-9) and share(values, a * 1.001) < least


def test_auto_exponent_with_zeros_counts_them_in_n():
    """v = 0, 1, 2: ESS / 3 = (2/3) (1 + x)^2 / (2 (1 + x^2)); at x = 2 that is 0.6, so a = 1."""
    assert weights.auto_exponent(np.array([0.0, 1.0, 2.0]), 0.6) == pytest.approx(1, abs=1e-12)


def test_auto_exponent_where_none_qualifies_is_an_error():
    with pytest.raises(ValueError, match=r"a=auto: 2 of 4 values are 0.*below 0.7 N; lower weighting.min_ess"):
        weights.auto_exponent(np.array([0.0, 0.0, 1.0, 2.0]), 0.7)
    with pytest.raises(ValueError, match="all 2 values are 0"):
        weights.auto_exponent(np.zeros(2), 0.5)


@pytest.mark.parametrize("values", [[0.7, 0.7, 0.7], [0.1, 2.0, 2.0], [0.0, 1.0, 1.0]])
def test_auto_exponent_where_all_qualify_is_the_largest(values):
    """All values are equal, or 2 of 3 are the maximum: the effective share is above one half for all exponents."""
    assert weights.auto_exponent(np.array(values), 0.5) == weights.LARGEST_EXPONENT


def test_weigh_with_auto_and_an_estimator_records_the_exponent(tiny_model, tmp_path, capsys):
    """The exponent is recorded in the manifest, and its weights have the effective share that was asked for."""
    prepare(tmp_path, tiny_model)
    for change in ({"a": "auto", "min_ess": 0.7}, {"a": "auto", "min_ess": 0.7, "entropy": "chao_wang_jost"}):
        auto = config.parse(settings(tmp_path, tiny_model, weighting=change))
        capsys.readouterr()
        stages.run("weigh", auto)
        made = folder_of("weights", auto.folder_of("weights")).open()
        assert auto.label in ("sft-entropy-power-auto-0.7", "sft-entropy-chao_wang_jost-power-auto-0.7")
        assert made.summary["effective_share"] == pytest.approx(0.7, abs=1e-9) and 0 < made.summary["a"] < 10
        assert f"a = {made.summary['a']:.4g}, " in capsys.readouterr().out
        fixed = config.parse(settings(tmp_path, tiny_model, weighting={**change, "a": made.summary["a"]}))
        stages.run("weigh", fixed)
        columns = [np.load(c.folder_of("weights") / "weights.npy") for c in (auto, fixed)]
        assert columns[0].mean() == pytest.approx(1) and np.array_equal(*columns)
