from __future__ import annotations

import numpy as np
import pytest

from rerankd.evaluate.fusion import DEFAULT, LabelledScores, fit_weight
from rerankd.service.fusion import fuse, z_scores


def test_z_scores_have_mean_zero_and_deviation_one() -> None:
    scores = z_scores(np.array([3.0, -1.0, 8.0, 2.0]))
    assert scores.mean() == pytest.approx(0)
    assert scores.std() == pytest.approx(1)


def test_equal_scores_say_nothing() -> None:
    assert z_scores(np.array([2.0, 2.0])).tolist() == [0.0, 0.0]
    assert z_scores(np.array([2.0])).tolist() == [0.0]


def test_the_scale_of_neither_side_matters() -> None:
    model, candidates = np.array([0.1, 0.9, 0.4]), np.array([20.0, 3.0, 11.0])
    assert fuse(DEFAULT, model, candidates) == pytest.approx(fuse(DEFAULT, 100 * model - 7, candidates / 3))


def test_a_side_without_an_opinion_leaves_it_to_the_other() -> None:
    weight = DEFAULT.weight
    assert fuse(DEFAULT, np.array([1.0, 2.0]), np.array([5.0, 5.0])).tolist() == [-weight, weight]
    assert fuse(DEFAULT, np.array([5.0, 5.0]), np.array([2.0, 1.0])) == pytest.approx([1 - weight, weight - 1])


def test_numbers_of_any_size_are_fused() -> None:
    assert np.isfinite(z_scores(np.array([1e308, -1e308, 0.0]))).all()


def labelled(random: np.random.Generator, model_noise: float, candidate_noise: float) -> LabelledScores:
    grades = (random.uniform(size=30) < 0.1).astype(float)
    model, candidates = (grades + noise * random.normal(size=30) for noise in (model_noise, candidate_noise))
    return LabelledScores(model, candidates, grades, [int(grade) for grade in grades])


def test_the_weight_goes_to_the_better_side() -> None:
    random = np.random.default_rng(1)
    good_model = fit_weight([labelled(random, 0.3, 3.0) for _ in range(60)])
    good_candidates = fit_weight([labelled(random, 3.0, 0.3) for _ in range(60)])
    assert good_model is not None
    assert good_candidates is not None
    assert good_model.weight > 0.6 > 0.4 > good_candidates.weight
    # What was found on other queries cannot be better than the best over all.
    assert good_model.cross_validated <= max(good_model.by_weight.values())


def test_two_sides_that_miss_different_things_are_better_together() -> None:
    random = np.random.default_rng(2)
    fit = fit_weight([labelled(random, 1.0, 1.0) for _ in range(200)])
    assert fit is not None
    assert 0.3 < fit.weight < 0.7
    assert fit.cross_validated > max(fit.by_weight[0.0], fit.by_weight[1.0])


def test_fewer_queries_than_folds_find_nothing() -> None:
    assert fit_weight([]) is None
