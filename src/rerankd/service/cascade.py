"""A cascade: something cheap orders all documents, and the model scores the best of them, as deep as it takes."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from rerankd.errors import InvalidRequest, ServiceError
from rerankd.settings import ModelSettings
from rerankd.types import CascadeReport, DocumentScore, RerankRequest, RerankResult, Timings

FIRST_STAGE = "first_stage"
"""The name of the order that the first-stage scores of a request give."""
DEFAULT_DEPTH = 50
_TOP_N = 10
"""What is to be settled where a request wants all."""
_LEAST_SCORED = 12
"""Documents that tell how well the cheap scores foretell the model's."""
_GAP = 1e-6

Rank: TypeAlias = Callable[[RerankRequest], Awaitable["RerankResult | ServiceError"]]
"""Scores the documents of one request with the model that it names."""


@dataclass(frozen=True, slots=True)
class CascadeRule:
    """What orders first, and how deep the model goes."""

    first: str
    depth: int = DEFAULT_DEPTH
    confidence: float = 0.0
    """0 goes by the depth alone."""

    @classmethod
    def of(cls, row: ModelSettings) -> CascadeRule | None:
        """A served name's rule, if it has one."""
        return cls(row.cascade_model, row.cascade_depth, row.cascade_confidence) if row.cascade_model else None


def rule_for(own: CascadeRule | None, request: RerankRequest) -> CascadeRule | None:
    """The rule of one request, from what it says and what its served name does.

    Raises:
        InvalidRequest: it asks for a cascade and nobody says what orders first, or fusion is asked for as well.
    """
    wish = request.cascade
    if wish is None:
        return own
    first = wish.model or (own.first if own else "")
    if not first:
        raise InvalidRequest("cascade.model has to name what orders the documents first", param="cascade.model")
    if request.fusion not in (None, "none"):
        raise InvalidRequest("cascade and fusion cannot be asked for together", param="fusion")
    if first == FIRST_STAGE and request.first_stage_scores is None:
        raise InvalidRequest("cascade.model is first_stage: first_stage_scores are missing", param="cascade.model")
    depth = wish.depth or (own.depth if own else DEFAULT_DEPTH)
    # A depth that a request names by itself means that it wants no other rule.
    inherited = own.confidence if own and wish.depth is None else 0.0
    return CascadeRule(first, depth, inherited if wish.confidence is None else wish.confidence)


async def run(rule: CascadeRule, request: RerankRequest, rank: Rank) -> RerankResult | ServiceError:
    """The answer of a cascade; ``rank`` is called once for the cheap order and once for each portion."""
    plain = replace(request, top_n=None, relevant_spans=None, first_stage_scores=None, fusion="none", cascade=None)
    first = await _first(rule, request, plain, rank)
    if isinstance(first, ServiceError):
        return first
    cheap, results = first
    order = np.argsort(-cheap, kind="stable").tolist()
    found: dict[int, DocumentScore] = {}
    wanted = min(request.top_n or _TOP_N, len(order))
    sure: float | None = None
    while len(found) < len(order):
        portion = order[len(found) : _next_depth(rule, len(found), wanted, len(order))]
        result = await rank(replace(plain, documents=tuple(request.documents[index] for index in portion)))
        if isinstance(result, ServiceError):
            return result
        results.append(result)
        found |= {index: replace(place, index=index) for index, place in zip(portion, result.scores, strict=True)}
        if not rule.confidence:
            break
        sure = settled(cheap, order, found, wanted)
        if sure >= rule.confidence:
            break
    return _answer(rule, request, results, _scores(cheap, order, found), len(found), sure)


def settled(cheap: NDArray[np.float64], order: Sequence[int], found: dict[int, DocumentScore], wanted: int) -> float:
    """The probability that no document that is left belongs among the first ``wanted``.

    The model's raw score is foretold from the cheap one by a line through those that have both; what it misses by
    is taken as normal, and the documents as independent.
    """
    left = order[len(found) :]
    if not left:
        return 1.0
    pairs = [(cheap[index], place.logit) for index, place in found.items() if place.logit is not None]
    if len(pairs) < max(_LEAST_SCORED, wanted):
        return 0.0
    x, y = np.array(pairs, dtype=np.float64).T
    spread = float(((x - x.mean()) ** 2).sum())
    slope = float(((x - x.mean()) * (y - y.mean())).sum() / spread) if spread > 0 else 0.0
    # A cheap order that foretells nothing says that those left are like those seen.
    slope = max(slope, 0.0)
    rest = y - y.mean() - slope * (x - x.mean())
    deviation = math.sqrt(float((rest**2).sum()) / max(len(pairs) - 2, 1)) or 1e-9
    bar = float(np.sort(y)[-wanted])
    distance = cheap[left] - x.mean()
    leverage = 1 + 1 / len(pairs) + (distance**2 / spread if spread > 0 else 0.0)
    below = (bar - (y.mean() + slope * distance)) / (deviation * np.sqrt(leverage))
    return float(np.prod([0.5 * math.erfc(-z / math.sqrt(2)) for z in np.atleast_1d(below).tolist()]))


def _next_depth(rule: CascadeRule, done: int, wanted: int, documents: int) -> int:
    if not rule.confidence:
        return min(rule.depth, documents)
    return min(documents, max(2 * wanted, _LEAST_SCORED) if not done else done + max(wanted, done // 2))


async def _first(
    rule: CascadeRule, request: RerankRequest, plain: RerankRequest, rank: Rank
) -> tuple[NDArray[np.float64], list[RerankResult]] | ServiceError:
    """The cheap score of each document, float64, and the result that it came from, if any."""
    if rule.first == FIRST_STAGE:
        scores = request.first_stage_scores or (None,) * len(request.documents)
        lowest = min((score for score in scores if score is not None), default=0.0)
        return np.array([lowest if score is None else score for score in scores], dtype=np.float64), []
    result = await rank(replace(plain, model=rule.first, arm=None))
    if isinstance(result, ServiceError):
        return result
    logits = [place.logit for place in result.scores if place.logit is not None]
    lowest = min(logits, default=0.0)
    return np.array([lowest if place.logit is None else place.logit for place in result.scores]), [result]


def _scores(cheap: NDArray[np.float64], order: Sequence[int], found: dict[int, DocumentScore]) -> list[DocumentScore]:
    """One entry a document; those that the model has not seen come below all others, in the cheap order."""
    scored = [place for place in found.values() if place.logit is not None and place.score is not None]
    floor = min((place.logit for place in scored if place.logit is not None), default=0.0)
    lowest = min((place.score for place in scored if place.score is not None), default=0.0)
    scores: dict[int, DocumentScore] = {index: replace(place, rescored=True) for index, place in found.items()}
    left = order[len(found) :]
    for place, index in enumerate(left, start=1):
        share = lowest * (1 - place / (len(left) + 1))
        scores[index] = DocumentScore(index, share, floor - place * max(_GAP, abs(floor) * _GAP), rescored=False)
    return [scores[index] for index in range(len(cheap))]


def _answer(
    rule: CascadeRule,
    request: RerankRequest,
    results: Sequence[RerankResult],
    scores: Sequence[DocumentScore],
    rescored: int,
    sure: float | None,
) -> RerankResult:
    last = results[-1]
    ranked = sorted((place for place in scores if place.logit is not None), key=lambda place: -(place.logit or 0.0))
    times = [result.timings for result in results]
    return replace(
        last,
        scores=tuple(scores),
        ranked=tuple(ranked[: request.top_n]),
        prompt_tokens=sum(result.prompt_tokens for result in results),
        cached_documents=sum(result.cached_documents for result in results),
        warnings=tuple(dict.fromkeys(warning for result in results for warning in result.warnings)),
        timings=Timings(
            *(sum(getattr(time, name) for time in times) for name in ("tokenise", "queue", "engine", "total"))
        ),
        cascade=CascadeReport(rule.first, rescored, sure),
    )
