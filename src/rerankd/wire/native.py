"""rerankd's own shape: POST /rerank and POST /batch_rerank.

The answer is a superset: beside the scores in input order it carries what clients of Jina, vLLM, Cohere and
Voyage read, so that any of them may be pointed at the same path. A document that could not be scored has a null
score and stands in ``errors``; the others are ranked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from rerankd.errors import InvalidRequest, ServiceError
from rerankd.types import RerankResult
from rerankd.wire.base import Json, ParsedCall, WireResponse
from rerankd.wire.documents import DocumentsDialect, RenderContext, require_all_scored
from rerankd.wire.error_shapes import documents_error
from rerankd.wire.fields import Fields
from rerankd.wire.superset import superset


class Native(DocumentsDialect):
    """POST /rerank."""

    name = "native"
    title = "rerankd"
    takes = (
        *("query", "documents", "instruction", "top_n", "top_k", "return_documents", "raw_scores", "model"),
        *("truncate", "truncation_direction", "max_tokens_per_doc", "max_tokens_per_query", "priority"),
    )
    returns_documents = True

    def render(self, call: ParsedCall, results: Sequence[RerankResult | ServiceError]) -> WireResponse:
        return WireResponse(self.body(RenderContext(call.requests[0], call.echo, _partial(results[0]))))

    def body(self, context: RenderContext) -> Json:
        body = _scores(context) | superset(context, version="2")
        timings = context.result.timings
        body["meta"] |= {
            "cached_documents": context.result.cached_documents,
            "timings_ms": {
                "tokenise": _milliseconds(timings.tokenise),
                "queue": _milliseconds(timings.queue),
                "engine": _milliseconds(timings.engine),
                "total": _milliseconds(timings.total),
            },
        }
        return body


class NativeBatch:
    """POST /batch_rerank: several queries, each with its documents, through the batcher together."""

    name = "native-batch"
    title = "rerankd, several queries"
    keys = ("pairs",)
    takes = ("pairs",)
    required = 1
    example: ClassVar[Json] = {
        "pairs": [
            {"query": "capital of France", "documents": ["Berlin", "Paris"], "top_k": 1},
            {"query": "no documents here"},
        ]
    }
    other_bodies: ClassVar[tuple[Json, ...]] = ()

    def parse(self, body: Json) -> ParsedCall:
        """Items that cannot be read are kept as their error, in their place; the others are scored."""
        items = Fields(body).required("pairs")
        if not isinstance(items, list) or not items:
            raise InvalidRequest("pairs has to be a list of objects, at least one", param="pairs")
        native = Native()
        places: list[ParsedCall | InvalidRequest] = []
        for item in items:
            try:
                places.append(native.parse(item))
            except InvalidRequest as error:
                places.append(error)
        requests = [place.requests[0] for place in places if isinstance(place, ParsedCall)]
        return ParsedCall(tuple(requests), tuple(places))

    def render(self, call: ParsedCall, results: Sequence[RerankResult | ServiceError]) -> WireResponse:
        scored = iter(results)
        return WireResponse({"results": [_item(place, scored) for place in call.echo]})

    def render_error(self, error: ServiceError, request_id: str) -> WireResponse:
        return documents_error(error, request_id)


def _item(place: ParsedCall | InvalidRequest, scored: Any) -> dict[str, Json]:
    outcome = place if isinstance(place, InvalidRequest) else next(scored)
    if isinstance(place, ParsedCall) and isinstance(outcome, RerankResult):
        context = RenderContext(place.requests[0], place.echo, outcome)
        return {"query": context.request.query, **_scores(context)}
    return {"error": outcome.message, "code": outcome.code}


def _scores(context: RenderContext) -> dict[str, Json]:
    """Scores in input order, then the best documents and their scores, best first."""
    body: dict[str, Json] = {
        "scores": [context.value(place) for place in context.result.scores],
        "ranked_documents": [context.request.documents[place.index] for place in context.result.ranked],
        "ranked_scores": [context.value(place) for place in context.result.ranked],
    }
    if not context.echo.return_documents:
        del body["ranked_documents"]
    errors = [
        {"index": place.index, "code": place.error.code, "message": place.error.message}
        for place in context.result.errors
        if place.error is not None
    ]
    return body | {"errors": errors} if errors else body


def _partial(result: RerankResult | ServiceError) -> RerankResult:
    """The result if any document has a score; where none has, the error is raised."""
    if isinstance(result, RerankResult) and len(result.errors) < len(result.scores):
        return result
    return require_all_scored(result)


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)
