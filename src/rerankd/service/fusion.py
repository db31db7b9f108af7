"""The model's score and the first stage's made one, over the documents of one query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rerankd.errors import InvalidRequest
from rerankd.settings import ModelSettings, Settings
from rerankd.types import DocumentScore, FusionMethod, RerankRequest

RANK_CONSTANT = 60
"""k of reciprocal rank fusion (Cormack, Clarke and Büttcher 2009)."""


@dataclass(frozen=True, slots=True)
class FusionRule:
    """How the two scores become one, and the model's share of it."""

    method: FusionMethod
    weight: float

    @classmethod
    def of(cls, settings: Settings, row: ModelSettings) -> FusionRule:
        """A served name's rule, the server's where it says nothing."""
        method: FusionMethod = row.fusion or settings.fusion  # type: ignore[assignment]
        return cls(method, row.fusion_weight or settings.fusion_weight)

    def for_request(self, request: RerankRequest) -> FusionRule:
        """The rule of one request; a name's own rule leaves a request without first-stage scores alone.

        Raises:
            InvalidRequest: the scores are not one a document, or fusion is asked for without any.
        """
        scores = request.first_stage_scores
        if scores is not None and len(scores) != len(request.documents):
            message = f"first_stage_scores must hold one score a document: {len(scores)} for {len(request.documents)}"
            raise InvalidRequest(message, param="first_stage_scores")
        if scores is None:
            if request.fusion not in (None, "none"):
                raise InvalidRequest("fusion needs first_stage_scores, one a document", param="first_stage_scores")
            return NO_FUSION
        return FusionRule(
            request.fusion or self.method, self.weight if request.fusion_weight is None else request.fusion_weight
        )


NO_FUSION = FusionRule("none", 1.0)


def fused(
    rule: FusionRule, scores: Sequence[DocumentScore], first_stage: Sequence[float | None]
) -> list[DocumentScore]:
    """The scores with the fused one in the place of the model's; documents without a score stay without.

    A document without a first-stage score counts as one of the lowest.
    """
    placed = [place for place in scores if place.logit is not None]
    if not placed:
        return list(scores)
    known = [score for score in first_stage if score is not None]
    lowest = min(known, default=0.0)
    model = np.array([place.logit for place in placed], dtype=np.float64)
    first = np.array([lowest if (own := first_stage[place.index]) is None else own for place in placed])
    values = fuse(rule, model, first)
    found = list(scores)
    for place, value in zip(placed, values.tolist(), strict=True):
        score = value * (RANK_CONSTANT + 1) if rule.method == "rrf" else 1.0 / (1.0 + np.exp(-value))
        found[place.index] = replace(place, score=float(score), logit=value, model_score=place.score)
    return found


def fuse(rule: FusionRule, model: NDArray[np.float64], first: NDArray[np.float64]) -> NDArray[np.float64]:
    """One value a document, shape (documents,) all; larger is better."""
    if rule.method == "rrf":
        return rule.weight * _reciprocal_ranks(model) + (1 - rule.weight) * _reciprocal_ranks(first)
    return rule.weight * z_scores(model) + (1 - rule.weight) * z_scores(first)


def z_scores(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """(score - mean) / standard deviation; zeros where all scores are equal."""
    # Scaled first: squares of the largest numbers would not be finite.
    scale = np.abs(scores).max(initial=0.0)
    scaled = scores / scale if scale > 0 else scores
    deviation = scaled.std()
    if deviation <= 0:
        return np.zeros_like(scores)
    z: NDArray[np.float64] = (scaled - scaled.mean()) / deviation
    return z


def _reciprocal_ranks(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    ranks = np.empty(len(scores))
    ranks[np.argsort(-scores, kind="stable")] = np.arange(1, len(scores) + 1)
    return 1.0 / (RANK_CONSTANT + ranks)
