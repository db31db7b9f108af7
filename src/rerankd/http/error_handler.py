"""The only place that turns an error into a response: status and shape come from the dialect of the call."""

from __future__ import annotations

import asyncio
import contextlib

import structlog
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from rerankd.errors import (
    ClientClosed,
    MethodNotAllowed,
    ReceiveTimeout,
    ServiceError,
    TooLarge,
)
from rerankd.http.json_response import json_bytes, start_json
from rerankd.http.request_state import RequestState, state_of
from rerankd.http.route_table import RouteTable
from rerankd.wire.base import WireResponse
from rerankd.wire.error_shapes import documents_error
from rerankd.wire.registry import not_found

_CLOSING = (TooLarge, ReceiveTimeout)
"""Errors after which the connection is of no use: the rest of the request is not worth reading."""

LINGER_SECONDS = 1.0
LINGER_BYTES = 64 * 1024

_log = structlog.get_logger(__name__)


class ErrorHandler:
    """Middleware that answers whatever the layers inside of it raise.

    Args:
        table: tells which dialect a path speaks, for errors met before its body was read.
        max_body_bytes: how much of a refused body is still read, so that the client finds its answer.
    """

    def __init__(self, app: ASGIApp, table: RouteTable, max_body_bytes: int) -> None:
        self._app = app
        self._table = table
        self._linger_bytes = max_body_bytes + LINGER_BYTES

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except Exception as raised:
            state = state_of(scope)
            error = self._service_error(raised, scope)
            state.code = error.code
            if state.status and not isinstance(error, ClientClosed):
                # The answer is under way; only cutting the connection tells the client that it is not whole.
                raise
            # Some frame on its way holds the error as a value: body and texts of the call would live on in that
            # circle until a full garbage collection, which is rare.
            raised.__traceback__ = raised.__context__ = None
            if isinstance(error, ClientClosed):
                state.status = error.status
                return
            await self._respond(error, scope, receive, send)

    async def _respond(self, error: ServiceError, scope: Scope, receive: Receive, send: Send) -> None:
        state = state_of(scope)
        answer = self._answer(error, scope)
        body = json_bytes(answer.body)
        headers = dict(answer.headers)
        if isinstance(error, _CLOSING):
            headers["Connection"] = "close"
        await start_json(send, answer.status, headers, len(body))
        await send({"type": "http.response.body", "body": body, "more_body": True})
        if isinstance(error, TooLarge):
            await self._linger(state, receive)
        await send({"type": "http.response.body", "body": b""})

    def _service_error(self, raised: Exception, scope: Scope) -> ServiceError:
        """What a client may know of an exception; everything unforeseen becomes one nameless error."""
        if isinstance(raised, ServiceError):
            return raised
        if isinstance(raised, HTTPException) and raised.status_code in (404, 405):
            allowed = [(raised.headers or {}).get("Allow", ""), "POST" if self._table.find(scope["path"]) else ""]
            if not any(allowed):
                return not_found(scope["path"])
            state_of(scope).response_headers.append((b"allow", ", ".join(filter(None, allowed)).encode()))
            return MethodNotAllowed("this path takes another method; see the Allow header")
        _log.error("unexpected error", exc_info=raised)
        return ServiceError("the server failed on this request; its log has more under the request id")

    def _answer(self, error: ServiceError, scope: Scope) -> WireResponse:
        state = state_of(scope)
        found = self._table.find(scope["path"])
        if found and scope["method"] == "POST":
            # Refused before the router saw it, by the key for one.
            state.route = found[0].path
        dialect = state.dialect or (found[0].dialects[0] if found else None)
        return dialect.render_error(error, state.request_id) if dialect else documents_error(error, state.request_id)

    async def _linger(self, state: RequestState, receive: Receive) -> None:
        """Read on for a moment: closing while bytes arrive resets the connection, and the answer is lost."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                while not state.body_complete and state.received_bytes < self._linger_bytes:
                    message = await receive()
                    state.received_bytes += len(message.get("body", b""))
                    state.body_complete = not message.get("more_body", False)
