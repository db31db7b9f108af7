"""Cohere: POST /v1/rerank and POST /v2/rerank."""

from __future__ import annotations

from rerankd.wire.base import Json
from rerankd.wire.documents import DocumentsDialect, RenderContext
from rerankd.wire.fields import (
    DOCUMENTS,
    MAX_CHUNKS_PER_DOC,
    MAX_TOKENS_PER_DOC,
    MODEL,
    PRIORITY,
    QUERY,
    RANK_FIELDS,
    RELEVANT_SPANS,
    RETURN_DOCUMENTS,
    TOP_N,
)


class CohereV1(DocumentsDialect):
    """Documents may be objects, whose ``rank_fields`` are read; texts come back only when asked for.

    ``max_chunks_per_doc`` bounds the passages where long documents are split; by itself it does not split them.
    """

    name = "cohere-v1"
    title = "Cohere v1"
    fields = (QUERY, DOCUMENTS, MODEL, TOP_N, RANK_FIELDS, RETURN_DOCUMENTS, MAX_CHUNKS_PER_DOC)

    def body(self, context: RenderContext) -> Json:
        return {"id": context.result.id, "results": context.rows(), "meta": context.meta("1")}


class CohereV2(DocumentsDialect):
    """No ``return_documents`` by the book, yet clients send it here and mean it."""

    name = "cohere-v2"
    title = "Cohere v2"
    fields = (QUERY, DOCUMENTS, MODEL, TOP_N, MAX_TOKENS_PER_DOC, PRIORITY, RETURN_DOCUMENTS, RELEVANT_SPANS)

    def body(self, context: RenderContext) -> Json:
        return {"id": context.result.id, "results": context.rows(), "meta": context.meta("2")}
