"""Text-embeddings-inference: POST /rerank with ``texts``, a bare array back; POST /predict with pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rerankd.errors import InvalidRequest, ServiceError
from rerankd.types import RerankResult
from rerankd.wire.base import Json, ParsedCall, WireResponse
from rerankd.wire.documents import DocumentsDialect, RenderContext
from rerankd.wire.error_shapes import tei_error
from rerankd.wire.fields import Fields
from rerankd.wire.pairs import Pair, call_for, scores_of

LABEL = "LABEL_0"
"""The one label of a reranker, as ``GET /info`` names it."""


class TEI(DocumentsDialect):
    """No ``top_n`` by the book; some clients send it all the same, and it is honoured."""

    name = "tei"
    title = "text-embeddings-inference"
    keys = ("texts",)
    takes = ("query", "texts", "raw_scores", "return_text", "truncate", "truncation_direction")
    example: ClassVar[Json] = {"query": "capital of France", "texts": ["Berlin", "Paris"], "return_text": True}
    document_key = "texts"
    return_key = "return_text"

    def body(self, context: RenderContext) -> Json:
        return context.rows(score="score", document="text", as_object=False)

    def headers(self, context: RenderContext) -> dict[str, str]:
        """What was read, and milliseconds by stage."""
        timings, request = context.result.timings, context.request
        milliseconds = {
            "x-compute-time": timings.total,
            "x-total-time": timings.total,
            "x-tokenization-time": timings.tokenise,
            "x-queue-time": timings.queue,
            "x-inference-time": timings.engine,
        }
        return {
            "x-compute-characters": str(len(request.query) + sum(map(len, request.documents))),
            "x-compute-tokens": str(context.result.prompt_tokens),
            **{name: str(round(seconds * 1000)) for name, seconds in milliseconds.items()},
        }

    def render_error(self, error: ServiceError, request_id: str) -> WireResponse:
        return tei_error(error, request_id)


class TEIPredict:
    """POST /predict: one pair of texts, or a list of pairs; the first of a pair is the query."""

    name = "tei-predict"
    title = "text-embeddings-inference, pairs"
    keys = ("inputs",)
    takes = ("inputs", "raw_scores", "truncate", "truncation_direction")
    required = 1
    example: ClassVar[Json] = {"inputs": [["capital of France", "Berlin"], ["capital of France", "Paris"]]}
    other_bodies: ClassVar[tuple[Json, ...]] = ({"inputs": ["capital of France", "Paris"]},)

    def parse(self, body: Json) -> ParsedCall:
        fields = Fields(body)
        inputs = fields.required("inputs")
        single = _is_pair(inputs)
        pairs = [inputs] if single else inputs
        if not isinstance(pairs, list) or not pairs or not all(_is_pair(pair) for pair in pairs):
            raise InvalidRequest("inputs has to be a pair of strings, or a list of such pairs", param="inputs")
        texts: list[Pair] = [(query, document) for query, document in pairs]
        return call_for(fields, texts, single=single)

    def render(self, call: ParsedCall, results: Sequence[RerankResult | ServiceError]) -> WireResponse:
        predictions = [[{"score": score, "label": LABEL}] for score in scores_of(call, results)]
        return WireResponse(predictions[0] if call.echo.single else predictions)

    def render_error(self, error: ServiceError, request_id: str) -> WireResponse:
        return tei_error(error, request_id)


def _is_pair(value: Json) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(text, str) for text in value)
