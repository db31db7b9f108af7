"""What happens to a document that is too long: it is cut, refused, or split into passages that are scored each.

A request, its served name and the settings may each say it; the nearest that does counts.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Self

from rerankd.cache.base import CachedScore
from rerankd.errors import ScoringError
from rerankd.prompt.passages import LEAST_TOKENS, ChunkRule, Span, Split
from rerankd.settings import ModelSettings, Settings
from rerankd.types import NO_WISH, ChunkAggregation, LongDocumentMode, LongDocuments, PairRef, RerankRequest


@dataclass(frozen=True, slots=True)
class LongDocumentRule:
    """A rule without gaps: how documents are split, and how the scores of their passages become one."""

    mode: LongDocumentMode = "truncate"
    chunks: ChunkRule = field(default_factory=ChunkRule)
    aggregation: ChunkAggregation = "max"
    top_k: int = 3

    @classmethod
    def of(cls, settings: Settings, row: ModelSettings | None = None) -> Self:
        """The server's rule, or a served name's."""
        chunks = ChunkRule(settings.chunk_tokens, settings.chunk_overlap_tokens, settings.max_chunks_per_document)
        mode: LongDocumentMode = settings.long_documents  # type: ignore[assignment]
        aggregation: ChunkAggregation = settings.chunk_aggregation  # type: ignore[assignment]
        rule = cls(mode, chunks, aggregation, settings.chunk_top_k)
        if row is None:
            return rule
        wish = LongDocuments(
            mode=row.long_documents or None,  # type: ignore[arg-type]
            chunk_tokens=row.chunk_tokens or None,
            aggregation=row.chunk_aggregation or None,  # type: ignore[arg-type]
            chunk_top_k=row.chunk_top_k or None,
        )
        return rule.with_wish(wish)

    def with_wish(self, wish: LongDocuments) -> Self:
        """The rule with what a served name says in the place of its own."""
        chunks = self.chunks
        return replace(
            self,
            mode=wish.mode or self.mode,
            chunks=ChunkRule(
                max(_or(wish.chunk_tokens, chunks.tokens), LEAST_TOKENS),
                _or(wish.overlap_tokens, chunks.overlap),
                max(_or(wish.max_chunks, chunks.most), 1),
            ),
            aggregation=wish.aggregation or self.aggregation,
            top_k=max(_or(wish.chunk_top_k, self.top_k), 1),
        )

    def for_request(self, request: RerankRequest) -> Self:
        """The rule of one request of a served name.

        A request may allow its documents fewer passages than the name does, never more. ``truncate`` alone is the
        older way to say it: false refuses long documents, unless the name splits them, which loses nothing; true
        allows the cut that a name forbids.
        """
        wish = request.long_documents
        if wish.mode is None and request.truncate is not None:
            if request.truncate is False and self.mode == "truncate":
                wish = replace(wish, mode="error")
            elif request.truncate and self.mode == "error":
                wish = replace(wish, mode="truncate")
        most = self.chunks.most
        if wish.max_chunks is not None:
            wish = replace(wish, max_chunks=min(wish.max_chunks, most))
        return self if wish == NO_WISH else self.with_wish(wish)

    def combine(self, logits: Sequence[float]) -> float:
        """The score of a document from those of its passages, in order, at least one."""
        return AGGREGATIONS[self.aggregation](logits, self.top_k)


def _or(wish: int | None, default: int) -> int:
    return default if wish is None else wish


def _mean(logits: Sequence[float]) -> float:
    return sum(logits) / len(logits)


AGGREGATIONS: Mapping[ChunkAggregation, Callable[[Sequence[float], int], float]] = MappingProxyType(
    {
        "max": lambda logits, _: max(logits),
        "first": lambda logits, _: logits[0],
        "mean": lambda logits, _: _mean(logits),
        "min": lambda logits, _: min(logits),
        "top_k_mean": lambda logits, top_k: _mean(heapq.nlargest(top_k, logits)),
    }
)
"""From raw scores to a raw score: a mean of them is the mean of the log odds."""


@dataclass(frozen=True, slots=True)
class SplitDocuments:
    """The passages of a request's documents, document by document: one text and one reference a pair."""

    splits: tuple[Split, ...]
    refs: tuple[PairRef, ...]
    texts: tuple[str, ...]

    @classmethod
    def of(cls, documents: Sequence[str], splits: Sequence[Split]) -> Self:
        refs, texts = [], []
        for index, (document, split) in enumerate(zip(documents, splits, strict=True)):
            for number, (start, end) in enumerate(split.spans):
                refs.append(PairRef(index, number))
                texts.append(document[start:end])
        return cls(tuple(splits), tuple(refs), tuple(texts))

    @property
    def split_documents(self) -> int:
        return sum(len(split.spans) > 1 for split in self.splits)

    def by_document(
        self, pairs: Iterable[CachedScore | ScoringError]
    ) -> list[list[tuple[Span, CachedScore | ScoringError]]]:
        """The passages of each document with what became of their pairs, which come in the order of ``refs``."""
        scored = iter(pairs)
        return [[(span, next(scored)) for span in split.spans] for split in self.splits]


@dataclass(frozen=True, slots=True)
class CombinedDocuments:
    """One score a document, from those of its passages."""

    pairs: tuple[CachedScore | ScoringError, ...]
    best: tuple[tuple[Span, float] | None, ...]
    """The passage with the highest raw score, and that score; None where no passage has one."""
    failed_passages: int
    """Passages without a score in documents that have one all the same."""


def combine(
    rule: LongDocumentRule, split: SplitDocuments, pairs: Iterable[CachedScore | ScoringError]
) -> CombinedDocuments:
    """One score a document; a passage without a score is left out, a document without any has its first error."""
    combined: list[CachedScore | ScoringError] = []
    best: list[tuple[Span, float] | None] = []
    failed = 0
    for document, passages in zip(split.splits, split.by_document(pairs), strict=True):
        scored = [(span, pair) for span, pair in passages if isinstance(pair, CachedScore)]
        if not scored:
            combined += [pair for _, pair in passages[:1]]
            best.append(None)
            continue
        failed += len(passages) - len(scored)
        logits = [pair.logit for _, pair in scored]
        winner = max(range(len(logits)), key=logits.__getitem__)
        best.append((scored[winner][0], logits[winner]))
        is_cut = document.is_cut or any(pair.truncated for _, pair in scored) or len(scored) < len(passages)
        combined.append(CachedScore(rule.combine(logits), sum(pair.tokens for _, pair in scored), is_cut))
    return CombinedDocuments(tuple(combined), tuple(best), failed)
