"""The kind of route that answers all but the rerank calls, and its line in the OpenAPI document."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeAlias

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Scope

from rerankd.http.request_state import state_of

Endpoint: TypeAlias = Callable[[Request], Coroutine[Any, Any, Response]]


class MeasuredRoute(Route):
    """Calls its endpoint with the request, and notes its template for the metrics.

    What answers GET answers HEAD as well, without a line of its own in the OpenAPI document; the server leaves the
    body out.

    Args:
        tag: the section of the OpenAPI document; without one the route is not in it.
        summary: what the document calls the route.
        media_type: of the answer.
        responses: by status, what the document says of answers other than 200.
        described: what else the document says, such as a ``requestBody``.
    """

    def __init__(
        self,
        path: str,
        endpoint: Endpoint,
        *,
        method: str = "GET",
        tag: str = "",
        summary: str = "",
        media_type: str = "application/json",
        responses: Mapping[str, Any] | None = None,
        described: Mapping[str, Any] | None = None,
    ) -> None:
        async def measured(request: Request) -> Response:
            state_of(request.scope).route = self.path_format
            return await endpoint(request)

        super().__init__(path, measured, methods=[method], include_in_schema=bool(tag))
        self.methods = {method}  # Starlette adds HEAD, which ``Allow`` would list.
        self.method = method
        schema = {"type": "string"} if media_type.startswith("text/") else {}
        answer = {"description": "Successful Response", "content": {media_type: {"schema": schema}}}
        self.operation: Mapping[str, Any] = {
            "tags": [tag],
            "summary": summary,
            **({"description": endpoint.__doc__} if endpoint.__doc__ else {}),
            "responses": {"200": answer, **(responses or {})},
            **(described or {}),
        }

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] == "http" and scope["method"] == "HEAD" and self.method == "GET":
            match, child = super().matches({**scope, "method": "GET"})
            return match, {**child, "method": "GET"}
        return super().matches(scope)
