"""One evaluation: every set through every system, each beside its own candidates."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rerankd.evaluate.dataset import EvaluationSet
from rerankd.evaluate.fusion import DEFAULT, LabelledScores, WeightFit, fit_weight
from rerankd.evaluate.measures import Figures, in_order, measure
from rerankd.evaluate.score_store import ScoreStore
from rerankd.evaluate.scorer import QueryScores, Scorer
from rerankd.service.fusion import fuse
from rerankd.types import NO_WISH, LongDocuments, RerankRequest


@dataclass(frozen=True, slots=True)
class SetResult:
    """One set through one system.

    ``candidates``, ``reranked`` and ``fused`` hold one value a query and measure, all over the same first
    documents of each list, so that what they differ by is the order alone.
    """

    data: EvaluationSet
    candidates: Figures
    reranked: Figures
    fused: Figures
    pairs: int
    tokens: int
    seconds: float
    truncated: int
    failed: int
    """Pairs without a finite score; they stay below all others."""
    fusion: WeightFit | None = None
    """The weight of the model that fuses best; None for too few queries."""


@dataclass(frozen=True, slots=True)
class SystemResult:
    """All sets through one model with one instruction."""

    label: str
    identity: Mapping[str, Any]
    instruction: str | None
    sets: Mapping[str, SetResult]
    long_documents: LongDocuments = NO_WISH


_NOTHING = QueryScores(np.empty(0), 0)


@dataclass(slots=True)
class _Tally:
    pairs: int = 0
    tokens: int = 0
    seconds: float = 0.0
    truncated: int = 0
    failed: int = 0

    def add(self, found: QueryScores, seconds: float) -> None:
        self.pairs += len(found.scores)
        self.tokens += found.tokens
        self.seconds += seconds
        self.truncated += found.truncated
        self.failed += int((~np.isfinite(found.scores)).sum())


def evaluate_set(
    data: EvaluationSet,
    scorer: Scorer,
    store: ScoreStore,
    *,
    instruction: str | None,
    long_documents: LongDocuments = NO_WISH,
    top_k: int,
    advance: Callable[[int], None],
) -> SetResult:
    """Rerank every list of ``data`` and measure it; ``advance`` is told the pairs that each query had."""
    tally = _Tally()
    reranked: dict[str, Mapping[str, float]] = {}
    fused: dict[str, Mapping[str, float]] = {}
    labelled: list[LabelledScores] = []
    for query, found, seconds in scores_of(data, scorer, store, instruction, long_documents):
        ranked = data.candidates[query]
        reranked[query], fused[query] = _runs_of(ranked, data.documents, found.scores)
        labelled += _labelled(data, query, found.scores)
        tally.add(found, seconds)
        advance(len(found.scores))
    return SetResult(
        data=data,
        candidates=measure(data, in_order(data.candidates), top_k),
        reranked=measure(data, reranked, top_k),
        fused=measure(data, fused, top_k),
        pairs=tally.pairs,
        tokens=tally.tokens,
        seconds=tally.seconds,
        truncated=tally.truncated,
        failed=tally.failed,
        fusion=fit_weight(labelled),
    )


def _labelled(data: EvaluationSet, query: str, scores: NDArray[np.float64]) -> list[LabelledScores]:
    """Both scores of a query's candidates with their grades; nothing where there is none."""
    finite = np.isfinite(scores)
    listed = [row for row in data.candidates[query] if row[0] in data.documents]
    kept = [row for row, fine in zip(listed, finite, strict=True) if fine]
    if not kept:
        return []
    grades = data.judgements[query]
    return [
        LabelledScores(
            scores[finite],
            np.array([score for _, score in kept], dtype=np.float64),
            np.array([max(grades.get(document, 0), 0) for document, _ in kept], dtype=np.float64),
            [max(grade, 0) for grade in grades.values()],
        )
    ]


def scores_of(
    data: EvaluationSet,
    scorer: Scorer,
    store: ScoreStore,
    instruction: str | None,
    long_documents: LongDocuments,
) -> Iterator[tuple[str, QueryScores, float]]:
    """Scores of every query that has candidates: first those kept from an earlier run, then the rest as it comes."""
    missing: dict[str, RerankRequest] = {}
    for query, ranked in data.candidates.items():
        texts = tuple(data.documents[document] for document, _ in ranked if document in data.documents)
        request = RerankRequest(data.queries[query], texts, instruction=instruction, long_documents=long_documents)
        known = store.get(request) if texts else (_NOTHING, 0.0)
        if known is None:
            missing[query] = request
        else:
            yield query, *known
    began = time.monotonic()
    for (query, request), found in zip(missing.items(), scorer.score(missing.values()), strict=True):
        seconds, began = time.monotonic() - began, time.monotonic()
        store.put(request, found, seconds)
        yield query, found, seconds


def _runs_of(
    ranked: Sequence[tuple[str, float]], documents: Mapping[str, str], scores: NDArray[np.float64]
) -> tuple[dict[str, float], dict[str, float]]:
    """The reranked and the fused list of one query, as runs.

    Documents without a finite score (no text, or the engine failed) stay in their old order below the rest.
    """
    with_text = [(document, score) for document, score in ranked if document in documents]
    finite = np.isfinite(scores)
    scored = [document for (document, _), fine in zip(with_text, finite, strict=True) if fine]
    first_stage = np.array([score for (_, score), fine in zip(with_text, finite, strict=True) if fine])
    ours = scores[finite]
    rest = [document for document, _ in ranked if document not in scored]
    both = fuse(DEFAULT, ours, first_stage) if len(ours) else ours
    return _run(scored, ours, rest), _run(scored, both, rest)


def _run(documents: Sequence[str], scores: NDArray[np.float64], rest: Sequence[str]) -> dict[str, float]:
    floor = float(scores.min()) if len(scores) else 0.0
    below = {document: floor - place for place, document in enumerate(rest, start=1)}
    return dict(zip(documents, scores.tolist(), strict=True)) | below
