"""Text-embeddings-inference: POST /rerank with ``texts``, a bare array back; POST /predict with pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from rerankd.errors import InvalidRequest, ServiceError
from rerankd.types import RerankResult
from rerankd.wire import values
from rerankd.wire.base import Json, ParsedCall, ReadLimits, WireResponse
from rerankd.wire.documents import DocumentsDialect, RenderContext
from rerankd.wire.error_shapes import tei_error
from rerankd.wire.fields import (
    QUERY,
    RAW_SCORES,
    RETURN_TEXT,
    TEXTS,
    TRUNCATE,
    TRUNCATION_DIRECTION,
    Field,
    read_fields,
    with_common,
)
from rerankd.wire.pairs import Pair, call_for, scores_of

LABEL = "LABEL_0"
"""The one label of a reranker, as ``GET /info`` names it."""


class TEI(DocumentsDialect):
    """No ``top_n`` by the book; some clients send it all the same, and it is honoured."""

    name = "tei"
    title = "text-embeddings-inference"
    keys = ("texts",)
    fields = (QUERY, TEXTS, RAW_SCORES, RETURN_TEXT, TRUNCATE, TRUNCATION_DIRECTION)
    example: ClassVar[Json] = {"query": "capital of France", "texts": ["Berlin", "Paris"], "return_text": True}

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


INPUTS = Field(
    "inputs",
    "inputs",
    'A pair, or a list of pairs: `[query, text]`, or `{"text": query, "text_pair": text}`.',
    {"type": ["array", "object"]},
    values.as_sent,
    required=True,
)


class TEIPredict:
    """POST /predict: one pair of texts, or a list of pairs; the first of a pair is the query.

    OpenSearch and others made for Hugging Face's containers send pairs as objects; their answer has one level less.
    """

    name = "tei-predict"
    title = "text-embeddings-inference, pairs"
    keys = ("inputs",)
    fields = (INPUTS, RAW_SCORES, TRUNCATE, TRUNCATION_DIRECTION)
    example: ClassVar[Json] = {"inputs": [["capital of France", "Berlin"], ["capital of France", "Paris"]]}
    sometimes: ClassVar[Mapping[str, Json]] = {}
    other_bodies: ClassVar[tuple[Json, ...]] = (
        {"inputs": ["capital of France", "Paris"]},
        {"inputs": [{"text": "capital of France", "text_pair": "Paris"}]},
    )

    def parse(self, body: Json, limits: ReadLimits) -> ParsedCall:
        said = read_fields(body, with_common(self.fields))
        inputs = said["inputs"]
        single = _pair(inputs) is not None
        pairs = [_pair(item) for item in values.items([inputs] if single else inputs, "inputs", limits.max_pairs)]
        found = [pair for pair in pairs if pair is not None]
        if len(found) < len(pairs):
            raise InvalidRequest("inputs has to be a pair of strings, or a list of such pairs", param="inputs")
        is_flat = single or isinstance(inputs[0], dict)
        return call_for(said, found, limits, is_flat=is_flat)

    def render(self, call: ParsedCall, results: Sequence[RerankResult | ServiceError]) -> WireResponse:
        labels = [{"score": score, "label": LABEL} for score in scores_of(call, results)]
        return WireResponse(labels if call.echo.is_flat else [[label] for label in labels])

    def render_error(self, error: ServiceError, request_id: str) -> WireResponse:
        return tei_error(error, request_id)


def _pair(value: Json) -> Pair | None:
    if isinstance(value, dict):
        value = [value.get("text"), value.get("text_pair")]
    if isinstance(value, list) and len(value) == 2 and all(isinstance(text, str) for text in value):
        return value[0], value[1]
    return None
