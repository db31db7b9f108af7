"""DeepInfra: POST /inference/{model} with ``queries`` and ``documents``, scores in input order back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from rerankd.errors import ServiceError
from rerankd.types import RerankResult
from rerankd.wire.base import Json, ParsedCall, ReadLimits, WireResponse
from rerankd.wire.documents import require_all_scored
from rerankd.wire.error_shapes import documents_error
from rerankd.wire.fields import DOCUMENTS, INSTRUCTION, read_fields, with_common
from rerankd.wire.pairs import QUERIES, call_for, read_pairs, scores_of, usage_of


class DeepInfra:
    """One query with many documents, or as many of each."""

    name = "deepinfra"
    title = "DeepInfra"
    keys = ("queries",)
    fields = (QUERIES.needed(), DOCUMENTS, INSTRUCTION)
    example: ClassVar[Json] = {"queries": ["capital of France"], "documents": ["Berlin", "Paris"]}
    sometimes: ClassVar[Mapping[str, Json]] = {}
    other_bodies: ClassVar[tuple[Json, ...]] = ()

    def parse(self, body: Json, limits: ReadLimits) -> ParsedCall:
        said = read_fields(body, with_common(self.fields))
        return call_for(said, read_pairs(body, "queries", "documents", limits), limits)

    def render(self, call: ParsedCall, results: Sequence[RerankResult | ServiceError]) -> WireResponse:
        tokens = usage_of(results)["prompt_tokens"]
        scores = scores_of(call, results)
        return WireResponse(
            {"scores": scores, "input_tokens": tokens, "request_id": require_all_scored(results[0]).id}
        )

    def render_error(self, error: ServiceError, request_id: str) -> WireResponse:
        return documents_error(error, request_id)
