"""Weaviate's ``reranker-transformers``: POST /weaviate/rerank; every document with its score, in input order."""

from __future__ import annotations

from typing import ClassVar

from rerankd.errors import ServiceError
from rerankd.wire import schema, values
from rerankd.wire.base import Json, WireResponse
from rerankd.wire.documents import DocumentsDialect, RenderContext
from rerankd.wire.error_shapes import weaviate_error
from rerankd.wire.fields import DOCUMENTS, QUERY, Field

PROPERTY = Field("property", "property", "Has no effect.", schema.WORDS, values.as_sent)


class Weaviate(DocumentsDialect):
    """It sends no key and no model, and gives up a search on any error."""

    name = "weaviate"
    title = "Weaviate"
    fields = (QUERY, DOCUMENTS, PROPERTY)
    example: ClassVar[Json] = {"query": "capital of France", "documents": ["Berlin", "Paris"], "property": ""}

    def body(self, context: RenderContext) -> Json:
        request = context.request
        values = context.scores
        scores = [{"document": text, "score": value} for text, value in zip(request.documents, values, strict=True)]
        return {"query": request.query, "scores": scores}

    def render_error(self, error: ServiceError, request_id: str) -> WireResponse:
        return weaviate_error(error, request_id)
