"""The kind of route that this package registers with FastAPI."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.routing import Match
from starlette.types import Scope

from rerankd.http.request_state import state_of


class MeasuredRoute(APIRoute):
    """Calls its endpoint with the request alone, and notes its template for the metrics.

    There is nothing to inject and no model to validate, so FastAPI's resolver is left out. What answers GET answers
    HEAD as well, without a line of its own in the OpenAPI document; the server leaves the body out.
    """

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] == "http" and scope["method"] == "HEAD" and "GET" in (self.methods or ()):
            match, child = super().matches({**scope, "method": "GET"})
            return match, {**child, "method": "GET"}
        return super().matches(scope)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        endpoint, template = self.endpoint, self.path_format

        async def handle(request: Request) -> Response:
            state_of(request.scope).route = template
            response: Response = await endpoint(request)
            return response

        return handle
