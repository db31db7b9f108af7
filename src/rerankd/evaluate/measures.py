"""How good a ranking is, query by query, measured by ir-measures (trec_eval underneath)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from rerankd.evaluate.dataset import Candidates, EvaluationSet
from rerankd.evaluate.errors import extra

Run: TypeAlias = Mapping[str, Mapping[str, float]]
"""Query id -> document id -> score; equal scores are ordered by id, as trec_eval does."""

Figures: TypeAlias = Mapping[str, NDArray[np.float64]]
"""Name of a measure -> one value a query, shape (queries,), in the set's order of queries."""

MAIN = "ndcg@10"
_CUTOFF = 10


def measure(data: EvaluationSet, run: Run, top_k: int) -> Figures:
    """nDCG@10, MRR@10, MAP, recall@10 and recall@``top_k`` of every query; 0 for a query that the run lacks.

    Raises:
        EvaluationError: the ``eval`` extra is not installed.
    """
    library = extra("ir_measures")
    level = data.relevant_from
    wanted = {
        library.nDCG @ _CUTOFF: MAIN,
        library.RR(rel=level): f"mrr@{_CUTOFF}",
        library.AP(rel=level): "map",
        library.R(rel=level) @ _CUTOFF: f"recall@{_CUTOFF}",
        library.R(rel=level) @ top_k: f"recall@{top_k}",
    }
    place = {query: index for index, query in enumerate(data.queries)}
    figures = {name: np.zeros(len(place)) for name in wanted.values()}
    for value in library.iter_calc(list(wanted), data.judgements, run):
        figures[wanted[value.measure]][place[value.query_id]] = value.value
    reciprocal = figures[f"mrr@{_CUTOFF}"]
    # Cut here: the library's own RR@10 comes from another tool, which orders equal scores otherwise.
    reciprocal[reciprocal < 1 / _CUTOFF] = 0.0
    return figures


def means(figures: Figures) -> dict[str, float]:
    return {name: float(values.mean()) for name, values in figures.items()}


def in_order(candidates: Candidates) -> Run:
    """A run that keeps the candidates' own order, also among equal scores."""
    return {
        query: {document: -float(place) for place, (document, _) in enumerate(ranked)}
        for query, ranked in candidates.items()
    }
