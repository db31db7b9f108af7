"""Outcomes -> ranked scores: sigmoid, finite check, stable sort, top_n."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rerankd.errors import NonFiniteScore, ScoringError
from rerankd.types import DocumentScore, Outcome


def sigmoid(logit: float) -> float:
    """1 / (1 + exp(-logit)) without overflow for any finite logit."""
    if logit >= 0:
        return 1.0 / (1.0 + math.exp(-logit))
    power = math.exp(logit)
    return power / (1.0 + power)


def document_score(index: int, outcome: Outcome, scale: float, bias: float) -> DocumentScore:
    """The score of one document, or the error in its place.

    The template's scale and bias belong to the logit, so that the sigmoid of a raw score is always the score.
    """
    if isinstance(outcome, ScoringError):
        return DocumentScore(index=index, score=None, logit=None, error=outcome)
    if not math.isfinite(outcome):
        error = NonFiniteScore("the engine's score of this document is not a finite number")
        return DocumentScore(index=index, score=None, logit=None, error=error)
    logit = scale * outcome + bias
    return DocumentScore(index=index, score=sigmoid(logit), logit=logit)


def rank(scores: Sequence[DocumentScore], top_n: int | None) -> tuple[DocumentScore, ...]:
    """The best ``top_n`` documents that have a score, best first, equal scores in input order.

    Sorted by logit: two large logits may share one float sigmoid and still differ.
    """
    scored = [score for score in scores if score.logit is not None]
    ranked = sorted(scored, key=lambda score: -(score.logit or 0.0))
    return tuple(ranked if top_n is None else ranked[:top_n])
