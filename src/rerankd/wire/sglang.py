"""SGLang: POST /v1/rerank answers a bare array, which nobody else's client can read, hence its mount."""

from __future__ import annotations

from rerankd.errors import ServiceError
from rerankd.wire.base import Json, WireResponse
from rerankd.wire.documents import DocumentsDialect, RenderContext
from rerankd.wire.error_shapes import OPENAI_TYPES, documents_status, error_answer
from rerankd.wire.fields import DOCUMENTS, INSTRUCT, QUERY, RETURN_DOCUMENTS, TOP_N


class SGLang(DocumentsDialect):
    """An array, best first, and a flat error."""

    name = "sglang"
    title = "SGLang"
    fields = (QUERY, DOCUMENTS, INSTRUCT, TOP_N, RETURN_DOCUMENTS)
    returns_documents = True

    def body(self, context: RenderContext) -> Json:
        return [{**row, "meta_info": None} for row in context.rows(score="score", as_object=False)]

    def render_error(self, error: ServiceError, request_id: str) -> WireResponse:
        status = documents_status(error)
        kind = OPENAI_TYPES.get(status, "invalid_request_error")
        flat = {"object": "error", "message": error.message, "type": kind, "param": error.param, "code": status}
        return error_answer(error, flat, status)
