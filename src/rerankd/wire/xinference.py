"""Xinference: POST /v1/rerank; the instruction comes inside ``kwargs``, a JSON string."""

from __future__ import annotations

from rerankd.wire.base import Json
from rerankd.wire.documents import DocumentsDialect, Reply


class Xinference(DocumentsDialect):
    """Cohere's shape with every key there: a document that was not asked for is null."""

    name = "xinference"
    title = "Xinference"
    takes = ("query", "documents", "model", "top_n", "return_documents", "kwargs")

    def body(self, reply: Reply) -> Json:
        rows = [{"document": None, **row} for row in reply.rows()]
        warnings = list(reply.result.warnings) or None
        meta = {"api_version": None, "billed_units": None, "tokens": reply.tokens, "warnings": warnings}
        return {"id": reply.result.id, "results": rows, "meta": meta}
