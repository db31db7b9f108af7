"""Mixedbread: POST /v1/reranking; documents are called ``input``, results ``data``."""

from __future__ import annotations

from typing import ClassVar

from rerankd.wire.base import Json
from rerankd.wire.documents import DocumentsDialect, RenderContext
from rerankd.wire.fields import INPUT, MODEL, QUERY, RANK_FIELDS, RETURN_INPUT, TOP_K


class Mixedbread(DocumentsDialect):
    """Inputs come back as they were sent, strings or objects."""

    name = "mixedbread"
    title = "Mixedbread"
    keys = ("input",)
    fields = (QUERY, INPUT, MODEL, TOP_K, RETURN_INPUT, RANK_FIELDS)
    example: ClassVar[Json] = {
        "query": "capital of France",
        "input": ["Berlin", "Paris"],
        "top_k": 1,
        "return_input": True,
    }

    def body(self, context: RenderContext) -> Json:
        echo = context.echo
        data = [
            {
                "object": "rank_result",
                "index": place.index,
                "score": value,
                "input": echo.documents[place.index] if context.return_documents else None,
            }
            for place, value in zip(context.ranked, context.ranked_scores, strict=True)
        ]
        return {
            "object": "list",
            "model": context.result.model,
            "data": data,
            "usage": context.usage,
            "top_k": context.request.top_n or len(echo.documents),
            "return_input": context.return_documents,
        }
