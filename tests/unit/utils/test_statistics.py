"""What a few seeds can say: against textbook values and by properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from pipeline.utils.statistics import (
    Estimate,
    binomial_error,
    difference,
    equivalent,
    estimate,
    false_verdict_probability,
    holm,
    is_at_chance,
    paired_binomial_error,
    prediction_interval,
    seeds_needed,
    slope,
)

ERRORS = st.floats(0, 100, allow_nan=False)


def test_the_interval_of_five_values_is_students() -> None:
    result = estimate([5.1, 5.3, 5.2, 5.6, 5.3])
    assert result.value == pytest.approx(5.3)
    assert result.spread == pytest.approx(0.18708287)
    assert result.high is not None and result.high - 5.3 == pytest.approx(2.7764451 * 0.18708287 / math.sqrt(5))


def test_one_value_has_no_interval() -> None:
    result = estimate([5.1])
    assert (result.n, result.spread, result.low, result.high) == (1, None, None, None)
    assert result.width == math.inf


def test_equal_values_have_an_interval_of_no_width() -> None:
    assert estimate([5.0, 5.0, 5.0]) == Estimate(5.0, 3, 0.0, 5.0, 5.0, "t interval")
    apart = difference({0: 2.0, 1: 2.0, 2: 2.0}, {3: 1.0, 4: 1.0, 5: 1.0})
    assert (apart.value, apart.low, apart.high) == (1.0, 1.0, 1.0)


def test_equal_seeds_are_paired_and_others_compared_by_welch() -> None:
    base = {0: 5.0, 1: 6.0, 2: 7.0}
    paired = difference({seed: error + 0.5 for seed, error in base.items()}, base)
    assert paired.method == "paired t" and paired.width == pytest.approx(0, abs=1e-9)
    welch = difference({seed + 1: error + 0.5 for seed, error in base.items()}, base)
    assert welch.method == "Welch t" and welch.value == pytest.approx(0.5) and welch.width > 4


def test_no_seed_is_dropped_when_one_arm_has_more_of_them() -> None:
    more, base = {0: 5.5, 1: 6.5, 2: 7.5, 3: 90.0}, {0: 5.0, 1: 6.0, 2: 7.0}
    partly = difference(more, base)
    assert (partly.method, partly.n) == ("Welch t", 3)
    assert partly.value == pytest.approx(sum(more.values()) / 4 - 6.0), "the difference of the means in the table"


def test_welch_agrees_with_the_textbook() -> None:
    """Two samples of three with unit variance: four degrees of freedom, standard error sqrt(2/3)."""
    result = difference({0: 4.0, 1: 5.0, 2: 6.0}, {3: 1.0, 4: 2.0, 5: 3.0})
    assert result.half_width == pytest.approx(2.7764451 * math.sqrt(2 / 3))


@given(st.dictionaries(st.integers(0, 9), ERRORS, min_size=1), st.dictionaries(st.integers(0, 9), ERRORS, min_size=1))
def test_a_difference_turns_its_sign_with_its_arms(first: dict[int, float], second: dict[int, float]) -> None:
    forth, back = difference(first, second), difference(second, first)
    assert forth.value == pytest.approx(-back.value, abs=1e-9)
    assert 1 <= forth.n <= min(len(first), len(second))
    if forth.low is not None and back.high is not None:
        assert forth.low == pytest.approx(-back.high, abs=1e-6)
        assert forth.low <= forth.value + 1e-9


def test_the_binomial_error_of_digits_is_more_than_a_point() -> None:
    assert binomial_error(6.0, 360) == pytest.approx(100 * math.sqrt(0.06 * 0.94 / 360))
    assert binomial_error(0.0, 360) is None and binomial_error(100.0, 360) is None


def test_equivalence_needs_a_narrow_interval_within_the_margin() -> None:
    base = dict.fromkeys(range(4), 5.0)

    def shifted(*by: float) -> dict[int, float]:
        return {seed: 5.0 + value for seed, value in enumerate(by)}

    assert equivalent(shifted(0.01, 0.0, -0.01, 0.02), base, 0.25)
    assert not equivalent(shifted(0.5, -0.5, 0.2, -0.2), base, 0.25)
    assert not equivalent(shifted(0.9, 0.91, 0.9, 0.9), base, 0.25)
    assert not equivalent({0: 5.0, 1: 5.0}, {0: 5.0, 1: 5.0}, 0.25), "two seeds are too few"
    assert not equivalent(base, base, 0.25), "without any spread nothing is known of it"


def test_equivalence_is_that_of_two_one_sided_tests() -> None:
    """Student's t on the differences of the seeds, against either margin."""
    first, second = [5.1, 5.3, 5.2, 5.25], [5.0, 5.15, 5.2, 5.1]
    arms = dict(enumerate(first)), dict(enumerate(second))
    differences = [a - b for a, b in zip(first, second, strict=True)]
    for margin in (0.12, 0.15, 0.18, 0.2, 0.3):
        above = stats.ttest_1samp(differences, -margin, alternative="greater").pvalue
        below = stats.ttest_1samp(differences, margin, alternative="less").pvalue
        assert equivalent(*arms, margin) == (max(above, below) < 0.05)


def test_a_paired_difference_has_the_p_value_of_the_paired_test() -> None:
    first, second = [5.1, 5.3, 5.2], [5.0, 5.15, 5.2]
    paired = difference(dict(enumerate(first)), dict(enumerate(second)))
    assert paired.p == pytest.approx(stats.ttest_rel(first, second).pvalue)
    apart = difference(dict(enumerate(first)), {seed + 9: value for seed, value in enumerate(second)})
    assert apart.p == pytest.approx(stats.ttest_ind(first, second, equal_var=False).pvalue)
    assert difference({0: 2.0, 1: 2.0}, {0: 1.0, 1: 1.0}).p is None


def test_seeds_needed_grow_with_the_spread() -> None:
    assert seeds_needed(1.0, 1.0) == 18  # 2 * 2.1098 / sqrt(18) = 0.995, with 17 seeds 1.028
    assert seeds_needed(0.5, 1.0) == 64
    assert seeds_needed(1.0, 0.01) == 3
    assert seeds_needed(0.0, 1.0) is None
    assert seeds_needed(0.01, 1.0) is None


@given(st.lists(st.floats(-10, 10), min_size=3, max_size=8))
def test_an_undecided_claim_needs_more_seeds_than_it_has(differences: list[float]) -> None:
    effect = estimate(differences)
    needed = seeds_needed(effect.value, effect.spread or 0.0)
    if effect.width > abs(effect.value):
        assert needed is None or needed > effect.n
    else:
        assert needed is None or needed <= effect.n


def test_the_slope_is_in_points_for_ten_points_of_noise() -> None:
    assert slope([10, 30, 50, 70], [1.0, 3.0, 5.0, 7.0]) == pytest.approx(1.0)


def test_a_prediction_interval_is_the_textbook_one() -> None:
    values = [5.1, 5.3, 5.2, 5.6]
    low, high = prediction_interval(values) or (0.0, 0.0)
    half = stats.t.ppf(0.975, 3) * stats.tstd(values) * math.sqrt(1 + 1 / 4)
    assert (low, high) == pytest.approx((5.3 - half, 5.3 + half))
    assert prediction_interval([5.1]) is None


def test_a_prediction_interval_holds_as_many_new_values_as_it_says() -> None:
    samples = stats.norm.rvs(size=(4000, 5), random_state=7)
    inside = sum(low <= new <= high for *seeds, new in samples.tolist() for low, high in [prediction_interval(seeds)])
    assert 0.94 < inside / len(samples) < 0.96


@given(st.lists(st.floats(0, 1), max_size=12))
def test_adjusted_p_values_are_those_of_statsmodels(p_values: list[float]) -> None:
    expected = multipletests(p_values, method="holm")[1].tolist() if p_values else []
    assert holm(p_values) == pytest.approx(expected)


def test_adjusted_p_values_of_an_example_done_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.001]) == pytest.approx([0.5, 0.002])


def test_the_rule_of_verdicts_errs_as_often_as_it_says() -> None:
    """Sixteen claims over three seeds, none of them true: one false verdict in about a fifth of all reports."""
    assert 1 - (1 - false_verdict_probability(3)) ** 16 == pytest.approx(0.19, abs=0.005)
    draws = stats.norm.rvs(size=(20000, 3), random_state=3)
    effects = [estimate(list(row)) for row in draws.tolist()]
    decided = sum(effect.width <= abs(effect.value) for effect in effects)
    assert decided / len(effects) == pytest.approx(false_verdict_probability(3), abs=0.003)


@pytest.mark.parametrize(
    ("error", "images", "classes", "at_chance"),
    [
        (90.0, 360, 10, True),
        (88.0, 360, 10, True),
        (80.0, 360, 10, False),
        (90.0, 10000, 10, True),
        (88.0, 10000, 10, False),
        (100.0, 360, 10, True),
        (99.0, 10000, 100, True),
    ],
)
def test_an_error_that_guessing_would_give_is_at_chance(
    error: float, images: int, classes: int, at_chance: bool
) -> None:
    assert is_at_chance(error, images, classes) is at_chance


def test_the_standard_error_of_a_difference_on_the_same_images_counts_where_two_runs_disagree() -> None:
    first, second = np.zeros(400, bool), np.zeros(400, bool)
    first[:40] = second[10:40] = True  # 30 images that both got wrong, 10 that only the first did
    error = paired_binomial_error(first, second)
    assert error == pytest.approx(100 * np.sqrt(0.025 * (1 - 0.025) / 400))
    apart = np.hypot(*(binomial_error(100 * arm.mean(), 400) for arm in (first, second)))
    assert error < apart / 2
    assert paired_binomial_error(first, first) == 0
