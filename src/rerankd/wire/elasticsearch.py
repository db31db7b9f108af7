"""Elasticsearch's ``hugging_face`` inference service: text-embeddings-inference's path, with ``documents``."""

from __future__ import annotations

from typing import ClassVar

from rerankd.errors import ServiceError
from rerankd.wire.base import Json, WireResponse
from rerankd.wire.documents import DocumentsDialect, RenderContext
from rerankd.wire.error_shapes import tei_error
from rerankd.wire.fields import DOCUMENTS, QUERY, RETURN_DOCUMENTS, TOP_N


class Elasticsearch(DocumentsDialect):
    """A bare array whose objects have no other keys: its parser refuses any."""

    name = "elasticsearch"
    title = "Elasticsearch, Hugging Face inference"
    keys = ("documents",)
    fields = (QUERY, DOCUMENTS, TOP_N, RETURN_DOCUMENTS)
    example: ClassVar[Json] = {
        "query": "capital of France",
        "documents": ["Berlin", "Paris"],
        "return_documents": True,
        "top_n": 2,
    }

    def body(self, context: RenderContext) -> Json:
        return context.rows(score="score", document="text", as_object=False)

    def render_error(self, error: ServiceError, request_id: str) -> WireResponse:
        return tei_error(error, request_id)
