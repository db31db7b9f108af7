"""Isaacus: POST /v1/rerankings with ``texts``, results with a score."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from rerankd.wire import schema, values
from rerankd.wire.base import Json
from rerankd.wire.documents import DocumentsDialect, RenderContext
from rerankd.wire.fields import MODEL, QUERY, TEXTS, TOP_N, Field
from rerankd.wire.schema import WARNINGS


def _no_iql(value: Json, where: str) -> None:
    if values.flag(value, where):
        values.refuse(where, "cannot be true: queries are plain text here")


IS_IQL = Field("is_iql", "is_iql", "Only false: queries are plain text.", schema.FLAG, _no_iql)
SCORING_METHOD = Field(
    "scoring_method", "scoring_method", "Has no effect: texts are not split.", schema.WORDS, values.string
)
CHUNKING_OPTIONS = Field(
    "chunking_options",
    "chunking_options",
    "Not done, with a warning: a long text is cut.",
    schema.OBJECT,
    values.as_sent,
)


class Isaacus(DocumentsDialect):
    """Long texts are cut as everywhere here, and not split into chunks."""

    name = "isaacus"
    title = "Isaacus"
    keys = ("texts",)
    fields = (QUERY, TEXTS, MODEL, TOP_N, IS_IQL, SCORING_METHOD, CHUNKING_OPTIONS)
    example: ClassVar[Json] = {"model": "tiny", "query": "capital of France", "texts": ["Berlin", "Paris"]}

    sometimes: ClassVar[Mapping[str, Json]] = {**DocumentsDialect.sometimes, "warnings": WARNINGS}

    def warnings(self, said: Mapping[str, Any]) -> tuple[str, ...]:
        if "chunking_options" in said:
            return ("chunking_options has no effect: a text that is too long is cut, not split",)
        return ()

    def body(self, context: RenderContext) -> Json:
        body: dict[str, Json] = {
            "results": context.rows(score="score", as_object=False),
            "usage": {"input_tokens": context.result.prompt_tokens},
        }
        return body | ({"warnings": list(context.warnings)} if context.warnings else {})
