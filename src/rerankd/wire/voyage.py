"""Voyage: POST /v1/rerank; the results are called ``data`` and documents are strings."""

from __future__ import annotations

from rerankd.errors import ServiceError
from rerankd.wire.base import Json, WireResponse
from rerankd.wire.documents import DocumentsDialect, RenderContext
from rerankd.wire.error_shapes import voyage_error
from rerankd.wire.fields import DOCUMENTS, MODEL, QUERY, RETURN_DOCUMENTS, TOP_K, TRUNCATION


class Voyage(DocumentsDialect):
    """``top_k`` in place of ``top_n``, ``truncation`` in place of ``truncate``."""

    name = "voyage"
    title = "Voyage"
    fields = (QUERY, DOCUMENTS, MODEL, TOP_K, RETURN_DOCUMENTS, TRUNCATION)

    def body(self, context: RenderContext) -> Json:
        rows = context.rows(as_object=False)
        return {"object": "list", "data": rows, "model": context.result.model, "usage": context.total_tokens}

    def render_error(self, error: ServiceError, request_id: str) -> WireResponse:
        return voyage_error(error, request_id)
