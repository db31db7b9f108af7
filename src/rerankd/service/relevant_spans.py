"""The sentences of a ranked document that answer the query: each is scored by itself, as a document would be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rerankd.cache.base import CachedScore
from rerankd.errors import ScoringError
from rerankd.prompt.passages import ChunkRule
from rerankd.prompt.template import Template
from rerankd.service.long_documents import LongDocumentRule, SplitDocuments
from rerankd.service.ranking import passage
from rerankd.types import Passage, RelevantSpans, RerankRequest, RerankResult

SPAN_RULE = LongDocumentRule(mode="chunk", chunks=ChunkRule(tokens=64, overlap=0, most=2048, enough=8))
"""A span is a sentence, with short ones before it; spans never overlap."""


def with_spans(
    result: RerankResult,
    request: RerankRequest,
    split: SplitDocuments,
    pairs: Sequence[CachedScore | ScoringError],
    template: Template,
) -> RerankResult:
    """The result with the spans of each ranked document.

    Args:
        split: the sentences of the ranked documents, in their order.
        pairs: the raw score of each, or why it has none.
    """
    wish = request.relevant_spans or RelevantSpans()
    ranked = []
    for place, sentences in zip(result.ranked, split.by_document(pairs), strict=True):
        found = [passage(span, pair.logit, template) for span, pair in sentences if isinstance(pair, CachedScore)]
        spans = sorted((one for one in found if one is not None and one.score >= wish.threshold), key=_best_first)
        ranked.append(replace(place, relevant_spans=tuple(spans[: wish.most])))
    tokens = sum(pair.tokens for pair in pairs if isinstance(pair, CachedScore))
    return replace(result, ranked=tuple(ranked), prompt_tokens=result.prompt_tokens + tokens)


def _best_first(span: Passage) -> float:
    return -span.logit
