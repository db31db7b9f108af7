"""Pinecone: POST /rerank with its SDK's documents, which are objects."""

from __future__ import annotations

from typing import ClassVar

from rerankd.wire.base import Json
from rerankd.wire.documents import DocumentsDialect, RenderContext
from rerankd.wire.fields import DOCUMENTS, MODEL, QUERY, RANK_FIELDS, RETURN_DOCUMENTS, TOP_N


class Pinecone(DocumentsDialect):
    """Documents come back unless told not to; one rerank unit is a query with up to a hundred of them."""

    name = "pinecone"
    title = "Pinecone"
    fields = (QUERY, DOCUMENTS, MODEL, RANK_FIELDS, TOP_N, RETURN_DOCUMENTS)
    returns_documents = True
    example: ClassVar[Json] = {
        "model": "tiny",
        "query": "capital of France",
        "documents": [{"text": "Berlin"}, {"text": "Paris"}],
        "rank_fields": ["text"],
        "return_documents": True,
        "top_n": 1,
    }

    def body(self, context: RenderContext) -> Json:
        return {
            "model": context.result.model,
            "data": context.rows(score="score"),
            "usage": {"rerank_units": context.search_units},
        }
