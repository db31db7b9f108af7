from __future__ import annotations

import pytest

from rerankd.core.token_budget import Pace, PaceMeter, TokenBudget


def test_a_shortage_halves_the_budget_and_calm_brings_it_back() -> None:
    budget = TokenBudget(1000, calm_seconds=60)
    budget.lower(800, now=0)
    assert budget.at(59) == 400
    budget.lower(300, now=59)
    assert budget.at(60) == 150
    assert [budget.at(now) for now in (119, 179, 239)] == [300, 600, 1000]
    assert budget.at(10_000) == 1000


def test_the_budget_never_falls_to_nothing() -> None:
    budget = TokenBudget(1000, calm_seconds=60)
    budget.lower(1, now=0)
    assert budget.at(0) == 1


def test_nothing_is_known_before_the_first_batch() -> None:
    assert Pace().seconds_for(10**6, 1000) == 0


def test_overhead_and_tokens_are_told_apart() -> None:
    meter = PaceMeter()
    for now, tokens in enumerate([100, 1000, 400, 100, 700]):
        pace = meter.observe(tokens, 0.5 + 0.001 * tokens, now)
    assert (pace.per_batch, pace.per_token) == pytest.approx((0.5, 0.001))
    assert pace.seconds_for(2000, 1000) == pytest.approx(1.25 * 3.0)


def test_batches_of_one_size_count_by_their_tokens() -> None:
    meter = PaceMeter()
    for now in range(5):
        pace = meter.observe(100, 0.2, now)
    assert pace.seconds_for(1000, 1000) == pytest.approx(1.25 * 2.0)


@pytest.mark.promise("S11")
def test_small_batches_correct_a_slow_large_one() -> None:
    meter = PaceMeter()
    slow = meter.observe(16_384, 10.0, 0.0)
    assert slow.seconds_for(2_000, 16_384) > 1
    for turn in range(8):
        pace = meter.observe(2_000, 0.05, 1.0 + turn / 10)
    assert pace.seconds_for(2_000, 16_384) < 0.5


@pytest.mark.promise("S11")
def test_an_estimate_ages() -> None:
    meter = PaceMeter()
    for now in range(20):
        meter.observe(1_000, 10.0, float(now))
    assert meter.observe(1_000, 0.1, 320.0).seconds_for(1_000, 1_000) < 0.2


def test_no_measurement_makes_a_pace_negative() -> None:
    meter = PaceMeter()
    for now, (tokens, seconds) in enumerate([(1000, 0.1), (100, 1.0), (10, 0.0), (5000, 0.0)]):
        pace = meter.observe(tokens, seconds, now)
        assert pace.per_batch >= 0
        assert pace.per_token >= 0
