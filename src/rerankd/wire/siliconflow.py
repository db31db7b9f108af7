"""SiliconFlow: POST /v1/rerank."""

from __future__ import annotations

from dataclasses import replace

from rerankd.wire.base import Json
from rerankd.wire.documents import DocumentsDialect, RenderContext
from rerankd.wire.fields import (
    CHUNK_OVERLAP_TOKENS,
    DOCUMENTS,
    INSTRUCTION,
    MAX_CHUNKS_PER_DOC,
    MODEL,
    QUERY,
    RETURN_DOCUMENTS,
    TOP_N,
)

OVERLAP_TOKENS = replace(CHUNK_OVERLAP_TOKENS, name="overlap_tokens")


class SiliconFlow(DocumentsDialect):
    """Its two sites count tokens in two places, ``tokens`` and ``meta.tokens``; both are filled."""

    name = "siliconflow"
    title = "SiliconFlow"
    fields = (QUERY, DOCUMENTS, MODEL, INSTRUCTION, TOP_N, RETURN_DOCUMENTS, MAX_CHUNKS_PER_DOC, OVERLAP_TOKENS)

    def body(self, context: RenderContext) -> Json:
        meta = context.meta("1")
        return {"id": context.result.id, "results": context.rows(), "tokens": context.tokens, "meta": meta}
