"""NVIDIA NIM: POST /v1/ranking; passages in, logits out."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from rerankd.wire import schema, values
from rerankd.wire.base import Json
from rerankd.wire.documents import DocumentsDialect, RenderContext
from rerankd.wire.fields import MODEL, PASSAGES, QUERY, TRUNCATE

_TRUNCATE = {"NONE": False, "END": True}


def _truncate(value: Json, where: str) -> bool:
    if not isinstance(value, str) or value not in _TRUNCATE:
        values.refuse(where, "has to be NONE or END")
    return _TRUNCATE[value]


TRUNCATE_END = replace(
    TRUNCATE,
    description="NONE refuses what is too long, END cuts it.",
    schema=schema.choice(*_TRUNCATE),
    read=_truncate,
)


class Nvidia(DocumentsDialect):
    """``truncate`` is a word here: NONE refuses what is too long, END cuts it."""

    name = "nvidia"
    title = "NVIDIA NIM"
    keys = ("passages",)
    fields = (QUERY, PASSAGES, MODEL, TRUNCATE_END)
    example: ClassVar[Json] = {
        "model": "tiny",
        "query": {"text": "capital of France"},
        "passages": [{"text": "Berlin"}, {"text": "Paris"}],
    }

    def body(self, context: RenderContext) -> Json:
        rankings = [{"index": place.index, "logit": place.logit} for place in context.ranked]
        return {"rankings": rankings, "usage": context.prompt_tokens}
