"""What users did with answers, and what an operator changes about experiments while the server runs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse

from rerankd.errors import InvalidRequest
from rerankd.experiments.store import MAX_CLICKS, Feedback, no_answer
from rerankd.http.auth import ADMIN_PREFIX
from rerankd.http.body_limit import read_body
from rerankd.http.request_state import can_be_request_id, state_of
from rerankd.http.route import MeasuredRoute
from rerankd.settings import Settings
from rerankd.wire.base import Json
from rerankd.wire.json_guard import decode_json

if TYPE_CHECKING:
    from rerankd.http.served import Service

_MAX_BODY_BYTES = 64 * 1024
_MAX_TEXT = 1024
"""Characters of a key."""

_INDICES: Json = {"type": "array", "items": {"type": "integer", "minimum": 0}}
_FEEDBACK: Json = {
    "type": "object",
    "required": ["request_id"],
    "properties": {
        "request_id": {"type": "string", "description": "`X-Request-Id` of the answer, or its `id`."},
        "clicked": {**_INDICES, "description": "Documents that were clicked, by `index`."},
        "used": {**_INDICES, "description": "Documents that were used, by `index`: quoted, bought, copied."},
    },
    "example": {"request_id": "6f2c1d", "clicked": [3], "used": []},
}
_CONTROLS: Json = {
    "type": "object",
    "properties": {
        "traffic": {"type": "number", "minimum": 0, "maximum": 1, "description": "Share of the keys that take part."},
        "stopped": {"type": "boolean", "description": "Nobody takes part until it is false again."},
        "pins": {
            "type": "object",
            "additionalProperties": {"type": "string", "nullable": True},
            "description": "Keys and the arms that they are given; null takes a pin away.",
        },
    },
    "example": {"traffic": 0.5, "pins": {"me@example.org": "candidate"}},
}


class ExperimentRoutes:
    """``POST /feedback``, and ``/admin/experiments``."""

    def __init__(self, settings: Settings, service: Service) -> None:
        self._settings = settings
        self._service = service

    def routes(self) -> list[MeasuredRoute]:
        admin, one = f"{ADMIN_PREFIX}/experiments", f"{ADMIN_PREFIX}/experiments/{{name}}"
        return [
            MeasuredRoute(
                "/feedback",
                self.feedback,
                methods=["POST"],
                tags=["experiments"],
                summary="What a user did with an answer",
                openapi_extra=_body(_FEEDBACK),
            ),
            MeasuredRoute(admin, self.state, tags=["administration"], summary="Experiments as they stand"),
            MeasuredRoute(
                one,
                self.control,
                methods=["POST"],
                tags=["administration"],
                summary="Ramp or stop an experiment, or pin keys",
                openapi_extra=_body(_CONTROLS),
            ),
        ]

    async def feedback(self, request: Request) -> Response:
        body = await self._read(request, "request_id", "clicked", "used")
        name = body.get("request_id")
        if not isinstance(name, str) or not name:
            raise InvalidRequest("request_id has to be the X-Request-Id of an answer, or its id", param="request_id")
        clicked, used = _indices(body, "clicked"), _indices(body, "used")
        if not clicked and not used:
            raise InvalidRequest("clicked or used has to name a document", param="clicked")
        if not can_be_request_id(name):
            # Not asked of a database, which takes no such text.
            raise no_answer()
        feedback = Feedback(name, state_of(request.scope).tenant, clicked, used)
        await self._service.experiments.give_feedback(feedback)
        return JSONResponse({"status": "stored"})

    async def state(self, request: Request) -> Response:
        return JSONResponse({"experiments": self._service.experiments.state()})

    async def control(self, request: Request) -> Response:
        experiments = self._service.experiments
        body = await self._read(request, "traffic", "stopped", "pins")
        traffic, stopped, pins = body.get("traffic"), body.get("stopped"), body.get("pins")
        if traffic is not None and (isinstance(traffic, bool) or not isinstance(traffic, int | float)):
            raise InvalidRequest("traffic has to be a number from 0 to 1", param="traffic")
        if traffic is not None and not (math.isfinite(traffic) and 0 <= traffic <= 1):
            raise InvalidRequest("traffic has to be a number from 0 to 1", param="traffic")
        if stopped is not None and not isinstance(stopped, bool):
            raise InvalidRequest("stopped has to be true or false", param="stopped")
        await experiments.control(request.path_params["name"], traffic, stopped, _pins(pins))
        return JSONResponse({"experiments": experiments.state()})

    async def _read(self, request: Request, *known: str) -> Mapping[str, Any]:
        """The object that a body holds; a word that means nothing is refused, for it would be a mistake unseen."""
        raw = await read_body(
            state_of(request.scope),
            request.receive,
            lambda size: None,
            max_bytes=min(_MAX_BODY_BYTES, self._settings.max_body_bytes),
            seconds=self._settings.receive_timeout_seconds,
        )
        body = decode_json(raw, self._settings.max_json_depth).value
        if not isinstance(body, dict):
            raise InvalidRequest("the body has to be a JSON object")
        if not body.keys() <= set(known):
            raise InvalidRequest(f"the body may have {', '.join(known)}, and nothing else")
        return body


def _body(schema: Json) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _indices(body: Mapping[str, Any], name: str) -> list[int]:
    value = body.get(name)
    value = [] if value is None else value
    if not isinstance(value, list) or not all(type(index) is int and 0 <= index < 2**31 for index in value):
        raise InvalidRequest(f"{name} has to be a list of document indices", param=name)
    if len(value) > MAX_CLICKS:
        raise InvalidRequest(f"{name} has {len(value)} entries, the limit is {MAX_CLICKS}", param=name)
    return value


def _pins(value: Any) -> dict[str, str | None]:
    value = {} if value is None else value
    fits = isinstance(value, dict) and all(
        0 < len(key) <= _MAX_TEXT and (arm is None or isinstance(arm, str)) for key, arm in value.items()
    )
    if not fits:
        raise InvalidRequest("pins has to be an object of keys, each with the name of an arm or null", param="pins")
    pins: dict[str, str | None] = value
    return pins
