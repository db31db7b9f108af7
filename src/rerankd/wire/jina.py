"""Jina: POST /v1/rerank; unlike Cohere it returns the texts unless told not to."""

from __future__ import annotations

from rerankd.wire.base import Json
from rerankd.wire.documents import DocumentsDialect, RenderContext
from rerankd.wire.fields import DOCUMENTS, MODEL, QUERY, RETURN_DOCUMENTS, TOP_N


class Jina(DocumentsDialect):
    """Results with objects, and ``usage``."""

    name = "jina"
    title = "Jina"
    fields = (QUERY, DOCUMENTS, MODEL, TOP_N, RETURN_DOCUMENTS)
    returns_documents = True

    def body(self, context: RenderContext) -> Json:
        return {"model": context.result.model, "usage": context.prompt_tokens, "results": context.rows()}
