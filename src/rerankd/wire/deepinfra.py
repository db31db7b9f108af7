"""DeepInfra: POST /inference/{model} with ``queries`` and ``documents``, scores in input order back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rerankd.errors import ServiceError
from rerankd.types import RerankResult
from rerankd.wire.base import Json, ParsedCall, WireResponse
from rerankd.wire.documents import require_all_scored
from rerankd.wire.error_shapes import documents_error
from rerankd.wire.fields import Fields
from rerankd.wire.pairs import call_for, pair_up, scores_of, usage_of


class DeepInfra:
    """One query with many documents, or as many of each."""

    name = "deepinfra"
    title = "DeepInfra"
    keys = ("queries",)
    takes = ("queries", "documents", "instruction")
    required = 2
    example: ClassVar[Json] = {"queries": ["capital of France"], "documents": ["Berlin", "Paris"]}
    other_bodies: ClassVar[tuple[Json, ...]] = ()

    def parse(self, body: Json) -> ParsedCall:
        fields = Fields(body)
        queries, documents = fields.texts("queries"), fields.texts("documents")
        return call_for(fields, pair_up(queries, documents, "queries and documents"))

    def render(self, call: ParsedCall, results: Sequence[RerankResult | ServiceError]) -> WireResponse:
        tokens = usage_of(results)["prompt_tokens"]
        scores = scores_of(call, results)
        return WireResponse(
            {"scores": scores, "input_tokens": tokens, "request_id": require_all_scored(results[0]).id}
        )

    def render_error(self, error: ServiceError, request_id: str) -> WireResponse:
        return documents_error(error, request_id)
