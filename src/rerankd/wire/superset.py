"""One answer for every documents-shaped client: what /v1/rerank gives, where bodies cannot be told apart.

A body of Voyage's may equal one of Cohere's byte for byte, so the answer carries the keys of all of them.
"""

from __future__ import annotations

from rerankd.wire.base import Json
from rerankd.wire.documents import DocumentsDialect, RenderContext
from rerankd.wire.fields import (
    DOCUMENTS,
    INSTRUCTION,
    KWARGS,
    MAX_TOKENS_PER_DOC,
    MODEL,
    QUERY,
    RANK_FIELDS,
    RETURN_DOCUMENTS,
    TOP_K,
    TOP_N,
    TRUNCATION,
)

VOYAGE_KEYS = frozenset({"top_k", "truncation"})
"""Keys that Voyage's clients send, null or not, and no others."""

PINECONE_KEY = "rank_fields"
"""A key that Pinecone's clients send."""


def superset(context: RenderContext, version: str) -> dict[str, Json]:
    """The keys of Cohere, Jina, vLLM, SiliconFlow and Voyage in one object.

    ``object`` is "rerank" because Infinity's client accepts no other value. ``data`` is Voyage's ``results``, and
    Pinecone's by another name of the score; it repeats the texts only for a client that showed itself as either's.
    """
    keys = context.echo.keys
    results = context.rows()
    if PINECONE_KEY in keys or keys & VOYAGE_KEYS:
        data = context.rows(as_object=PINECONE_KEY in keys)
    else:
        data = [row.copy() for row in results]
        if context.return_documents:
            for row in data:
                del row["document"]
    for row in data:
        row["score"] = row["relevance_score"]
    return {
        "id": context.result.id,
        "object": "rerank",
        "model": context.result.model,
        "results": results,
        "data": data,
        "usage": {**context.usage, "rerank_units": context.search_units},
        "meta": context.meta(version),
    }


class Superset(DocumentsDialect):
    """POST /v1/rerank without a mount."""

    name = "superset"
    title = "Cohere v1, Jina, Voyage, vLLM, SiliconFlow or Xinference"
    fields = (
        QUERY,
        DOCUMENTS,
        MODEL,
        TOP_N,
        TOP_K,
        RETURN_DOCUMENTS,
        INSTRUCTION,
        TRUNCATION,
        MAX_TOKENS_PER_DOC,
        RANK_FIELDS,
        KWARGS,
    )

    def body(self, context: RenderContext) -> Json:
        return superset(context, version="1")
