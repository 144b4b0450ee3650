"""What a few seeds can say: means, intervals, differences, equivalence, and how many seeds would be needed.

Everything is computed by scipy. Values are in the unit of the measured quantity (percentage points for errors).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats

CONFIDENCE = 0.95
EQUIVALENCE_MARGIN = 0.25
"""Points of error below which two errors count as equal: about one standard deviation over seeds on CIFAR-10."""
MINIMUM_SEEDS = 3
_MOST_SEEDS = 1000


@dataclass(frozen=True)
class Estimate:
    """A mean (or a difference of means) over `n` values; without two values there is no spread and no interval.

    `p` is that of the test against no difference; None for a mean, and where every value is the same.
    """

    value: float
    n: int
    spread: float | None = None
    low: float | None = None
    high: float | None = None
    method: str = ""
    p: float | None = None

    @property
    def width(self) -> float:
        """Width of the interval; infinite without one."""
        return math.inf if self.low is None or self.high is None else self.high - self.low

    @property
    def half_width(self) -> float | None:
        """Half the interval's width, for printing behind a plus-minus sign."""
        return None if self.low is None else self.width / 2

    @property
    def is_without_spread(self) -> bool:
        """Whether all values are equal but for rounding, which says nothing about how far they usually differ."""
        return self.spread is not None and self.spread < 1e-9

    def shifted(self, by: float) -> Estimate:
        """The same estimate less the constant `by`, e.g. a printed number."""
        low, high = (None if end is None else end - by for end in (self.low, self.high))
        return replace(self, value=self.value - by, low=low, high=high)


def estimate(values: Sequence[float], confidence: float = CONFIDENCE) -> Estimate:
    """Mean, standard deviation (n - 1) and Student's t interval of the mean."""
    if len(values) < 2:
        return Estimate(float(values[0]), 1)
    mean = math.fsum(values) / len(values)
    spread = float(np.std(values, ddof=1)) if len(set(values)) > 1 else 0.0
    low, high = _t_interval(mean, spread / math.sqrt(len(values)), len(values) - 1, confidence)
    return Estimate(mean, len(values), spread, low, high, "t interval")


def _t_interval(mean: float, error: float, degrees: float, confidence: float) -> tuple[float, float]:
    if error == 0:
        return mean, mean
    low, high = stats.t.interval(confidence, degrees, loc=mean, scale=error)
    return float(low), float(high)


def prediction_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float] | None:
    """The interval that one more value of the same kind lies in with the given probability (Student's t).

    None with fewer than two values.
    """
    if len(values) < 2:
        return None
    mean = estimate(values)
    return _t_interval(mean.value, (mean.spread or 0.0) * math.sqrt(1 + 1 / mean.n), mean.n - 1, confidence)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for testing all of these hypotheses at once (Holm's step-down method), in the given order."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted, largest = [1.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def false_verdict_probability(n: int, confidence: float = CONFIDENCE) -> float:
    """Probability that `n` pairs without any true difference give an interval no wider than their mean difference."""
    critical = float(stats.t.ppf((1 + confidence) / 2, n - 1))
    return 2 * float(stats.t.sf(2 * critical, n - 1))


def is_at_chance(error: float, images: int, classes: int, significance: float = 0.001) -> bool:
    """Whether an error in percent on `images` test images is not better than guessing among equally frequent classes.

    It is better when guessing would give as few errors with less than the probability `significance`.
    """
    wrong = round(error / 100 * images)
    return float(stats.binom.cdf(wrong, images, 1 - 1 / classes)) >= significance


def difference(first: Mapping[int, float], second: Mapping[int, float], confidence: float = CONFIDENCE) -> Estimate:
    """Mean of `first` less mean of `second`, each by seed.

    Paired (Student's t on the differences) when both have the same seeds; else Welch's unequal variances over all
    seeds, so that the difference is always that of the two means. `n` is the number of pairs, or the smaller number of
    seeds.
    """
    if first.keys() == second.keys():
        differences = [first[seed] - second[seed] for seed in sorted(first)]
        paired = estimate(differences, confidence)
        return replace(paired, method="paired t", p=_paired_p(differences) if paired.spread else None)
    n = min(len(first), len(second))
    value = estimate(list(first.values())).value - estimate(list(second.values())).value
    if n < 2:
        return Estimate(value, n, method="unpaired")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # equal values in both arms: the interval is a point
        test = stats.ttest_ind(list(first.values()), list(second.values()), equal_var=False)
        interval = test.confidence_interval(confidence)
    if math.isnan(interval.low):
        return Estimate(value, n, 0.0, value, value, "Welch t")
    low, high = float(interval.low), float(interval.high)
    return Estimate(value, n, _pooled_spread(first, second), low, high, "Welch t", float(test.pvalue))


def _paired_p(differences: Sequence[float]) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # nearly equal differences: p is next to nothing
        return float(stats.ttest_1samp(differences, 0.0).pvalue)


def _pooled_spread(first: Mapping[int, float], second: Mapping[int, float]) -> float:
    """Standard deviation of the difference of one value of each."""
    return math.hypot(*(estimate(list(arm.values())).spread or 0.0 for arm in (first, second)))


def equivalent(
    first: Mapping[int, float], second: Mapping[int, float], margin: float, confidence: float = CONFIDENCE
) -> bool:
    """Two one-sided tests at level 1 - confidence: is the difference shown to lie within plus or minus `margin`?

    It is when the interval of confidence 2 * confidence - 1 (90 % for 95 %) lies there. Two seeds show nothing, nor do
    seeds without any spread: that is a coincidence on few test images, not a measure of how far seeds differ.
    """
    effect = difference(first, second, 2 * confidence - 1)
    if effect.low is None or effect.high is None or effect.n < MINIMUM_SEEDS or effect.is_without_spread:
        return False
    return -margin < effect.low and effect.high < margin


def binomial_error(error: float, images: int) -> float | None:
    """Standard error, in points, of one test error in percent that was measured on `images` images.

    None where none or all of the images are wrong: that says too little of how often they would be.
    """
    if error <= 0 or error >= 100:
        return None
    return 100 * float(stats.binom.std(images, error / 100)) / images


def paired_binomial_error(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Standard error, in points, of the difference of two test errors on the same images.

    Args:
        first: whether each image is wrong, bool [N].
        second: the same of the other run, for the same images in the same order.
    """
    differences = first.astype(int) - second.astype(int)
    return 100 * float(differences.std()) / math.sqrt(len(differences))


def seeds_needed(effect: float, spread: float, confidence: float = CONFIDENCE) -> int | None:
    """Seeds with which the interval would be no wider than the effect, if effect and spread stay as they are.

    `spread` is the standard deviation of the differences. None when there is no effect, or when more than 1,000 seeds
    would be needed.
    """

    def narrow(n: int) -> bool:
        half = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * spread / math.sqrt(n)
        return 2 * half <= abs(effect)

    low, high = MINIMUM_SEEDS, _MOST_SEEDS
    if effect == 0 or not narrow(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if narrow(middle) else (middle + 1, high)
    return low


def slope(levels: Sequence[float], errors: Sequence[float]) -> float:
    """Least-squares slope of error over noise level, in points of error per 10 points of noise."""
    return 10 * float(stats.linregress(levels, errors).slope)
