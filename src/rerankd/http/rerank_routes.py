"""Every path that takes work: body -> dialect -> service -> dialect -> answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send

from rerankd.errors import MethodNotAllowed, ServiceError, TooLarge
from rerankd.http import deadline
from rerankd.http.answer import send_json
from rerankd.http.body_limit import BodyRoom, Take, read_body
from rerankd.http.disconnect import InFlight
from rerankd.http.record import CallRecord, header, record_of
from rerankd.http.route_table import RouteTable
from rerankd.settings import Settings
from rerankd.types import CallContext, RerankResult
from rerankd.wire.json_guard import decode_json

if TYPE_CHECKING:
    from rerankd.service.runtime import RerankService


class RerankRoutes(BaseRoute):
    """All paths of the wire's route table, for the router."""

    def __init__(
        self,
        table: RouteTable,
        settings: Settings,
        service: RerankService,
        in_flight: InFlight,
    ) -> None:
        self._table = table
        self._settings = settings
        self._service = service
        self._in_flight = in_flight
        self._bodies = BodyRoom(max(settings.max_waiting_bytes, settings.max_body_bytes), settings.tenant_share)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        found = self._table.find(scope["path"]) if scope["type"] == "http" else None
        if found is None:
            return Match.NONE, {}
        record_of(scope).route = found[0].path
        return Match.FULL if scope["method"] == "POST" else Match.PARTIAL, {"rerankd.route": found}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST":
            record_of(scope).response_headers.append((b"allow", b"POST"))
            raise MethodNotAllowed("this path takes POST")
        record = record_of(scope)
        record.dialect = scope["rerankd.route"][0].dialects[0]
        with self._bodies.of(record.tenant) as take:
            await self._answer(scope, receive, send, take)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, take: Take) -> None:
        route, parameters = scope["rerankd.route"]
        record = record_of(scope)
        context = self._context(scope, record)
        settings = self._settings
        decoded = decode_json(
            await read_body(
                scope, receive, take, max_bytes=settings.max_body_bytes, seconds=settings.receive_timeout
            ),
            settings.max_json_depth,
        )
        record.dialect = dialect = route.choose(decoded)
        call = dialect.parse(route.with_path(decoded, parameters))
        record.queries = len(call.requests)
        self._check_queries(record.queries)
        record.documents = sum(len(request.documents) for request in call.requests)
        await self._spend_rate(record)
        results = await self._in_flight.run(self._service.rerank(call.requests, context), receive, context.deadline)
        _count(record, results)
        await send_json(send, dialect.render(call, results))

    def _context(self, scope: Scope, record: CallRecord) -> CallContext:
        settings = self._settings
        given = header(scope, deadline.HEADER)
        cache_control = header(scope, b"cache-control")
        return CallContext(
            request_id=record.request_id,
            deadline=deadline.deadline_from(given, settings.deadline_ms, settings.max_deadline_ms),
            tenant=record.tenant,
            use_cache=cache_control is None or b"no-cache" not in cache_control.lower(),
        )

    async def _spend_rate(self, record: CallRecord) -> None:
        if self._service.rates is not None:
            state = await self._service.rates.spend(record.tenant, record.documents)
            record.response_headers.extend(state.headers())
            state.raise_if_refused()

    def _check_queries(self, queries: int) -> None:
        settings = self._settings
        limit, setting = min((settings.max_queries, "max_queries"), (settings.queue_requests, "queue_requests"))
        if queries > limit:
            raise TooLarge(f"the call has {queries} queries, the limit is {limit}", setting=setting)


def _count(record: CallRecord, results: Sequence[RerankResult | ServiceError]) -> None:
    for result in results:
        if isinstance(result, RerankResult):
            record.tokens += result.prompt_tokens
            record.cached += result.cached_documents
