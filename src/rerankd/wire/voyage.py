"""Voyage: POST /v1/rerank; the results are called ``data`` and documents are strings."""

from __future__ import annotations

from rerankd.errors import ServiceError
from rerankd.wire.base import Answer, Json
from rerankd.wire.documents import DocumentsDialect, Reply
from rerankd.wire.error_shapes import voyage_error


class Voyage(DocumentsDialect):
    """``top_k`` in place of ``top_n``, ``truncation`` in place of ``truncate``."""

    name = "voyage"
    title = "Voyage"
    takes = ("query", "documents", "model", "top_k", "return_documents", "truncation")

    def body(self, reply: Reply) -> Json:
        rows = reply.rows(as_object=False)
        return {"object": "list", "data": rows, "model": reply.result.model, "usage": reply.total_tokens}

    def render_error(self, error: ServiceError, request_id: str) -> Answer:
        return voyage_error(error, request_id)
