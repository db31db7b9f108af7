"""What the OpenAPI document says of a route, made from the dialects themselves so that none of it is untrue.

The example answers are what ``render`` gives for the example request and a made-up result; response schemas are
read off those answers; error examples are what ``render_error`` gives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from rerankd.errors import (
    DeadlineExceeded,
    EmptyInput,
    InvalidRequest,
    NotReady,
    Overloaded,
    ScoringError,
    ServiceError,
    TooLarge,
    Unauthorized,
)
from rerankd.types import DocumentScore, RerankRequest, RerankResult, Timings
from rerankd.wire.base import Dialect, Json, ReadLimits, WireResponse
from rerankd.wire.registry import Route
from rerankd.wire.schema import Schema

EXAMPLE_ID = "6f1c2d9e"
WIDER: Mapping[str, Schema] = MappingProxyType({"param": {"type": ["string", "null"]}, "input": {}})
"""Keys whose values no example shows in full: the field that was wrong, if one was, and an input as it was sent."""

EXAMPLE_TIME = 1767225600

SHOWN_ERRORS: tuple[ServiceError, ...] = (
    InvalidRequest("query is missing", param="query"),
    EmptyInput("texts must not be empty", param="texts"),
    Unauthorized("no API key was sent; send `Authorization: Bearer <key>`"),
    TooLarge("1,200 documents are more than max_documents, 1,000", param="documents", setting="max_documents"),
    Overloaded("the queue is full; try again in a moment", retry_after=2),
    ScoringError("the engine failed on documents[0]"),
    NotReady("the model is still loading", retry_after=5),
    DeadlineExceeded("the deadline of 30,000 ms passed"),
)


def describe(route: Route) -> dict[str, Json]:
    """``requestBody`` and ``responses`` of the OpenAPI operation of ``route``."""
    answers = {dialect.name: example_answer(dialect).body for dialect in route.dialects}
    return {
        "requestBody": {
            "required": True,
            "content": _content(
                [request_schema(dialect) for dialect in route.dialects],
                {dialect.name: dialect.example for dialect in route.dialects},
            ),
        },
        "responses": {
            "200": {
                "description": "The answer.",
                "content": _content(
                    [form for dialect in route.dialects for form in answer_schemas(dialect)], answers
                ),
            },
            **_error_responses(route.dialects),
        },
    }


def request_schema(dialect: Dialect) -> Schema:
    required = [field.name for field in dialect.fields if field.required]
    return {
        "title": dialect.title,
        "type": "object",
        # An empty list is not allowed there.
        **({"required": required} if required else {}),
        "properties": {field.name: field.described for field in dialect.fields},
    }


def answer_schemas(dialect: Dialect) -> list[Schema]:
    """Every form that an answer of the dialect may have."""
    forms = [infer(example_answer(dialect, body).body) for body in (dialect.example, *dialect.other_bodies)]
    return [
        {**form, "properties": {**form["properties"], **dialect.sometimes}} if form["type"] == "object" else form
        for form in forms
    ]


def example_answer(dialect: Dialect, body: Json = None) -> WireResponse:
    """What the dialect answers to a body, by default to its own example, with made-up scores."""
    call = dialect.parse(dialect.example if body is None else body, ReadLimits())
    answer = dialect.render(call, [example_result(request) for request in call.requests])
    if isinstance(answer.body, dict) and "created" in answer.body:
        # The time of the answer would change the document at every start.
        return replace(answer, body={**answer.body, "created": EXAMPLE_TIME})
    return answer


def example_result(request: RerankRequest) -> RerankResult:
    """A result in which the last document is the best."""
    count = len(request.documents)
    scores = tuple(
        DocumentScore(index, score=round((index + 0.9) / count, 4), logit=float(index)) for index in range(count)
    )
    return RerankResult(
        id=EXAMPLE_ID,
        model="tiny",
        scores=scores,
        ranked=scores[::-1][: request.top_n],
        prompt_tokens=85 * count,
        timings=Timings(tokenise=0.001, queue=0.002, engine=0.012, total=0.015),
    )


def infer(value: Json) -> Schema:
    """The schema that ``value`` is an instance of: every key it has, and its types."""
    if isinstance(value, dict):
        properties = {key: WIDER[key] if key in WIDER else infer(inner) for key, inner in value.items()}
        return {"type": "object", "properties": properties}
    if isinstance(value, list):
        return {"type": "array", "items": any_of([infer(item) for item in value])}
    kinds: Mapping[type, Schema] = {
        str: {"type": "string"},
        bool: {"type": "boolean"},
        int: {"type": "integer"},
        float: {"type": ["number", "null"]},
    }
    return kinds.get(type(value), {})


def _error_responses(dialects: Sequence[Dialect]) -> dict[str, Json]:
    """By status, the shapes of all dialects of a path: each answers in its own."""
    bodies: dict[str, dict[str, Json]] = {}
    codes: dict[str, list[str]] = {}
    for dialect in dialects:
        for error in SHOWN_ERRORS:
            answer = dialect.render_error(error, EXAMPLE_ID)
            name = error.code if len(dialects) == 1 else f"{error.code}, {dialect.name}"
            bodies.setdefault(str(answer.status), {})[name] = answer.body
            codes.setdefault(str(answer.status), []).append(f"`{error.code}`")
    return {
        status: {
            "description": ", ".join(dict.fromkeys(codes[status])),
            "content": _content([infer(body) for body in found.values()], found),
        }
        for status, found in bodies.items()
    }


def any_of(schemas: list[Schema]) -> Schema:
    """The schema of what fits at least one of them; of anything where there is none."""
    different = [schema for index, schema in enumerate(schemas) if schema not in schemas[:index]]
    return {"anyOf": different} if len(different) > 1 else next(iter(different), {})


def _content(schemas: list[Schema], examples: Mapping[str, Json]) -> dict[str, Json]:
    shown = {name: {"value": value} for name, value in examples.items()}
    return {"application/json": {"schema": any_of(schemas), "examples": shown}}
