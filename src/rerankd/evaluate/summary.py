"""The report as plain data: what the JSON file holds and every other form is made from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import rerankd
from rerankd.evaluate.fusion import DEFAULT
from rerankd.evaluate.measures import MAIN, Figures, means
from rerankd.evaluate.run import SetResult, SystemResult
from rerankd.evaluate.statistics import CONFIDENCE, RESAMPLES, Difference, difference, holm, mean_difference

CEILING = 0.95
"""Sets whose candidates are at least this good have no room for a reranker; a second mean leaves them out."""

RANKINGS = ("reranked", "fused")


def summary(systems: Sequence[SystemResult], *, command: str, top_k: int) -> dict[str, Any]:
    """``{"sets": {NAME: {"candidates", "reranked", "fused", …}}, "mean", "systems", …}``.

    ``sets`` and ``mean`` are those of the first system; ``systems`` holds all of them.
    """
    every = [_system(system) for system in systems]
    return {
        "rerankd": rerankd.__version__,
        "command": command,
        "top_k": top_k,
        "resamples": RESAMPLES,
        "fusion_weight": DEFAULT.weight,
        "sets": every[0]["sets"],
        "mean": every[0]["mean"],
        "systems": every,
        "against_first": _against_first(systems),
    }


def _against_first(systems: Sequence[SystemResult]) -> list[dict[str, Any]]:
    """Each other system's gain over the first in the main measure, with p corrected for how many were compared."""
    first, *others = systems
    found = [
        mean_difference([other.sets[name].reranked[MAIN] - first.sets[name].reranked[MAIN] for name in first.sets])
        for other in others
    ]
    corrected = holm([one.p for one in found])
    return [
        {"label": other.label, **_facts(one), "p_holm": p, "is_chance": p >= 1 - CONFIDENCE}
        for other, one, p in zip(others, found, corrected, strict=True)
    ]


def _system(system: SystemResult) -> dict[str, Any]:
    results = list(system.sets.values())
    open_sets = [result for result in results if means(result.candidates)[MAIN] < CEILING]
    return {
        "label": system.label,
        "identity": dict(system.identity),
        "instruction": system.instruction,
        "long_documents": {
            name: value for name, value in dataclasses.asdict(system.long_documents).items() if value is not None
        },
        "sets": {name: _set(result) for name, result in system.sets.items()},
        "mean": {
            "all": _mean(results),
            **({f"below_{CEILING}": _mean(open_sets)} if 0 < len(open_sets) < len(results) else {}),
        },
    }


def _set(result: SetResult) -> dict[str, Any]:
    return {
        "queries": len(result.data.queries),
        "queries_without_candidates": len(result.data.queries) - len(result.data.candidates),
        "documents": len(result.data.documents),
        "pairs": result.pairs,
        "tokens": result.tokens,
        "seconds": round(result.seconds, 3),
        "truncated_pairs": result.truncated,
        "failed_pairs": result.failed,
        "candidates": means(result.candidates),
        "reranked": means(result.reranked),
        "fused": means(result.fused),
        "difference": {name: _differences(_figures(result, name), result.candidates) for name in RANKINGS},
        "fusion": None if result.fusion is None else dataclasses.asdict(result.fusion),
        "by_query": _by_query(result),
    }


def _differences(ours: Figures, theirs: Figures) -> dict[str, Any]:
    return {name: _facts(difference(ours[name], theirs[name])) for name in ours}


def _mean(results: Sequence[SetResult]) -> dict[str, Any]:
    """Means of the sets' means, and of their differences in the main measure."""

    def mean_of(ranking: str) -> dict[str, float]:
        rows = [means(_figures(result, ranking)) for result in results]
        return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}

    def gain_of(ranking: str) -> Difference:
        return mean_difference([_figures(result, ranking)[MAIN] - result.candidates[MAIN] for result in results])

    return {
        "sets": [result.data.name for result in results],
        "candidates": mean_of("candidates"),
        "reranked": mean_of("reranked"),
        "fused": mean_of("fused"),
        "difference": {name: {MAIN: _facts(gain_of(name))} for name in RANKINGS},
    }


def _by_query(result: SetResult) -> dict[str, Mapping[str, float]]:
    """The main measure of each query under each ranking: who won where."""
    columns = ("candidates", *RANKINGS)
    rows = zip(*(_figures(result, name)[MAIN].tolist() for name in columns), strict=True)
    return {query: dict(zip(columns, row, strict=True)) for query, row in zip(result.data.queries, rows, strict=True)}


def _figures(result: SetResult, ranking: str) -> Figures:
    figures: Figures = getattr(result, ranking)
    return figures


def _facts(found: Difference) -> dict[str, Any]:
    return dataclasses.asdict(found)
