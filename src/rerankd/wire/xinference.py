"""Xinference: POST /v1/rerank; the instruction comes inside ``kwargs``, a JSON string."""

from __future__ import annotations

from rerankd.wire.base import Json
from rerankd.wire.documents import DocumentsDialect, RenderContext
from rerankd.wire.fields import DOCUMENTS, KWARGS, MODEL, QUERY, RETURN_DOCUMENTS, TOP_N


class Xinference(DocumentsDialect):
    """Cohere's shape with every key there: a document that was not asked for is null."""

    name = "xinference"
    title = "Xinference"
    fields = (QUERY, DOCUMENTS, MODEL, TOP_N, RETURN_DOCUMENTS, KWARGS)

    def body(self, context: RenderContext) -> Json:
        rows = [{"document": None, **row} for row in context.rows()]
        warnings = list(context.warnings) or None
        meta = {"api_version": None, "billed_units": None, "tokens": context.tokens, "warnings": warnings}
        return {"id": context.result.id, "results": rows, "meta": meta}
