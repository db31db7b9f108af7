"""Cohere: POST /v1/rerank and POST /v2/rerank."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rerankd.wire import schema
from rerankd.wire.base import Json
from rerankd.wire.documents import DocumentsDialect, RenderContext
from rerankd.wire.fields import (
    DOCUMENTS,
    MAX_TOKENS_PER_DOC,
    MODEL,
    PRIORITY,
    QUERY,
    RANK_FIELDS,
    RETURN_DOCUMENTS,
    TOP_N,
    Field,
    check_object,
)


def _object(value: Json, where: str) -> Json:
    return check_object(value, where)


RELEVANT_SPANS = Field(
    "relevant_spans",
    "relevant_spans",
    "Not computed yet; asking for them gives a warning.",
    schema.OBJECT,
    _object,
)


class CohereV1(DocumentsDialect):
    """Documents may be objects, whose ``rank_fields`` are read; texts come back only when asked for."""

    name = "cohere-v1"
    title = "Cohere v1"
    fields = (QUERY, DOCUMENTS, MODEL, TOP_N, RANK_FIELDS, RETURN_DOCUMENTS)

    def body(self, context: RenderContext) -> Json:
        return {"id": context.result.id, "results": context.rows(), "meta": context.meta("1")}


class CohereV2(DocumentsDialect):
    """No ``return_documents`` by the book, yet clients send it here and mean it."""

    name = "cohere-v2"
    title = "Cohere v2"
    fields = (QUERY, DOCUMENTS, MODEL, TOP_N, MAX_TOKENS_PER_DOC, PRIORITY, RETURN_DOCUMENTS, RELEVANT_SPANS)

    def warnings(self, said: Mapping[str, Any]) -> tuple[str, ...]:
        asked = said.get("relevant_spans", {}).get("mode", "disabled") != "disabled"
        return ("relevant_spans are not computed yet: the results have none",) if asked else ()

    def body(self, context: RenderContext) -> Json:
        return {"id": context.result.id, "results": context.rows(), "meta": context.meta("2")}
