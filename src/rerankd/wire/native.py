"""rerankd's own shape: POST /rerank and POST /batch_rerank.

The answer is a superset: beside the scores in input order it carries what clients of Jina, vLLM, Cohere and
Voyage read, so that any of them may be pointed at the same path. A document that could not be scored has a null
score and stands in ``errors``; the others are ranked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from rerankd.errors import InvalidRequest, ServiceError, TooLarge
from rerankd.types import RerankResult
from rerankd.wire import values
from rerankd.wire.base import Json, ParsedCall, ReadLimits, WireResponse
from rerankd.wire.documents import DocumentsDialect, RenderContext, require_all_scored
from rerankd.wire.error_shapes import documents_error
from rerankd.wire.fields import (
    CHUNKS,
    DOCUMENTS,
    INSTRUCTION,
    LONG_DOCUMENTS,
    MAX_TOKENS_PER_DOC,
    MAX_TOKENS_PER_QUERY,
    MODEL,
    PRIORITY,
    QUERY,
    RAW_SCORES,
    RELEVANT_SPANS,
    RETURN_DOCUMENTS,
    SCORE_THRESHOLD,
    STAGES,
    TOP_K,
    TOP_N,
    TRUNCATE,
    TRUNCATION_DIRECTION,
    USER,
    Field,
    read_fields,
)
from rerankd.wire.schema import WARNINGS
from rerankd.wire.superset import superset


class Native(DocumentsDialect):
    """POST /rerank.

    ``ranked_documents`` is part of this answer unless ``return_documents`` is false; the texts in ``results``, which
    would repeat them, come only when it is true, as at every other path.
    """

    name = "native"
    title = "rerankd"
    example: ClassVar[Json] = {**DocumentsDialect.example, "return_documents": True}
    fields = (
        QUERY,
        DOCUMENTS,
        INSTRUCTION,
        TOP_N,
        TOP_K,
        SCORE_THRESHOLD,
        RETURN_DOCUMENTS,
        RAW_SCORES,
        MODEL,
        TRUNCATE,
        TRUNCATION_DIRECTION,
        MAX_TOKENS_PER_DOC,
        MAX_TOKENS_PER_QUERY,
        PRIORITY,
        LONG_DOCUMENTS,
        *CHUNKS,
        *STAGES,
        RELEVANT_SPANS,
        USER,
    )

    def render(self, call: ParsedCall, results: Sequence[RerankResult | ServiceError]) -> WireResponse:
        context = self.context(call, _partial(results[0]))
        return WireResponse(self.body(context) | context.verdict)

    def body(self, context: RenderContext) -> Json:
        body = _scores(context) | superset(context, version="2")
        timings = context.result.timings
        body["meta"] |= {
            "cached_documents": context.result.cached_documents,
            "timings_ms": {
                "tokenise": round(timings.tokenise * 1000, 3),
                "queue": round(timings.queue * 1000, 3),
                "engine": round(timings.engine * 1000, 3),
                "total": round(timings.total * 1000, 3),
            },
        }
        return body


PAIRS = Field(
    "pairs",
    "pairs",
    "Queries with their documents: each an object as `POST /rerank` takes it.",
    {"type": "array", "items": {"type": "object"}},
    values.as_sent,
    required=True,
)


class NativeBatch:
    """POST /batch_rerank: several queries, each with its documents, through the batcher together."""

    name = "native-batch"
    title = "rerankd, several queries"
    keys = ("pairs",)
    fields = (PAIRS,)
    example: ClassVar[Json] = {
        "pairs": [
            {"query": "capital of France", "documents": ["Berlin", "Paris"], "top_k": 1},
            {"query": "no documents here"},
        ]
    }
    sometimes: ClassVar[Mapping[str, Json]] = {"warnings": WARNINGS}
    other_bodies: ClassVar[tuple[Json, ...]] = ()

    def parse(self, body: Json, limits: ReadLimits) -> ParsedCall:
        """Items that cannot be read are kept as their error, in their place; the others are scored."""
        pairs = read_fields(body, self.fields)["pairs"]
        if not isinstance(pairs, list) or not pairs:
            raise InvalidRequest("pairs has to be a list of objects, at least one", param="pairs")
        native = Native()
        places: list[ParsedCall | ServiceError] = []
        for item in values.items(pairs, "pairs", limits.max_queries, "max_queries"):
            try:
                places.append(native.parse(item, limits))
            except (InvalidRequest, TooLarge) as error:
                places.append(error.with_traceback(None))
        requests = [place.requests[0] for place in places if isinstance(place, ParsedCall)]
        return ParsedCall(tuple(requests), tuple(places))

    def render(self, call: ParsedCall, results: Sequence[RerankResult | ServiceError]) -> WireResponse:
        scored = iter(results)
        body: dict[str, Json] = {"results": [_item(place, scored) for place in call.echo]}
        return WireResponse(body | ({"warnings": list(call.warnings)} if call.warnings else {}))

    def render_error(self, error: ServiceError, request_id: str) -> WireResponse:
        return documents_error(error, request_id)


_PLACE = frozenset({"index", "relevance_score", "document"})


def _item(place: ParsedCall | ServiceError, scored: Any) -> dict[str, Json]:
    outcome = next(scored) if isinstance(place, ParsedCall) else place
    if isinstance(place, ParsedCall) and isinstance(outcome, RerankResult):
        context = Native().context(place, outcome)
        rows = context.rows()
        # What else a row says has no other place here; without it the rows would only repeat the scores.
        said: dict[str, Json] = {"results": rows} if any(row.keys() - _PLACE for row in rows) else {}
        if context.remarks:
            said["meta"] = context.remarks
        return {"query": context.request.query, **_scores(context), **said, **context.verdict}
    return {"error": outcome.message, "code": outcome.code}


def _scores(context: RenderContext) -> dict[str, Json]:
    """Scores in input order, then the best documents and their scores, best first."""
    body: dict[str, Json] = {
        "scores": context.scores,
        "ranked_documents": [context.request.documents[place.index] for place in context.ranked],
        "ranked_scores": context.ranked_scores,
    }
    if context.echo.return_documents is False:
        del body["ranked_documents"]
    errors = [
        {"index": place.index, "code": place.error.code, "message": place.error.message}
        for place in context.result.scores
        if place.error is not None
    ]
    return body | {"errors": errors} if errors else body


def _partial(result: RerankResult | ServiceError) -> RerankResult:
    """The result if any document has a score; where none has, the error is raised."""
    if isinstance(result, RerankResult) and result.ranked:
        return result
    return require_all_scored(result)
