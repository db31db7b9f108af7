"""Two scores made one: the model's and the first stage's, each as its distance from the query's mean."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def fuse(model: NDArray[np.float64], candidates: NDArray[np.float64]) -> NDArray[np.float64]:
    """z(model) + z(candidates) over the documents of one query, shape (documents,) all."""
    return z_scores(model) + z_scores(candidates)


def z_scores(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """(score - mean) / standard deviation; zeros where all scores are equal."""
    deviation = scores.std()
    return (scores - scores.mean()) / deviation if deviation > 0 else np.zeros_like(scores)
