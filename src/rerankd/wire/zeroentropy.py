"""ZeroEntropy: POST /v1/models/rerank, for what was written for its hosted server."""

from __future__ import annotations

from rerankd.wire import schema, values
from rerankd.wire.base import Json
from rerankd.wire.documents import DocumentsDialect, RenderContext
from rerankd.wire.fields import DOCUMENTS, MODEL, QUERY, TOP_N, Field

LATENCY = Field("latency", "latency", "Has no effect: there is one way to score.", schema.WORDS, values.as_sent)


class ZeroEntropy(DocumentsDialect):
    """Results without texts, and the times that its SDK's types ask for."""

    name = "zeroentropy"
    title = "ZeroEntropy"
    fields = (QUERY, DOCUMENTS, MODEL, TOP_N, LATENCY)

    def body(self, context: RenderContext) -> Json:
        request, timings = context.request, context.result.timings
        characters = len(request.query) * len(request.documents) + sum(map(len, request.documents))
        return {
            "results": context.rows(),
            "actual_latency_mode": "fast",
            "e2e_latency": round(timings.total, 6),
            "inference_latency": round(timings.engine, 6),
            "total_bytes": characters,
            "total_tokens": context.result.prompt_tokens,
        }
