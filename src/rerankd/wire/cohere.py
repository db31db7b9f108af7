"""Cohere: POST /v1/rerank and POST /v2/rerank."""

from __future__ import annotations

from rerankd.wire.base import Json
from rerankd.wire.documents import DocumentsDialect, Reply


class CohereV1(DocumentsDialect):
    """Documents may be objects, whose ``rank_fields`` are read; texts come back only when asked for."""

    name = "cohere-v1"
    title = "Cohere v1"
    takes = ("query", "documents", "model", "top_n", "rank_fields", "return_documents")

    def body(self, reply: Reply) -> Json:
        return {"id": reply.result.id, "results": reply.rows(), "meta": reply.meta("1")}


class CohereV2(DocumentsDialect):
    """No ``return_documents`` by the book, yet clients send it here and mean it."""

    name = "cohere-v2"
    title = "Cohere v2"
    takes = ("query", "documents", "model", "top_n", "max_tokens_per_doc", "priority", "return_documents")

    def body(self, reply: Reply) -> Json:
        return {"id": reply.result.id, "results": reply.rows(), "meta": reply.meta("2")}
