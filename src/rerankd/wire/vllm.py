"""vLLM: POST /rerank (also under /v1 and /v2) with the texts always, and POST /score with pairs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

from rerankd.errors import InvalidRequest, ServiceError
from rerankd.types import RerankResult
from rerankd.wire import schema, values
from rerankd.wire.base import Json, ParsedCall, ReadLimits, WireResponse
from rerankd.wire.documents import DocumentsDialect, RenderContext, require_all_scored
from rerankd.wire.error_shapes import openai_error
from rerankd.wire.fields import (
    CHAT_TEMPLATE_KWARGS,
    DOCUMENTS,
    INSTRUCTION,
    MAX_TOKENS_PER_DOC,
    MAX_TOKENS_PER_QUERY,
    MODEL,
    PRIORITY,
    QUERY,
    TOP_N,
    TRUNCATE_PROMPT_TOKENS,
    TRUNCATION_SIDE,
    USE_ACTIVATION,
    Field,
    read_fields,
    with_common,
)
from rerankd.wire.pairs import QUERIES, call_for, read_pairs, scores_of, usage_of

_SPELLINGS = (("queries", "documents"), ("queries", "items"), ("data_1", "data_2"), ("text_1", "text_2"))

TOP_N_OR_ALL = replace(
    TOP_N, schema=schema.count(), read=values.above_zero, description="How many results to return; 0 means all."
)
_ITEMS = replace(DOCUMENTS, required=False)
_TWINS: tuple[Field, ...] = (
    *(QUERIES, _ITEMS, replace(_ITEMS, name="items", description="The same as `documents`.")),
    *(replace(QUERIES, name=name, description="The same as `queries`.") for name in ("data_1", "text_1")),
    *(replace(_ITEMS, name=name, description="The same as `documents`.") for name in ("data_2", "text_2")),
)


class VLLM(DocumentsDialect):
    """``top_n: 0`` asks for all; every option of its prompt and truncation is honoured."""

    name = "vllm"
    title = "vLLM"
    fields = (
        QUERY,
        DOCUMENTS,
        MODEL,
        TOP_N_OR_ALL,
        INSTRUCTION,
        CHAT_TEMPLATE_KWARGS,
        USE_ACTIVATION,
        TRUNCATE_PROMPT_TOKENS,
        TRUNCATION_SIDE,
        MAX_TOKENS_PER_DOC,
        MAX_TOKENS_PER_QUERY,
        PRIORITY,
    )
    returns_documents = True

    def body(self, context: RenderContext) -> Json:
        rows = context.rows()
        for row in rows:
            if "document" in row:
                row["document"] = {"text": row["document"]["text"], "multi_modal": None}
        return {
            "id": context.result.id,
            "model": context.result.model,
            "usage": context.prompt_tokens,
            "results": rows,
        }

    def render_error(self, error: ServiceError, request_id: str) -> WireResponse:
        return openai_error(error, request_id)


class VLLMScore:
    """POST /score: one query with many documents, or as many of each, in any of four spellings."""

    name = "vllm-score"
    title = "vLLM score"
    keys = ("queries", "data_1", "text_1")
    fields = (*_TWINS, MODEL, INSTRUCTION, USE_ACTIVATION, MAX_TOKENS_PER_DOC, MAX_TOKENS_PER_QUERY)
    example: ClassVar[Json] = {"queries": "capital of France", "documents": ["Berlin", "Paris"]}
    sometimes: ClassVar[Mapping[str, Json]] = {}
    other_bodies: ClassVar[tuple[Json, ...]] = ()

    def parse(self, body: Json, limits: ReadLimits) -> ParsedCall:
        said = read_fields(body, with_common(self.fields))
        if body.get("query") is not None:
            raise InvalidRequest(
                "`query` with `items` is SGLang's score of tokens, which is not served; "
                "send `queries` and `documents` here, or `query` and `documents` to /v1/rerank",
                param="query",
            )
        spelling = [names for names in _SPELLINGS if all(body.get(name) is not None for name in names)]
        if len(spelling) != 1:
            known = ", ".join(f"{first} + {second}" for first, second in _SPELLINGS)
            raise InvalidRequest(f"the body has to hold one of these pairs of fields, and one only: {known}")
        return call_for(said, read_pairs(body, *spelling[0], limits), limits)

    def render(self, call: ParsedCall, results: Sequence[RerankResult | ServiceError]) -> WireResponse:
        scores = scores_of(call, results)
        answered = require_all_scored(results[0])
        return WireResponse(
            {
                "id": answered.id,
                "object": "list",
                "created": int(time.time()),
                "model": answered.model,
                "data": [{"index": index, "object": "score", "score": score} for index, score in enumerate(scores)],
                "usage": usage_of(results),
            }
        )

    def render_error(self, error: ServiceError, request_id: str) -> WireResponse:
        return openai_error(error, request_id)
