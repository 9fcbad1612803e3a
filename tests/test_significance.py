"""Intervals and tests over seeds and questions, by hand."""

import math
import subprocess
import sys

import mpmath
import numpy as np
import pytest

from east.evaluation import significance


def test_wilson_by_hand():
    """8 of 10, z = 1.96: centre (0.8 + 0.19207) / 1.38415 = 0.71674, half 1.96 / 1.38415 * sqrt(0.016 + 0.0096)
    = 0.22675: 0.4901 to 0.9433."""
    low, high = significance.wilson(8, 10)
    assert (low, high) == (pytest.approx(0.49016, abs=1e-4), pytest.approx(0.94332, abs=1e-4))
    assert significance.wilson(0, 5)[0] == 0 and significance.wilson(5, 5)[1] == 1


def test_mcnemar_by_hand():
    """7 gained, 1 lost: 2 * (C(8,0) + C(8,1)) / 2^8 = 18 / 256."""
    assert significance.mcnemar(7, 1) == significance.mcnemar(1, 7) == 18 / 256
    assert significance.mcnemar(0, 0) == significance.mcnemar(3, 3) == 1


def test_mcnemar_of_many_flips_is_that_of_exact_integers():
    """2 * sum_{k <= lost} C(flips, k) / 2^flips in Python's integers, also far below 1e-16."""
    assert significance.mcnemar(3000, 3000) == 1
    for gained, lost in ((3000, 2000), (100, 60), (13, 40)):
        flips, few = gained + lost, min(gained, lost)
        p = 2 * sum(math.comb(flips, k) for k in range(few + 1)) / 2**flips
        assert significance.mcnemar(gained, lost) == pytest.approx(p, rel=1e-11, abs=0)


def test_bootstrap_is_that_of_resampled_questions():
    """100 questions, 30 gained, 10 lost: difference 0.2, standard error sqrt(0.4 - 0.04) / 10 = 0.06."""
    verdicts = [True] * 30 + [False] * 10 + [True] * 60
    baseline = [False] * 30 + [True] * 10 + [True] * 60
    low, high = significance.paired_bootstrap(verdicts, baseline)
    assert (low, high) == (pytest.approx(0.2 - 1.96 * 0.06, abs=0.011), pytest.approx(0.2 + 1.96 * 0.06, abs=0.011))


def p_of_t(t: float, df: float) -> float:
    """P(|T| >= |t|): the regularised incomplete beta I_x(df/2, 1/2) at x = df / (df + t^2), by another library."""
    return float(mpmath.betainc(df / 2, 0.5, 0, df / (df + t * t), regularized=True))


def test_interval_has_the_t_points_of_the_table():
    """Two-sided 95 % points of Student's t as every table prints them: half width t s / sqrt(S) of S seeds."""
    for seeds, t in {2: 12.7062, 3: 4.3027, 5: 2.7764, 31: 2.0423}.items():
        values = np.arange(seeds)
        interval = significance.mean_interval(values)
        assert interval.high - interval.mean == pytest.approx(t * values.std(ddof=1) / math.sqrt(seeds), rel=2e-5)


def test_interval_over_seeds_by_hand():
    """1, 2, 3: mean 2, s = 1, half = 4.3027 / sqrt 3 = 2.4842; one seed has none."""
    interval = significance.mean_interval([1, 2, 3])
    assert interval == pytest.approx((2, 2 - 2.4842, 2 + 2.4842), abs=1e-4)
    assert math.isnan(significance.mean_interval([0.5]).low)


def test_crossed_by_hand():
    """Seeds [1, 1, 0, 0] and [1, 0, 0, -1]: means 1/2 and 0, of all 1/4, by question 1, 1/2, 0, -1/2.
    MS_s = 4 * 2 * (1/4)^2 / 1 = 1/2; MS_q = 2 * (9 + 1 + 1 + 9)/16 / 3 = 5/6; every remainder is 1/4 in size, so
    MS_sq = 8/16 / 3 = 1/6. Variance (1/2 + 5/6 - 1/6) / 8 = 7/48, df = (7/6)^2 / (1/4) = 49/9."""
    difference = significance.crossed([[1, 1, 0, 0], [1, 0, 0, -1]])
    t = 0.25 / math.sqrt(7 / 48)
    assert difference.mean == 0.25 and difference.df == pytest.approx(49 / 9)
    assert difference.p == pytest.approx(p_of_t(t, 49 / 9), rel=1e-11)
    half = difference.high - 0.25
    assert half == pytest.approx(0.25 - difference.low)
    assert p_of_t(half / math.sqrt(7 / 48), 49 / 9) == pytest.approx(0.05, rel=1e-11)


def test_crossed_without_question_effect_is_the_paired_t_over_seeds():
    """Where MS_q <= MS_sq only seeds spread: t over the seeds' means, S - 1 degrees of freedom."""
    d = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0]])
    difference, seeds = significance.crossed(d), significance.mean_interval(d.mean(axis=1))
    assert difference.df == 3 and difference[:3] == pytest.approx(seeds)


def test_crossed_of_seeds_that_tie_is_not_certain():
    """[1, 0, 0, 0] and [0, 1, 0, 0]: both seeds gain 1/4, MS_s = 0. By question 1/2, 1/2, 0, 0: MS_q = 2 * 4/16 / 3 =
    1/6; the remainders are 1/2 four times, MS_sq = 1 / 3 > MS_q. Variance (1/3) / 8 = 1/24, one degree of freedom:
    t = sqrt(24) / 4 = 1.2247, p = 1 - 2 atan(t) / pi = 0.4359."""
    difference = significance.crossed([[1, 0, 0, 0], [0, 1, 0, 0]])
    assert (difference.mean, difference.df) == (0.25, 1) and difference.p == pytest.approx(0.4359, abs=1e-4)
    assert difference.high - difference.mean == pytest.approx(12.7062 / math.sqrt(24), abs=1e-4)


def test_crossed_of_seeds_that_answer_alike_lets_questions_vary():
    """Twice [1, 1, 0, 0]: MS_s = MS_sq = 0, MS_q = 2 * 4/4 / 3 = 2/3; variance (2/3) / 8 = 1/12 with S - 1 = 1."""
    difference = significance.crossed([[1, 1, 0, 0], [1, 1, 0, 0]])
    assert (difference.mean, difference.df) == (0.5, 1)
    assert difference.p == pytest.approx(p_of_t(0.5 * math.sqrt(12), 1)) and difference.p > 0.3


def test_crossed_of_equal_verdicts_shows_nothing():
    """No verdict differs from another, whether all are equal or all are gained: no error, so no p either."""
    for value in (0, 1):
        difference = significance.crossed(np.full((3, 5), value))
        assert difference.mean == value and all(map(math.isnan, difference[1:]))


def test_crossed_keeps_its_level_where_pooling_would_not():
    """No true difference; seeds and questions both have effects: 5 % rejected, pooled z tests far more."""
    rng = np.random.default_rng(0)
    runs, seeds, questions = 150, 5, 200
    rejected = pooled = 0
    for _ in range(runs):
        lift = 0.05 * rng.standard_normal((seeds, 1)) + 0.1 * rng.standard_normal((1, questions))
        u = rng.random((seeds, questions))
        d = (u < 0.12 + lift).astype(float) - (u > 0.88 + lift)
        rejected += significance.crossed(d).p < 0.05
        pooled += abs(d.sum()) > 1.96 * math.sqrt(np.abs(d).sum())
    assert 0.005 <= rejected / runs <= 0.09 and pooled / runs > 0.2


def test_sign_flip_by_hand():
    """All five seeds one way: 2 of 32 patterns. 3, -1: |2| of {4, 2, 2, 4}: all of them."""
    assert significance.sign_flip([0.1, 0.2, 0.1, 0.3, 0.1]) == 2 / 32
    assert significance.sign_flip([3, -1]) == 1 and significance.sign_flip([3, 1, -1]) == 6 / 8
    with pytest.raises(ValueError, match="17 seeds"):
        significance.sign_flip([1.0] * 17)


def test_holm_by_hand():
    """Sorted 0.01, 0.02, 0.03, 0.5 times 4, 3, 2, 1: 0.04, 0.06, max(0.06, 0.06), 0.5."""
    assert significance.holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert significance.holm([]) == [] and significance.holm([0.9, 0.8]) == [1.0, 1.0]


def test_importing_the_module_is_cheap():
    """scipy, statsmodels and torch are imported by the functions and stages that need them."""
    code = "import sys, east.evaluation.significance; print({'scipy', 'statsmodels', 'torch'} & sys.modules.keys())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
