"""What a few seeds can say: against textbook values and by properties."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pipeline.utils.statistics import (
    Estimate,
    binomial_error,
    difference,
    equivalent,
    estimate,
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
    partly = difference({0: 5.5, 1: 6.5, 2: 7.5, 3: 90.0}, base)
    assert (partly.method, partly.n) == ("paired t", 3) and partly.value == pytest.approx(0.5)


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
