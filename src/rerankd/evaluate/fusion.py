"""The weight of the model in a fused score, found on labelled data and judged on queries that did not find it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rerankd.service.fusion import FusionRule, fuse
from rerankd.settings import Settings

WEIGHTS = tuple(step / 20 for step in range(21))
"""The model's shares that are tried; 0 is the candidates' own order."""
DEFAULT = FusionRule("zscore", Settings().fusion_weight)
"""What a server does with first-stage scores that it is asked to fuse, if no weight is given."""
_FOLDS = 5
_CUTOFF = 10
_SEED = 20


@dataclass(frozen=True, slots=True)
class LabelledScores:
    """One query: both scores and the grades of its candidates, float64, shape (documents,); and all its grades."""

    model: NDArray[np.float64]
    candidates: NDArray[np.float64]
    grades: NDArray[np.float64]
    ideal: Sequence[int]


@dataclass(frozen=True, slots=True)
class WeightFit:
    """The best weight over all queries, and what a weight found on other queries gives.

    Attributes:
        weight: the model's share.
        cross_validated: nDCG@10 of each fold under the weight that is best for the others, over all queries.
        by_weight: nDCG@10 by share, over all queries: optimistic at its peak.
    """

    weight: float
    cross_validated: float
    by_weight: Mapping[float, float]


def fit_weight(queries: Sequence[LabelledScores]) -> WeightFit | None:
    """Cross-validation over queries in five folds; None for fewer queries than folds."""
    if len(queries) < _FOLDS:
        return None
    table = np.array([ndcg_by_weight(query) for query in queries])
    folds = np.random.default_rng(_SEED).permutation(len(queries)) % _FOLDS
    held_back = [table[folds == fold, int(table[folds != fold].mean(axis=0).argmax())] for fold in range(_FOLDS)]
    means = table.mean(axis=0)
    return WeightFit(
        WEIGHTS[int(means.argmax())],
        float(np.concatenate(held_back).mean()),
        dict(zip(WEIGHTS, map(float, means), strict=True)),
    )


def ndcg_by_weight(query: LabelledScores) -> list[float]:
    """nDCG@10 of one query under each of `WEIGHTS`."""
    return [_ndcg(query, weight) for weight in WEIGHTS]


def _ndcg(query: LabelledScores, weight: float) -> float:
    """nDCG@10 with linear gain, as trec_eval has it."""
    values = fuse(FusionRule("zscore", weight), query.model, query.candidates)
    best = np.argsort(-values, kind="stable")[:_CUTOFF]
    ideal = np.sort(np.array(query.ideal, dtype=np.float64))[::-1][:_CUTOFF]
    most = _dcg(ideal)
    return _dcg(query.grades[best]) / most if most > 0 else 0.0


def _dcg(gains: NDArray[np.float64]) -> float:
    return float((gains / np.log2(np.arange(2, len(gains) + 2))).sum())
