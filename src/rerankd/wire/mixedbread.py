"""Mixedbread: POST /v1/reranking; documents are called ``input``, results ``data``."""

from __future__ import annotations

from typing import ClassVar

from rerankd.wire.base import Json
from rerankd.wire.documents import DocumentsDialect, Reply


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

    def body(self, reply: Reply) -> Json:
        asked = reply.asked
        data = [
            {
                "object": "rank_result",
                "index": place.index,
                "score": reply.value(place),
                "input": asked.documents[place.index] if asked.return_documents else None,
            }
            for place in reply.result.ranked
        ]
        return {
            "object": "list",
            "model": reply.result.model,
            "data": data,
            "usage": reply.usage,
            "top_k": reply.request.top_n or len(asked.documents),
            "return_input": asked.return_documents,
        }
