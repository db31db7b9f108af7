"""The kind of route that this package registers with FastAPI."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from rerankd.http.request_state import state_of


class MeasuredRoute(APIRoute):
    """Calls its endpoint with the request alone, and notes its template for the metrics.

    There is nothing to inject and no model to validate, so FastAPI's resolver is left out.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        endpoint, template = self.endpoint, self.path

        async def handle(request: Request) -> Response:
            state_of(request.scope).route = template
            response: Response = await endpoint(request)
            return response

        return handle
