"""Whether a difference between two rankings is more than luck: paired by query, by resampling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
CONFIDENCE = 0.95
SEED = 20
_CHUNK = 500
_SAME = 1e-9


@dataclass(frozen=True, slots=True)
class Difference:
    """The mean difference of paired values, with its 95 % bootstrap interval and randomisation test.

    ``p`` is the share of random sign flips whose mean is at least as far from 0 (two-sided).
    """

    mean: float
    low: float
    high: float
    p: float
    wins: int
    losses: int
    ties: int


def difference(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> Difference:
    """``ours - theirs`` of the same queries; both of shape (queries,)."""
    return mean_difference([ours - theirs])


def mean_difference(gains: Sequence[NDArray[np.float64]]) -> Difference:
    """The mean over sets of each set's mean gain; queries are resampled within their set."""
    random = np.random.default_rng(SEED)
    boot = np.mean([_bootstrap(gain, random) for gain in gains], axis=0)
    flips = np.mean([_sign_flips(gain, random) for gain in gains], axis=0)
    mean = float(np.mean([gain.mean() for gain in gains]))
    low, high = np.quantile(boot, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    every = np.concatenate(gains)
    wins, losses = int((every > _SAME).sum()), int((every < -_SAME).sum())
    # The observed signs count as one more flip, so that p is never 0.
    p = (1 + int((np.abs(flips) >= abs(mean) - _SAME).sum())) / (1 + RESAMPLES)
    return Difference(mean, float(low), float(high), p, wins, losses, len(every) - wins - losses)


def holm(values: Sequence[float]) -> list[float]:
    """p values of several comparisons, each corrected for all of them (Holm's step-down method, 1979).

    Where all differences are chance, one of the corrected values falls below 0.05 in at most 5 % of all runs.
    """
    order = sorted(range(len(values)), key=values.__getitem__)
    corrected = [0.0] * len(values)
    least = 0.0
    for rank, index in enumerate(order):
        least = max(least, min(1.0, (len(values) - rank) * values[index]))
        corrected[index] = least
    return corrected


def _bootstrap(gain: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
    """Means of ``RESAMPLES`` samples with replacement."""
    return np.concatenate(
        [gain[random.integers(0, len(gain), (_CHUNK, len(gain)))].mean(axis=1) for _ in range(RESAMPLES // _CHUNK)]
    )


def _sign_flips(gain: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
    """Means of ``gain`` under ``RESAMPLES`` random choices of signs."""
    return np.concatenate(
        [random.choice((-1.0, 1.0), (_CHUNK, len(gain))) @ gain / len(gain) for _ in range(RESAMPLES // _CHUNK)]
    )
