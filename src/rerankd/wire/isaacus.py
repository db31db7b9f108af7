"""Isaacus: POST /v1/rerankings with ``texts``, results with a score."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from rerankd.wire import schema, values
from rerankd.wire.base import Json
from rerankd.wire.documents import DocumentsDialect, RenderContext
from rerankd.wire.fields import MODEL, QUERY, TEXTS, TOP_N, Field, read_fields
from rerankd.wire.schema import WARNINGS


def _no_iql(value: Json, where: str) -> None:
    if values.flag(value, where):
        values.refuse(where, "cannot be true: queries are plain text here")


IS_IQL = Field("is_iql", "is_iql", "Only false: queries are plain text.", schema.FLAG, _no_iql)
_METHODS = {"chunk_max": "max", "chunk_avg": "mean", "chunk_min": "min"}


def _method(value: Json, where: str) -> str | None:
    """Their way to make one score of many; ``auto`` leaves it to the served name."""
    return _METHODS.get(values.choice("auto", *_METHODS)(value, where))


SCORING_METHOD = Field(
    "scoring_method",
    "aggregation",
    "How the scores of a text's chunks become its own.",
    schema.choice("auto", *_METHODS),
    _method,
)
_SIZE = Field("size", "chunk_tokens", "Tokens of one chunk.", schema.count(1), values.whole(1))
_OVERLAP = Field(
    "overlap_tokens",
    "overlap_tokens",
    "Tokens of a chunk that stood in the one before.",
    schema.count(),
    values.whole(),
)
_RATIO = Field("overlap_ratio", "ratio", "The same as a share of `size`.", schema.optional("number"), values.number)


def _chunking_options(value: Json, where: str) -> dict[str, Any]:
    return read_fields(value, (_SIZE, _OVERLAP, _RATIO), where)


CHUNKING_OPTIONS = Field(
    "chunking_options",
    "chunking_options",
    "Splits long texts into chunks of that size, and says in `best_passage` which one won.",
    schema.optional("object", properties={field.name: field.described for field in (_SIZE, _OVERLAP, _RATIO)}),
    _chunking_options,
)


class Isaacus(DocumentsDialect):
    """Long texts are split where ``chunking_options`` asks for it, else by the rule of the served name."""

    name = "isaacus"
    title = "Isaacus"
    keys = ("texts",)
    fields = (QUERY, TEXTS, MODEL, TOP_N, IS_IQL, SCORING_METHOD, CHUNKING_OPTIONS)
    example: ClassVar[Json] = {"model": "tiny", "query": "capital of France", "texts": ["Berlin", "Paris"]}

    sometimes: ClassVar[Mapping[str, Json]] = {**DocumentsDialect.sometimes, "warnings": WARNINGS}

    def options(self, said: Mapping[str, Any]) -> Mapping[str, Any]:
        chunking = said.get("chunking_options")
        if chunking is None:
            return said
        chunking = {"mode": "chunk", **chunking}
        ratio = chunking.pop("ratio", None)
        if ratio is not None and "chunk_tokens" in chunking:
            share = min(max(ratio, 0.0), 1.0)
            chunking.setdefault("overlap_tokens", int(share * chunking["chunk_tokens"]))
        return {**said, **chunking}

    def body(self, context: RenderContext) -> Json:
        body: dict[str, Json] = {
            "results": context.rows(score="score", as_object=False),
            "usage": {"input_tokens": context.result.prompt_tokens},
        }
        return body | ({"warnings": list(context.warnings)} if context.warnings else {})
