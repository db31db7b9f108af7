"""Tests that may be looked at every day, against simulated users and scipy's tables."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rerankd.experiments.statistics import (
    LEAST_UNITS,
    chi_squared_p,
    difference_of_arms,
    kendall_tau,
    mean_of_units,
    sample_ratio_p,
)


@pytest.mark.parametrize("runs", [100, pytest.param(1_000, marks=pytest.mark.thorough)])
def test_no_difference_is_declared_in_at_most_5_percent_of_runs_looked_at_daily(runs: int) -> None:
    random = np.random.default_rng(3)
    declared = 0
    for _ in range(runs):
        control, candidate = random.binomial(1, 0.3, (2, 3_000)).astype(float)
        looks = range(100, 3_001, 100)
        declared += any(difference_of_arms(control[:n], candidate[:n]).is_settled for n in looks)
    assert declared <= 0.05 * runs


def test_a_fixed_interval_looked_at_daily_would_declare_one_too_often() -> None:
    """The simulation above can fail: the usual test does."""
    random = np.random.default_rng(3)
    declared = 0
    for _ in range(300):
        both = random.binomial(1, 0.3, (2, 3_000)).astype(float)
        sums = np.abs(np.cumsum(both[1] - both[0])[99::100])
        counts = np.arange(100, 3_001, 100)
        declared += bool((sums / np.sqrt(counts * 2 * 0.3 * 0.7) > 1.96).any())
    assert declared > 0.15 * 300


def test_a_difference_is_found_and_its_interval_holds_it() -> None:
    random = np.random.default_rng(4)
    control = random.binomial(1, 0.30, 5_000).astype(float)
    candidate = random.binomial(1, 0.36, 5_000).astype(float)
    found = difference_of_arms(control, candidate)
    assert found.is_settled
    assert 0 < found.low < 0.06 < found.high
    assert found.units == 10_000


def test_interval_and_p_value_say_the_same() -> None:
    random = np.random.default_rng(5)
    for shift in (0.0, 0.05, 0.1, 0.2, 0.4):
        found = mean_of_units(random.normal(shift, 1, 1_000))
        assert found.is_settled == (not found.low <= 0 <= found.high)


def test_too_few_units_say_nothing() -> None:
    few = np.ones(LEAST_UNITS - 1)
    assert difference_of_arms(np.zeros(1_000), few).p == 1
    assert math.isinf(mean_of_units(few).high)
    assert math.isnan(mean_of_units(np.empty(0)).mean)
    # And neither do units that are all alike: there is no variance to go by.
    assert mean_of_units(np.ones(500)).p == 1


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 7])
def test_chi_squared_is_scipys(freedom: int) -> None:
    from scipy import stats

    for value in (0.0, 0.01, 1.0, 5.5, 40.0):
        assert chi_squared_p(value, freedom) == pytest.approx(stats.chi2.sf(value, freedom), abs=1e-12)


def test_a_split_that_is_off_is_seen() -> None:
    assert sample_ratio_p([5_020, 4_980], [1, 1]) > 0.5
    assert sample_ratio_p([5_200, 4_800], [1, 1]) < 0.001
    assert sample_ratio_p([25_000, 75_000], [1, 3]) == 1
    assert sample_ratio_p([10, 1], [1, 0]) == 0
    assert sample_ratio_p([0, 0], [1, 1]) == 1


def test_kendalls_tau_is_scipys() -> None:
    from scipy import stats

    random = np.random.default_rng(6)
    for _ in range(20):
        one, two = random.integers(0, 8, 15).astype(float), random.normal(size=15)
        assert kendall_tau(one, two) == pytest.approx(stats.kendalltau(one, two).statistic)
    assert kendall_tau(np.array([1.0]), np.array([2.0])) == 1
