"""Cohere: POST /v1/rerank and POST /v2/rerank."""

from __future__ import annotations

from rerankd.wire.base import Json
from rerankd.wire.documents import DocumentsDialect, RenderContext


class CohereV1(DocumentsDialect):
    """Documents may be objects, whose ``rank_fields`` are read; texts come back only when asked for."""

    name = "cohere-v1"
    title = "Cohere v1"
    takes = ("query", "documents", "model", "top_n", "rank_fields", "return_documents")

    def body(self, context: RenderContext) -> Json:
        return {"id": context.result.id, "results": context.rows(), "meta": context.meta("1")}


class CohereV2(DocumentsDialect):
    """No ``return_documents`` by the book, yet clients send it here and mean it."""

    name = "cohere-v2"
    title = "Cohere v2"
    takes = ("query", "documents", "model", "top_n", "max_tokens_per_doc", "priority", "return_documents")

    def body(self, context: RenderContext) -> Json:
        return {"id": context.result.id, "results": context.rows(), "meta": context.meta("2")}
