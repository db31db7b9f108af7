"""Every path that takes work: body -> dialect -> service -> dialect -> answer."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Receive, Scope, Send

from rerankd.errors import ServiceError
from rerankd.http import deadline
from rerankd.http.body_limit import BodyQuota, Take, read_body
from rerankd.http.in_flight import InFlight
from rerankd.http.json_response import encode, send_body
from rerankd.http.request_state import RequestState, header, state_of
from rerankd.http.route_table import Found, RouteTable
from rerankd.settings import Settings
from rerankd.types import CallContext, RerankResult, Stage
from rerankd.wire.base import Dialect, ParsedCall, ReadLimits
from rerankd.wire.json_guard import Decoded, decode_json

if TYPE_CHECKING:
    from rerankd.http.served import Service

ANSWER_BYTES_PER_DOCUMENT = 64
"""Bytes of a body that take as long to read as a document's place in the answer takes to write."""

MAX_WARNINGS_HEADER = 1024
"""Characters of ``X-Warnings``."""


class RerankCalls:
    """Middleware that answers the paths of the wire's route table; every other call goes on to the router."""

    def __init__(
        self, app: ASGIApp, table: RouteTable, settings: Settings, service: Service, in_flight: InFlight
    ) -> None:
        self._app = app
        self._table = table
        self._settings = settings
        self._service = service
        self._in_flight = in_flight
        self._bodies = BodyQuota.from_settings(settings)
        self._offload = service.offload
        served = [settings.max_documents, *(model.max_documents for model in settings.models.values())]
        self._limits = ReadLimits(max(served), settings.max_queries, settings.max_request_characters)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = self._table.find(scope["path"]) if scope["type"] == "http" else None
        if found is None:
            await self._app(scope, receive, send)
            return
        state = state_of(scope)
        state.route = found[0].path
        if scope["method"] != "POST":
            # A GET route may have the same path.
            await self._app(scope, receive, send)
            return
        state.dialect = found[0].dialects[0]
        with self._bodies.of(state.tenant) as take:
            await self._answer(found, scope, receive, send, take)

    async def _answer(self, found: Found, scope: Scope, receive: Receive, send: Send, take: Take) -> None:
        state = state_of(scope)
        context = self._context(scope, state)
        dialect, call = await self._read(found, scope, receive, take)
        state.stages.append(Stage("read", state.started, time.monotonic()))
        state.queries = len(call.requests)
        state.documents = sum(len(request.documents) for request in call.requests)
        results = await self._in_flight.run(self._service.rerank(call.requests, context), receive)
        _note(state, call, results)
        rendered = time.monotonic()
        size = state.received_bytes + ANSWER_BYTES_PER_DOCUMENT * state.documents
        documents = state.documents
        answered = await self._offload.run(
            state.tenant, size, lambda: encode(dialect.render(call, results), documents)
        )
        await send_body(send, *answered)
        state.stages.append(Stage("render", rendered, time.monotonic()))

    async def _read(self, found: Found, scope: Scope, receive: Receive, take: Take) -> tuple[Dialect, ParsedCall]:
        """The call that the body makes. Here, so that neither its bytes nor its objects outlive their reading."""
        route, parameters = found
        state, settings = state_of(scope), self._settings
        body = await read_body(
            scope, receive, take, max_bytes=settings.max_body_bytes, seconds=settings.receive_timeout_seconds
        )

        def read() -> tuple[Decoded, Dialect, ParsedCall]:
            decoded = decode_json(body, settings.max_json_depth)
            state.dialect = dialect = route.choose(decoded.value)
            call = dialect.parse(route.with_path(decoded.value, parameters), self._limits)
            if decoded.warnings:
                call = replace(call, warnings=decoded.warnings + call.warnings)
            return decoded, dialect, call

        decoded, dialect, call = await self._offload.run(state.tenant, len(body), read)
        # What it takes in memory counts, and not only what it took on the wire.
        take(max(0, decoded.size - len(body)))
        return dialect, call

    def _context(self, scope: Scope, state: RequestState) -> CallContext:
        settings = self._settings
        given = header(scope, deadline.HEADER)
        cache_control = header(scope, b"cache-control")
        return CallContext(
            request_id=state.request_id,
            deadline=deadline.deadline_from(given, settings.deadline_seconds, settings.max_deadline_seconds),
            tenant=state.tenant,
            use_cache=cache_control is None or b"no-cache" not in cache_control.lower(),
            experiment_key=_experiment_key(scope),
            response_headers=state.response_headers,
            stages=state.stages,
        )


def _experiment_key(scope: Scope) -> str:
    return (header(scope, b"x-experiment-key") or b"").decode("utf-8", "surrogateescape")


def _note(state: RequestState, call: ParsedCall, results: Sequence[RerankResult | ServiceError]) -> None:
    """Keep what the log line wants of an answer; its warnings go out in a header, for shapes without a place."""
    warnings = dict.fromkeys(call.warnings)
    for result in results:
        if isinstance(result, RerankResult):
            state.model = result.model
            state.tokens += result.prompt_tokens
            state.cached += result.cached_documents
            if result.experiment is not None:
                state.experiment = f"{result.experiment.name}={result.experiment.arm}"
            warnings |= dict.fromkeys(result.warnings)
    if warnings:
        text = "; ".join(warnings)[:MAX_WARNINGS_HEADER]
        state.response_headers.append((b"x-warnings", text.encode("ascii", "replace")))
