"""NVIDIA NIM: POST /v1/ranking; passages in, logits out."""

from __future__ import annotations

from typing import ClassVar

from rerankd.errors import InvalidRequest
from rerankd.wire.base import Json, ParsedCall
from rerankd.wire.documents import DocumentsDialect, RenderContext

_TRUNCATE = {None: None, "NONE": False, "END": True}


class Nvidia(DocumentsDialect):
    """``truncate`` is a word here: NONE refuses what is too long, END cuts it."""

    name = "nvidia"
    title = "NVIDIA NIM"
    keys = ("passages",)
    takes = ("query", "passages", "model", "truncate")
    example: ClassVar[Json] = {
        "model": "tiny",
        "query": {"text": "capital of France"},
        "passages": [{"text": "Berlin"}, {"text": "Paris"}],
    }
    document_key = "passages"

    def parse(self, body: Json) -> ParsedCall:
        word = body.get("truncate") if isinstance(body, dict) else None
        if not isinstance(word, str | None) or word not in _TRUNCATE:
            raise InvalidRequest("truncate has to be NONE or END", param="truncate")
        return super().parse(body | {"truncate": _TRUNCATE[word]} if word else body)

    def body(self, context: RenderContext) -> Json:
        rankings = [{"index": place.index, "logit": place.logit} for place in context.result.ranked]
        return {"rankings": rankings, "usage": context.prompt_tokens}
