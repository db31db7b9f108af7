from __future__ import annotations

import pytest

from rerankd.schedule.budget import Speed, TokenBudget


def test_a_shortage_halves_the_budget_and_calm_brings_it_back() -> None:
    budget = TokenBudget(1000, calm_seconds=60)
    budget.lower(1000, now=0)
    budget.lower(500, now=1)
    assert budget.at(2) == 250
    assert budget.at(60) == 250
    assert budget.at(61) == 500
    assert budget.at(120.9) == 500
    assert budget.at(121) == 1000
    assert budget.at(1e9) == 1000


def test_the_budget_never_reaches_nothing() -> None:
    budget = TokenBudget(1000, calm_seconds=60)
    for _ in range(20):
        budget.lower(budget.at(0), now=0)
    assert budget.at(0) == 1


def test_a_shortage_of_a_pair_above_the_budget_does_not_raise_it() -> None:
    budget = TokenBudget(100, calm_seconds=60)
    budget.lower(10_000, now=0)
    assert budget.at(0) == 100


def test_small_batches_say_nothing_about_speed() -> None:
    speed = Speed()
    speed.observe(10, 1.0, budget=1000)
    assert speed.tokens_per_second is None
    assert speed.seconds_for(10**9) == 0
    speed.observe(1000, 0.5, budget=1000)
    assert speed.seconds_for(4000) == pytest.approx(2.0)


def test_speed_follows_slowly() -> None:
    speed = Speed()
    speed.observe(1000, 1.0, budget=1000)
    speed.observe(1000, 10.0, budget=1000)
    assert speed.tokens_per_second == pytest.approx(820)
