from __future__ import annotations

import numpy as np
import pytest

from rerankd.evaluate.statistics import difference, holm, mean_difference


def test_a_clear_gain_has_an_interval_above_zero_and_a_small_p() -> None:
    random = np.random.default_rng(1)
    gain = random.normal(0.05, 0.1, 300)
    found = difference(gain, np.zeros(300))
    assert found.mean == pytest.approx(gain.mean())
    assert 0 < found.low < found.mean < found.high
    assert found.p < 0.001


def test_the_interval_is_as_wide_as_theory_says() -> None:
    gain = np.random.default_rng(2).normal(0.0, 1.0, 400)
    found = difference(gain, np.zeros(400))
    assert found.high - found.low == pytest.approx(2 * 1.96 * gain.std() / 20, rel=0.05)


def test_luck_is_called_luck() -> None:
    random = np.random.default_rng(3)
    ps = [difference(random.normal(0, 0.1, 50), np.zeros(50)).p for _ in range(60)]
    assert 0.3 < float(np.mean(ps)) < 0.7
    assert sum(p < 0.05 for p in ps) < 10


def test_equal_rankings_differ_by_nothing() -> None:
    values = np.random.default_rng(4).random(20)
    found = difference(values, values)
    assert (found.mean, found.low, found.high, found.p) == (0.0, 0.0, 0.0, 1.0)
    assert (found.wins, found.losses, found.ties) == (0, 0, 20)


def test_wins_losses_and_ties_are_counted() -> None:
    found = difference(np.array([1.0, 0.5, 0.0, 0.2]), np.array([0.0, 0.5, 1.0, 0.1]))
    assert (found.wins, found.losses, found.ties) == (2, 1, 1)


def test_sets_weigh_the_same_whatever_their_size() -> None:
    found = mean_difference([np.full(10, 0.1), np.full(1000, 0.3)])
    assert found.mean == pytest.approx(0.2)


def test_sets_of_one_size_are_resampled_independently() -> None:
    random = np.random.default_rng(5)
    gains = [random.normal(0.0, 1.0, 200) for _ in range(4)]
    found = mean_difference(gains)
    expected = 2 * 1.96 * np.sqrt(sum(gain.var() / 200 for gain in gains)) / 4
    assert found.high - found.low == pytest.approx(expected, rel=0.06)


def test_the_same_data_give_the_same_interval() -> None:
    gain = np.random.default_rng(6).random(30)
    assert difference(gain, np.zeros(30)) == difference(gain, np.zeros(30))


def test_corrected_p_values_count_how_many_were_compared() -> None:
    # Worked by hand: 0.01 x 3, then 0.02 x 2, then 0.5 x 1; none below the one before it.
    assert holm([0.02, 0.5, 0.01]) == pytest.approx([0.04, 0.5, 0.03])
    assert holm([0.03, 0.02]) == pytest.approx([0.04, 0.04])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_twenty_instructions_of_chance_rarely_look_better_than_they_are() -> None:
    random = np.random.default_rng(3)
    runs = random.uniform(size=(1_000, 20))
    assert np.mean([min(holm(list(run))) < 0.05 for run in runs]) < 0.075
    assert np.mean(runs.min(axis=1) < 0.05) > 0.5
