"""Infinity: POST /rerank; documents are strings, which clients of vLLM's shape cannot read, hence its mount."""

from __future__ import annotations

import time

from rerankd.errors import ServiceError
from rerankd.wire.base import Json, WireResponse
from rerankd.wire.documents import DocumentsDialect, RenderContext
from rerankd.wire.error_shapes import openai_error
from rerankd.wire.fields import DOCUMENTS, MODEL, QUERY, RAW_SCORES, RETURN_DOCUMENTS, TOP_N


class Infinity(DocumentsDialect):
    """``object`` is "rerank": its client accepts no other word."""

    name = "infinity"
    title = "Infinity"
    fields = (QUERY, DOCUMENTS, MODEL, TOP_N, RETURN_DOCUMENTS, RAW_SCORES)

    def body(self, context: RenderContext) -> Json:
        return {
            "object": "rerank",
            "id": context.result.id,
            "created": int(time.time()),
            "model": context.result.model,
            "results": context.rows(as_object=False),
            "usage": context.prompt_tokens,
        }

    def render_error(self, error: ServiceError, request_id: str) -> WireResponse:
        return openai_error(error, request_id)
