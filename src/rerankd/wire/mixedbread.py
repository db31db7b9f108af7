"""Mixedbread: POST /v1/reranking; documents are called ``input``, results ``data``."""

from __future__ import annotations

from typing import ClassVar

from rerankd.wire.base import Json
from rerankd.wire.documents import DocumentsDialect, RenderContext


class Mixedbread(DocumentsDialect):
    """Inputs come back as they were sent, strings or objects."""

    name = "mixedbread"
    title = "Mixedbread"
    keys = ("input",)
    takes = ("query", "input", "model", "top_k", "return_input", "rank_fields")
    example: ClassVar[Json] = {
        "query": "capital of France",
        "input": ["Berlin", "Paris"],
        "top_k": 1,
        "return_input": True,
    }
    document_key = "input"
    return_key = "return_input"

    def body(self, context: RenderContext) -> Json:
        echo = context.echo
        data = [
            {
                "object": "rank_result",
                "index": place.index,
                "score": context.value(place),
                "input": echo.documents[place.index] if echo.return_documents else None,
            }
            for place in context.result.ranked
        ]
        return {
            "object": "list",
            "model": context.result.model,
            "data": data,
            "usage": context.usage,
            "top_k": context.request.top_n or len(echo.documents),
            "return_input": echo.return_documents,
        }
