"""Alibaba's DashScope: the native route, with fields in two nested objects, and the compatible one, flat."""

from __future__ import annotations

from typing import ClassVar

from rerankd.errors import ServiceError
from rerankd.wire.base import Json, ParsedCall, WireResponse
from rerankd.wire.documents import DocumentsDialect, RenderContext
from rerankd.wire.error_shapes import dashscope_error
from rerankd.wire.fields import Fields


class DashScope(DocumentsDialect):
    """POST /api/v1/services/rerank/text-rerank/text-rerank."""

    name = "dashscope"
    title = "DashScope"
    keys = ("input",)
    takes = ("input", "parameters", "model")
    required = 1
    example: ClassVar[Json] = {
        "model": "qwen3-rerank",
        "input": {"query": "capital of France", "documents": ["Berlin", "Paris"]},
        "parameters": {"top_n": 1, "return_documents": True, "instruct": "Given a question, find its answer"},
    }

    def parse(self, body: Json) -> ParsedCall:
        fields = Fields(body)
        fields.required("input")
        return super().parse({**body, **fields.inner("parameters").given, **fields.inner("input").given})

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
    takes = ("query", "documents", "model", "top_n", "instruct", "return_documents")

    def body(self, context: RenderContext) -> Json:
        return {
            "id": context.result.id,
            "object": "list",
            "model": context.result.model,
            "results": context.rows(),
            "usage": context.prompt_tokens,
        }
