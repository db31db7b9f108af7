"""Xinference: POST /v1/rerank; the instruction comes inside ``kwargs``, a JSON string."""

from __future__ import annotations

from rerankd.wire.base import Json
from rerankd.wire.documents import DocumentsDialect, RenderContext


class Xinference(DocumentsDialect):
    """Cohere's shape with every key there: a document that was not asked for is null."""

    name = "xinference"
    title = "Xinference"
    takes = ("query", "documents", "model", "top_n", "return_documents", "kwargs")

    def body(self, context: RenderContext) -> Json:
        rows = [{"document": None, **row} for row in context.rows()]
        warnings = list(context.result.warnings) or None
        meta = {"api_version": None, "billed_units": None, "tokens": context.tokens, "warnings": warnings}
        return {"id": context.result.id, "results": rows, "meta": meta}
