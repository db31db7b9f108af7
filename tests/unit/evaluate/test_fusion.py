from __future__ import annotations

import numpy as np
import pytest

from rerankd.evaluate.fusion import fuse, z_scores


def test_z_scores_have_mean_zero_and_deviation_one() -> None:
    scores = z_scores(np.array([3.0, -1.0, 8.0, 2.0]))
    assert scores.mean() == pytest.approx(0)
    assert scores.std() == pytest.approx(1)


def test_equal_scores_say_nothing() -> None:
    assert z_scores(np.array([2.0, 2.0])).tolist() == [0.0, 0.0]
    assert z_scores(np.array([2.0])).tolist() == [0.0]


def test_the_scale_of_neither_side_matters() -> None:
    model, candidates = np.array([0.1, 0.9, 0.4]), np.array([20.0, 3.0, 11.0])
    assert fuse(model, candidates) == pytest.approx(fuse(100 * model - 7, candidates / 3))


def test_a_side_without_an_opinion_leaves_it_to_the_other() -> None:
    assert fuse(np.array([1.0, 2.0]), np.array([5.0, 5.0])).tolist() == [-1.0, 1.0]
