"""Tests for experiments that are looked at while they run, and how far two rankings agree.

The sequential test is the mixture sequential probability ratio test with a normal mixture (H. Robbins: Statistical
Methods Related to the Law of the Iterated Logarithm, 1970; R. Johari et al.: Always Valid Inference, 2022) over an
estimated variance, whose intervals are the asymptotic confidence sequences of I. Waudby-Smith et al.: Time-uniform
Central Limit Theory and Asymptotic Confidence Sequences, Annals of Statistics, 2024. It may be looked at as often as
one likes: where there is no difference, the chance that it ever declares one is at most ``alpha``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ALPHA = 0.05
LEAST_UNITS = 100
"""Units of an arm before which nothing is said: the variance is estimated, and means have to be nearly normal."""
TUNED_FOR = 5_000
"""Units at which the interval is narrowest, compared with other mixtures. Fixed, for it must not follow the data."""
TUNED_FOR_INTERLEAVED = 500
"""The same for interleaving, which needs fewer."""
SAMPLE_RATIO_ALPHA = 0.001
"""Below this p value the split is not what it should be, and no other figure is to be believed."""


@dataclass(frozen=True, slots=True)
class Effect:
    """A mean difference so far.

    Attributes:
        units: of both arms together.
        low, high: of the confidence sequence at 1 - ``ALPHA``: infinite while there are too few units.
        p: the always valid p value, 1 while there are too few units.
    """

    mean: float
    low: float
    high: float
    p: float
    units: int

    @property
    def is_settled(self) -> bool:
        return self.p < ALPHA


def difference_of_arms(control: NDArray[np.float64], candidate: NDArray[np.float64]) -> Effect:
    """``candidate - control``: one value a unit, float64, shapes (units,)."""
    counts = (len(control), len(candidate))
    if min(counts) < LEAST_UNITS:
        mean = float(candidate.mean() - control.mean()) if min(counts) else math.nan
        return _unsettled(mean, sum(counts))
    variance = float(control.var(ddof=1)) / counts[0] + float(candidate.var(ddof=1)) / counts[1]
    return _effect(float(candidate.mean() - control.mean()), variance, sum(counts), TUNED_FOR)


def mean_of_units(values: NDArray[np.float64]) -> Effect:
    """The mean of one value a unit, float64, shape (units,), against 0: for interleaving."""
    if len(values) < LEAST_UNITS:
        return _unsettled(float(values.mean()) if len(values) else math.nan, len(values))
    return _effect(float(values.mean()), float(values.var(ddof=1)) / len(values), len(values), TUNED_FOR_INTERLEAVED)


def _unsettled(mean: float, units: int) -> Effect:
    return Effect(mean, -math.inf, math.inf, 1.0, units)


def _effect(mean: float, variance: float, units: int, tuned_for: int) -> Effect:
    """The test for a mean whose estimate has this variance after ``units`` units."""
    if variance <= 0:
        return _unsettled(mean, units)
    grown = units * mixture_variance(tuned_for) + 1
    reach = math.sqrt(variance * 2 * grown / (grown - 1) * math.log(math.sqrt(grown) / ALPHA))
    ratio = -0.5 * math.log(grown) + mean * mean / variance * (grown - 1) / (2 * grown)
    return Effect(mean, mean - reach, mean + reach, math.exp(-max(ratio, 0.0)), units)


def mixture_variance(units: int) -> float:
    """Variance of the normal mixture, in variances of one unit, that is best at ``units`` (Waudby-Smith et al.)."""
    doubt = -2 * math.log(ALPHA)
    return (doubt + math.log(doubt + 1)) / units


def sample_ratio_p(counts: Sequence[int], weights: Sequence[float]) -> float:
    """The p value of Pearson's chi squared test that units fall to arms as the weights say."""
    total, shares = sum(counts), [weight / sum(weights) for weight in weights]
    if any(count and not share for count, share in zip(counts, shares, strict=True)):
        return 0.0
    taking = [(count, share * total) for count, share in zip(counts, shares, strict=True) if share]
    if len(taking) < 2 or not total:
        return 1.0
    return chi_squared_p(sum((count - wanted) ** 2 / wanted for count, wanted in taking), len(taking) - 1)


def chi_squared_p(value: float, freedom: int) -> float:
    """P(X >= value) of the chi squared distribution, by its closed form for whole degrees of freedom."""
    half = value / 2
    if half <= 0:
        return 1.0
    total = math.erfc(math.sqrt(half)) if freedom % 2 else 0.0
    for step in range(freedom // 2):
        power = step + (0.5 if freedom % 2 else 0.0)
        total += math.exp(power * math.log(half) - half - math.lgamma(power + 1))
    return min(total, 1.0)


def kendall_tau(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Kendall's tau-b of two scores of the same items, float64, shapes (items,); 1 where there is nothing to order.

    Quadratic in the items, so that callers cut long lists.
    """
    upper = np.triu_indices(len(first), k=1)
    one = np.sign(first[:, None] - first[None, :])[upper]
    two = np.sign(second[:, None] - second[None, :])[upper]
    scale = math.sqrt(float(np.abs(one).sum()) * float(np.abs(two).sum()))
    return float((one * two).sum()) / scale if scale else 1.0
