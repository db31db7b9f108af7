"""Requests that are scored together in this process, and what becomes of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from rerankd.cache.base import CachedScore
from rerankd.core.request import Output, ScoreRequest
from rerankd.errors import ScoringError
from rerankd.service.long_documents import LongDocumentRule, SplitDocuments, combine


@dataclass(frozen=True, slots=True)
class WindowSize:
    """How many requests are tokenised together, while those before are scored.

    A window ends with the request that brings it to so many documents, or characters. Where the prompt begins with
    the document, queries share the work on the documents that they have in common, so that a longer window is less
    work; characters bound its ids to some 100 MB.
    """

    documents: int = 2048
    documents_first: int = 65_536
    characters: int = 64_000_000


@dataclass(frozen=True, slots=True)
class LocalScores:
    """What became of one request, in input order.

    Attributes:
        pairs: of each document the raw score with its tokens, or an error.
        passages: the same of each passage of ``split``, where long documents were split.
    """

    pairs: tuple[CachedScore | ScoringError, ...]
    passages: tuple[CachedScore | ScoringError, ...] = ()
    split: SplitDocuments | None = None

    @property
    def logits(self) -> NDArray[np.float32]:
        """The raw scores, float32, shape (documents,); NaN where there is none."""
        scores = [pair.logit if isinstance(pair, CachedScore) else np.nan for pair in self.pairs]
        return np.array(scores, dtype=np.float32)

    @property
    def tokens(self) -> int:
        """Tokens of all scored pairs as the model reads them, prompt included."""
        return sum(pair.tokens for pair in self.pairs if isinstance(pair, CachedScore))

    @property
    def truncated(self) -> int:
        """Pairs that were cut to the model's limit."""
        return sum(pair.truncated for pair in self.pairs if isinstance(pair, CachedScore))


Place: TypeAlias = tuple[int, int]
"""A pair's request within its window, and its text within that request."""


@dataclass(slots=True)
class Window:
    """Requests that are scored together."""

    pairs: list[list[CachedScore | ScoringError | None]] = field(default_factory=list)
    """What is known of each text of each request: of its documents, or of their passages."""
    rules: list[LongDocumentRule] = field(default_factory=list)
    splits: list[SplitDocuments | None] = field(default_factory=list)
    """The passages of each request, where its documents are split."""
    request: ScoreRequest | None = None
    """What the core scores; None where there is nothing to score."""
    places: list[Place] = field(default_factory=list)
    """Whose its pairs are."""
    missing: int = 0
    """Pairs without an outcome."""

    def take(self, output: Output) -> None:
        places, pairs = self.places, output.request.pairs
        for index, outcome in output.outcomes.items():
            number, document = places[index]
            if isinstance(outcome, float):
                pair = pairs[index]
                self.pairs[number][document] = CachedScore(outcome, pair.tokens, pair.truncated)
            else:
                self.pairs[number][document] = outcome
        self.missing -= len(output.outcomes)

    def scores(self) -> Iterator[LocalScores]:
        """The answers, once nothing is missing."""
        for known, rule, split in zip(self.pairs, self.rules, self.splits, strict=True):
            pairs = tuple(pair for pair in known if pair is not None)
            if split is None:
                yield LocalScores(pairs)
            else:
                yield LocalScores(combine(rule, split, pairs).pairs, pairs, split)
