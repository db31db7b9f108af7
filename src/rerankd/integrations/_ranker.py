"""What the adapters rank with: a client, or a model in this process; both have the same words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from rerankd.client import Document, RankedResults

DEFAULT_URL = "http://127.0.0.1:8000"


@runtime_checkable
class Ranker(Protocol):
    """:class:`rerankd.Client`, :class:`rerankd.Reranker`, or anything that ranks as they do."""

    def rank(
        self,
        query: str,
        documents: Sequence[str | Document],
        instruction: str | None = None,
        top_n: int | None = None,
        model: str | None = None,
        *,
        threshold: float | None = None,
    ) -> RankedResults:
        """The documents by relevance, best first."""
        ...
