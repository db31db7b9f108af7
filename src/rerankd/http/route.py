"""The routes that are registered one by one, with what the OpenAPI document says of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Scope

from rerankd.http.request_state import state_of

Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]


class MeasuredRoute(Route):
    """Notes its template for the metrics.

    What answers GET answers HEAD as well, without a line of its own in the OpenAPI document; the server leaves the
    body out.

    Args:
        path: a template, such as ``/v1/models/{name}``.
        endpoint: answers the request.
        method: GET or POST.
        tag: of the operation in the OpenAPI document; empty leaves the route out of it.
        summary: of the operation.
        media_type: of the answer.
        responses: what other statuses than 200 mean.
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
        responses: Mapping[int, str] | None = None,
    ) -> None:
        async def measured(request: Request) -> Response:
            state_of(request.scope).route = self.path_format
            return await endpoint(request)

        super().__init__(path, measured, methods=[method], include_in_schema=bool(tag))
        # Starlette would list HEAD too, in Allow and in the document; `matches` sees to it.
        self.methods = {method}
        self.method = method
        self.tag = tag
        self.summary = summary
        self.media_type = media_type
        self.responses = responses or {}

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] == "http" and scope["method"] == "HEAD" and self.method == "GET":
            match, child = super().matches({**scope, "method": "GET"})
            return match, {**child, "method": "GET"}
        return super().matches(scope)
