"""llama.cpp's server: POST /reranking and /v1/reranking; a body with ``texts`` is TEI's there, as here."""

from __future__ import annotations

from rerankd.errors import ServiceError
from rerankd.wire.base import Json, WireResponse
from rerankd.wire.documents import DocumentsDialect, RenderContext
from rerankd.wire.error_shapes import openai_error
from rerankd.wire.fields import DOCUMENTS, MODEL, QUERY, TOP_N


class LlamaCpp(DocumentsDialect):
    """Results without texts."""

    name = "llamacpp"
    title = "llama.cpp"
    fields = (QUERY, DOCUMENTS, MODEL, TOP_N)

    def body(self, context: RenderContext) -> Json:
        return {
            "model": context.result.model,
            "object": "list",
            "usage": context.prompt_tokens,
            "results": context.rows(),
        }

    def render_error(self, error: ServiceError, request_id: str) -> WireResponse:
        return openai_error(error, request_id)
