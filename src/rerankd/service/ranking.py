"""Scores of pairs -> the ranked answer: sigmoid, finite check, stable sort, top_n, warnings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from operator import attrgetter

from rerankd.cache.base import CachedScore
from rerankd.errors import NonFiniteScore, ScoringError
from rerankd.prompt.passages import Span
from rerankd.prompt.template import Activation, Template
from rerankd.service.calibration import Calibration
from rerankd.service.fusion import NO_FUSION, FusionRule, fused
from rerankd.service.long_documents import CombinedDocuments, LongDocumentRule, SplitDocuments, combine
from rerankd.types import (
    DocumentScore,
    FusionReport,
    LongDocumentCounts,
    Outcome,
    Passage,
    RerankRequest,
    RerankResult,
    Timings,
)

_LOGIT = attrgetter("logit")


def rerank_result(
    id: str,
    model: str,
    template: Template,
    request: RerankRequest,
    pairs: Sequence[CachedScore | ScoringError],
    cached_documents: int,
    timings: Timings,
    rule: LongDocumentRule,
    split: SplitDocuments | None = None,
    fusion: FusionRule = NO_FUSION,
    calibration: Calibration | None = None,
) -> RerankResult:
    """The answer to a request; the same for a server and in process.

    Args:
        id, model: as they stand in the answer.
        template: whose scale and bias belong to the scores.
        pairs: the raw score of each document, or of each passage of ``split``, or why it has none, in order.
        cached_documents: how many documents were known.
        timings: where the time went.
        rule: what happened to long documents.
        split: their passages, where they were split.
        fusion: what becomes of first-stage scores.
        calibration: what probabilities raw scores stand for. A fused score is none, and stays as it is.
    """
    combined = None if split is None else combine(rule, split, pairs)
    pairs = pairs if combined is None else combined.pairs
    scale, bias, activation = template.scale, template.bias, template.activation
    scores, tokens, truncated = [], 0, 0
    for index, pair in enumerate(pairs):
        if isinstance(pair, CachedScore):
            tokens += pair.tokens
            truncated += pair.truncated
            scores.append(document_score(index, pair.logit, scale, bias, activation))
        else:
            scores.append(DocumentScore(index, None, None, pair))
    warnings = []
    if truncated:
        warnings.append(f"{truncated} of {len(pairs)} pairs were truncated to fit their token limits")
    counts = None if rule.mode != "chunk" and not truncated else LongDocumentCounts(rule.mode, truncated)
    if combined is not None and split is not None:
        scores = _with_best_passages(scores, combined, template)
        counts = LongDocumentCounts(rule.mode, truncated, split.split_documents, len(split.refs))
        if combined.failed_passages:
            warnings.append(f"{combined.failed_passages} passages have no score, their documents that of the rest")
    if request.instruction and not template.has_instruction:
        warnings.append("the instruction was ignored: this model's prompt has no place for one")
    report = None
    if fusion.method != "none" and request.first_stage_scores is not None:
        scores = fused(fusion, scores, request.first_stage_scores)
        report = FusionReport(fusion.method, fusion.weight)
    elif calibration is not None:
        scores = calibration.applied(scores)
    return RerankResult(
        id=id,
        model=model,
        scores=tuple(scores),
        ranked=rank(scores, request.top_n),
        prompt_tokens=tokens,
        cached_documents=cached_documents,
        warnings=tuple(warnings),
        timings=timings,
        long_documents=counts,
        fusion=report,
        calibration=calibration.method if calibration is not None and report is None else None,
    )


def _with_best_passages(
    scores: Sequence[DocumentScore], combined: CombinedDocuments, template: Template
) -> list[DocumentScore]:
    return [
        score if best is None else replace(score, best_passage=passage(*best, template))
        for score, best in zip(scores, combined.best, strict=True)
    ]


def passage(span: Span, raw: float, template: Template) -> Passage | None:
    """A passage with its score; None where the score is not a finite number."""
    score = document_score(0, raw, template.scale, template.bias, template.activation)
    if score.score is None or score.logit is None:
        return None
    return Passage(span.start, span.end, score.score, score.logit)


def document_score(
    index: int, outcome: Outcome, scale: float, bias: float, activation: Activation = "sigmoid"
) -> DocumentScore:
    """The score of one document, or the error in its place.

    The template's scale and bias belong to the logit, so that the activation of a raw score is always the score.
    """
    if isinstance(outcome, ScoringError):
        return DocumentScore(index, None, None, outcome)
    logit = scale * outcome + bias
    if not math.isfinite(logit):
        error = NonFiniteScore("the engine's score of this document is not a finite number")
        return DocumentScore(index, None, None, error)
    if activation == "identity":
        return DocumentScore(index, logit, logit)
    power = math.exp(-abs(logit))
    return DocumentScore(index, (1.0 if logit >= 0 else power) / (1.0 + power), logit)


def rank(scores: Sequence[DocumentScore], top_n: int | None) -> tuple[DocumentScore, ...]:
    """The best ``top_n`` documents that have a score, best first, equal scores in input order.

    Sorted by logit: two large logits may share one float sigmoid and still differ.
    """
    ranked = [score for score in scores if score.logit is not None]
    # Sorting is stable in reverse too: equal scores stay in order.
    ranked.sort(key=_LOGIT, reverse=True)
    return tuple(ranked if top_n is None else ranked[:top_n])
