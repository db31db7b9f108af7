"""vLLM: POST /rerank (also under /v1 and /v2) with the texts always, and POST /score with pairs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import ClassVar

from rerankd.errors import InvalidRequest, ServiceError
from rerankd.types import RerankResult
from rerankd.wire.base import Json, ParsedCall, WireResponse
from rerankd.wire.documents import DocumentsDialect, RenderContext, require_all_scored
from rerankd.wire.error_shapes import openai_error
from rerankd.wire.fields import Fields
from rerankd.wire.pairs import call_for, pair_up, scores_of, usage_of

_SPELLINGS = (("queries", "documents"), ("queries", "items"), ("data_1", "data_2"), ("text_1", "text_2"))


class VLLM(DocumentsDialect):
    """``top_n: 0`` asks for all; every option of its prompt and truncation is honoured."""

    name = "vllm"
    title = "vLLM"
    takes = (
        *("query", "documents", "model", "top_n", "instruction", "chat_template_kwargs", "use_activation"),
        *("truncate_prompt_tokens", "truncation_side", "max_tokens_per_doc", "max_tokens_per_query", "priority"),
    )
    returns_documents = True
    zero_is_all = True

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
    takes = (
        *("queries", "documents", "items", "data_1", "data_2", "text_1", "text_2"),
        *("model", "instruction", "use_activation", "max_tokens_per_doc", "max_tokens_per_query"),
    )
    required = 0
    example: ClassVar[Json] = {"queries": "capital of France", "documents": ["Berlin", "Paris"]}
    other_bodies: ClassVar[tuple[Json, ...]] = ()

    def parse(self, body: Json) -> ParsedCall:
        fields = Fields(body)
        if "query" in fields:
            raise InvalidRequest(
                "`query` with `items` is SGLang's score of tokens, which is not served; "
                "send `queries` and `documents` here, or `query` and `documents` to /v1/rerank",
                param="query",
            )
        spelling = [names for names in _SPELLINGS if names[0] in fields and names[1] in fields]
        if len(spelling) != 1:
            known = ", ".join(f"{first} + {second}" for first, second in _SPELLINGS)
            raise InvalidRequest(f"the body has to hold one of these pairs of fields, and one only: {known}")
        first, second = spelling[0]
        pairs = pair_up(fields.texts(first), fields.texts(second), f"{first} and {second}")
        return call_for(fields, pairs)

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
