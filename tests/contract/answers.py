"""Plays a recorded request through the dialects, with made-up scores in the place of a model."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from rerankd.errors import InvalidRequest, ServiceError
from rerankd.http.route_table import RouteTable
from rerankd.types import DocumentScore, RerankRequest, RerankResult, Timings
from rerankd.wire.base import ReadLimits, WireResponse
from rerankd.wire.json_guard import decode_json
from rerankd.wire.registry import ROUTES

TABLE = RouteTable(ROUTES)
SCORES = ((0.25, -1.0986), (0.875, 1.9459), (0.5, 0.0))
"""Probability and logit of the first, second and third document of any request."""


def answer_to(request: RerankRequest, number: int = 0, warnings: tuple[str, ...] = ()) -> RerankResult:
    """What the service would say of a request of up to three documents."""
    scores = tuple(
        DocumentScore(index, score=SCORES[index][0], logit=SCORES[index][1])
        for index in range(len(request.documents))
    )
    ranked = sorted(scores, key=lambda place: -(place.score or 0))
    return RerankResult(
        id=f"request-{number}",
        model="tiny",
        scores=scores,
        ranked=tuple(ranked[: request.top_n]),
        prompt_tokens=80 * len(scores),
        warnings=warnings,
        timings=Timings(tokenise=0.001, queue=0.002, engine=0.030, total=0.034),
    )


def play(path: str, body: Any) -> dict[str, Any]:
    """What a body becomes: the requests it asks for, and the status, headers and body of the answer.

    The body goes through its bytes, as on the wire. Only what differs from a plain request is listed.
    """
    found = TABLE.find(path)
    assert found is not None, f"no route for {path}"
    route, parameters = found
    dialect = route.dialects[0]
    played: dict[str, Any] = {}
    try:
        decoded = decode_json(json.dumps(body).encode(), max_depth=32).value
        dialect = route.choose(decoded)
        call = dialect.parse(route.with_path(decoded, parameters), ReadLimits())
        played["asks"] = [_asked(request) for request in call.requests]
        answer = dialect.render(call, [answer_to(request, number) for number, request in enumerate(call.requests)])
    except InvalidRequest as error:
        answer = dialect.render_error(error, "request-0")
    return {"dialect": dialect.name, **played, **shown(answer)}


def render(path: str, body: Any, results: Sequence[RerankResult | ServiceError]) -> WireResponse:
    """The answer to a body when the service says ``results``."""
    found = TABLE.find(path)
    assert found is not None
    dialect = found[0].choose(body)
    return dialect.render(dialect.parse(body, ReadLimits()), results)


def shown(answer: WireResponse) -> dict[str, Any]:
    """An answer as the recorded cases write it; the time of the answer is left out."""
    body = answer.body
    if isinstance(body, dict) and "created" in body:
        assert isinstance(body["created"], int)
        body = {**body, "created": "now"}
    headers = {"headers": dict(answer.headers)} if answer.headers else {}
    return {"status": answer.status, **headers, "response": body}


def _asked(request: RerankRequest) -> dict[str, Any]:
    plain = dataclasses.asdict(RerankRequest(query="", documents=()))
    return {name: value for name, value in dataclasses.asdict(request).items() if value != plain[name]}
