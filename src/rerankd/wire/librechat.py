"""LibreChat's rag-api: POST /v1/rerank with ``candidates``, objects of an id, a text and a score of their own."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from rerankd.wire import schema, values
from rerankd.wire.base import Json
from rerankd.wire.documents import DocumentsDialect, RenderContext
from rerankd.wire.fields import DOCUMENTS, MODEL, QUERY, TOP_N, Field

CANDIDATES = replace(DOCUMENTS, name="candidates", description="The texts to be ordered, objects with `text`.")
PROFILE = Field("profile", "profile", "Has no effect.", schema.WORDS, values.as_sent)


class LibreChat(DocumentsDialect):
    """Results by index alone."""

    name = "librechat"
    title = "LibreChat"
    keys = ("candidates",)
    fields = (QUERY, CANDIDATES, MODEL, TOP_N, PROFILE)
    example: ClassVar[Json] = {
        "profile": "default",
        "query": "capital of France",
        "candidates": [
            {"id": "a", "text": "Berlin", "base_score": 0.7},
            {"id": "b", "text": "Paris", "base_score": 0.6},
        ],
        "top_n": 1,
    }

    score_keys = ("base_score", *DocumentsDialect.score_keys)

    def body(self, context: RenderContext) -> Json:
        rows = [
            {"index": place.index, "score": value}
            for place, value in zip(context.ranked, context.ranked_scores, strict=True)
        ]
        return {"model": context.result.model, "results": rows}
