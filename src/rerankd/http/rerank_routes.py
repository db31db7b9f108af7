"""Every path that takes work: body -> dialect -> service -> dialect -> answer."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Receive, Scope, Send

from rerankd.errors import ServiceError
from rerankd.http.body_limit import BodyQuota, Take, in_turns, read_body
from rerankd.http.in_flight import InFlight
from rerankd.http.json_response import encode, send_body
from rerankd.http.request_state import DEADLINE, RequestState, deadline_from, state_of
from rerankd.http.route_table import Found, RouteTable
from rerankd.settings import Settings
from rerankd.types import CallContext, RerankResult, Stage
from rerankd.wire.base import Dialect, ParsedCall, ReadLimits, WireResponse
from rerankd.wire.byte_counts import Bytes, count_objects
from rerankd.wire.json_guard import decode_json

if TYPE_CHECKING:
    from rerankd.http.served import Service

ANSWER_BYTES_PER_DOCUMENT = 64
"""Bytes of a body that take as long to read as a document's place in the answer takes to write."""

BYTES_PER_OBJECT = 256
"""As many bytes of text an object of a body takes to read: a call may hold 256 queries in 18 KB."""

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
        self._reading = asyncio.Lock()
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
            context = self._context(state)
            dialect, call = await self._read(found, state, receive, take)
            state.stages.append(Stage("read", state.started, time.monotonic()))
            results = await self._in_flight.run(self._service.rerank(call.requests, context), receive)
            rendered = time.monotonic()
            _note(state, call, results)
            await self._answer(dialect, call, results, state, send)
            state.stages.append(Stage("render", rendered, time.monotonic()))

    async def _read(
        self, found: Found, state: RequestState, receive: Receive, take: Take
    ) -> tuple[Dialect, ParsedCall]:
        """The call that the body makes. Here, so that neither its bytes nor its objects outlive their reading."""
        settings = self._settings
        body = await read_body(
            state,
            in_turns(receive, self._reading),
            take,
            max_bytes=settings.max_body_bytes,
            seconds=settings.receive_timeout_seconds,
        )
        work = len(body) + BYTES_PER_OBJECT * count_objects(body)
        parse = functools.partial(self._parse, body, found, state)
        size, dialect, call = await self._offload.run(state.tenant, work, parse)
        # What it takes in memory counts, and not only what it took on the wire.
        if size > len(body):
            take(size - len(body))
        return dialect, call

    def _parse(self, body: Bytes, found: Found, state: RequestState) -> tuple[int, Dialect, ParsedCall]:
        """The bytes of memory that a body's values take, its dialect, and the call that it makes."""
        route, parameters = found
        decoded = decode_json(body, self._settings.max_json_depth)
        state.dialect = dialect = route.choose(decoded.value)
        value = route.with_path(decoded.value, parameters) if parameters else decoded.value
        call = dialect.parse(value, self._limits)
        if decoded.warnings:
            call = replace(call, warnings=decoded.warnings + call.warnings)
        state.queries = len(call.requests)
        for request in call.requests:
            state.documents += len(request.documents)
        return decoded.size, dialect, call

    async def _answer(
        self,
        dialect: Dialect,
        call: ParsedCall,
        results: list[RerankResult | ServiceError],
        state: RequestState,
        send: Send,
    ) -> None:
        documents = state.documents
        size = state.received_bytes + ANSWER_BYTES_PER_DOCUMENT * documents
        render = functools.partial(_render_and_let_go, dialect, call, results, documents)
        answer, body = await self._offload.run(state.tenant, size, render)
        await send_body(send, answer, body)

    def _context(self, state: RequestState) -> CallContext:
        settings, headers = self._settings, state.headers
        return CallContext(
            request_id=state.request_id,
            deadline=deadline_from(headers.get(DEADLINE), settings.deadline_seconds, settings.max_deadline_seconds),
            tenant=state.tenant,
            use_cache=b"no-cache" not in headers.get(b"cache-control", b"").lower(),
            experiment_key=headers.get(b"x-experiment-key", b"").decode("utf-8", "surrogateescape"),
            response_headers=state.response_headers,
            stages=state.stages,
        )


def _render_and_let_go(
    dialect: Dialect, call: ParsedCall, results: list[RerankResult | ServiceError], documents: int
) -> tuple[WireResponse, bytes]:
    """An answer with the bytes of its body, and without what these were made of: to free that of a large one at the
    end of the call would hold the event loop, for 25 milliseconds after 256 queries with a thousand documents."""
    answer, body = encode(dialect.render(call, results), documents)
    while results:
        results.pop()
    return replace(answer, body=None), body


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
