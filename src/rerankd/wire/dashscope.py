"""Alibaba's DashScope: the native route, with fields in two nested objects, and the compatible one, flat."""

from __future__ import annotations

from typing import ClassVar

from rerankd.errors import ServiceError
from rerankd.wire import schema, values
from rerankd.wire.base import Json, ParsedCall, ReadLimits, WireResponse
from rerankd.wire.documents import DocumentsDialect, RenderContext
from rerankd.wire.error_shapes import dashscope_error
from rerankd.wire.fields import (
    DOCUMENTS,
    INSTRUCT,
    MODEL,
    QUERY,
    RETURN_DOCUMENTS,
    TOP_N,
    Field,
    check_object,
    read_fields,
)

INPUT = Field(
    "input",
    "input",
    "The query and the texts to be ordered.",
    {
        "type": "object",
        "required": ["query", "documents"],
        "properties": {"query": schema.TEXT_OR_OBJECT, "documents": schema.TEXTS},
    },
    values.as_sent,
    required=True,
)
PARAMETERS = Field(
    "parameters", "parameters", "`top_n`, `return_documents`, `instruct`.", schema.OBJECT, values.as_sent
)


class DashScope(DocumentsDialect):
    """POST /api/v1/services/rerank/text-rerank/text-rerank."""

    name = "dashscope"
    title = "DashScope"
    keys = ("input",)
    fields = (INPUT, PARAMETERS, MODEL)
    inner = (QUERY, DOCUMENTS)
    example: ClassVar[Json] = {
        "model": "qwen3-rerank",
        "input": {"query": "capital of France", "documents": ["Berlin", "Paris"]},
        "parameters": {"top_n": 1, "return_documents": True, "instruct": "Given a question, find its answer"},
    }

    def parse(self, body: Json, limits: ReadLimits) -> ParsedCall:
        """The two objects are laid flat: what is left is a body like any other."""
        said = read_fields(body, (INPUT, PARAMETERS))
        parameters = check_object(said.get("parameters", {}), "parameters")
        return super().parse({**body, **parameters, **check_object(said["input"], "input")}, limits)

    def body(self, context: RenderContext) -> Json:
        return {
            "output": {"results": context.rows()},
            "usage": context.total_tokens,
            "request_id": context.result.id,
        }

    def render_error(self, error: ServiceError, request_id: str) -> WireResponse:
        return dashscope_error(error, request_id)


class DashScopeCompatible(DocumentsDialect):
    """POST /compatible-api/v1/reranks."""

    name = "dashscope-compatible"
    title = "DashScope, compatible mode"
    fields = (QUERY, DOCUMENTS, MODEL, TOP_N, INSTRUCT, RETURN_DOCUMENTS)

    def body(self, context: RenderContext) -> Json:
        return {
            "id": context.result.id,
            "object": "list",
            "model": context.result.model,
            "results": context.rows(),
            "usage": context.prompt_tokens,
        }
