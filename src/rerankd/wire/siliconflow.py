"""SiliconFlow: POST /v1/rerank."""

from __future__ import annotations

from rerankd.wire.base import Json
from rerankd.wire.documents import DocumentsDialect, RenderContext


class SiliconFlow(DocumentsDialect):
    """Its two sites count tokens in two places, ``tokens`` and ``meta.tokens``; both are filled."""

    name = "siliconflow"
    title = "SiliconFlow"
    takes = ("query", "documents", "model", "instruction", "top_n", "return_documents")

    def body(self, context: RenderContext) -> Json:
        meta = context.meta("1")
        return {"id": context.result.id, "results": context.rows(), "tokens": context.tokens, "meta": meta}
