"""LangChain: a document compressor, for ``ContextualCompressionRetriever`` and for calls of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.documents import BaseDocumentCompressor, Document
from pydantic import ConfigDict, Field, PrivateAttr, SecretStr

from rerankd.client import Client
from rerankd.integrations._ranker import DEFAULT_URL, Ranker


class RerankdRerank(BaseDocumentCompressor):
    """Keeps the documents that answer the query best, with ``relevance_score`` in their metadata.

        reranker = RerankdRerank(base_url="http://127.0.0.1:8000", top_n=3)
        ContextualCompressionRetriever(base_compressor=reranker, base_retriever=retriever)

    ``ranker`` takes the place of ``base_url`` and ``api_key``: a ``Client`` with timeouts of its own, or a
    ``Reranker`` in this process.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    base_url: str = DEFAULT_URL
    api_key: SecretStr | None = None
    top_n: int | None = Field(default=None, ge=1)
    """How many documents are kept; None for all."""
    instruction: str | None = None
    """What counts as relevant; None leaves it to the served name."""
    model: str | None = None
    """A served name; None for the server's first."""
    threshold: float | None = None
    """The least score of a document that is kept."""
    ranker: Ranker | None = None
    _ranker: Ranker = PrivateAttr()

    def model_post_init(self, context: Any) -> None:
        """Makes the client; nothing is asked yet."""
        key = None if self.api_key is None else self.api_key.get_secret_value()
        self._ranker = self.ranker or Client(self.base_url, key)

    def compress_documents(self, documents: Sequence[Document], query: str, callbacks: Any = None) -> list[Document]:
        """The best documents, best first; the ones given are left as they are."""
        if not documents:
            return []
        texts = [document.page_content for document in documents]
        results = self._ranker.rank(query, texts, self.instruction, self.top_n, self.model, threshold=self.threshold)
        return [_with_score(documents[result.index], result.score) for result in results]


def _with_score(document: Document, score: float) -> Document:
    return document.model_copy(update={"metadata": {**document.metadata, "relevance_score": score}})
