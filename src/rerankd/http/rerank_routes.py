"""Every path that takes work: body -> dialect -> service -> dialect -> answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send

from rerankd.errors import MethodNotAllowed, ServiceError, TooLarge
from rerankd.http import deadline
from rerankd.http.body_limit import BodyQuota, Take, read_body
from rerankd.http.in_flight import InFlight
from rerankd.http.json_response import send_json
from rerankd.http.request_state import RequestState, header, state_of
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
        self._bodies = BodyQuota(
            max(settings.max_inflight_body_bytes, settings.max_body_bytes), settings.max_tenant_share
        )

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        found = self._table.find(scope["path"]) if scope["type"] == "http" else None
        if found is None:
            return Match.NONE, {}
        state_of(scope).route = found[0].path
        return Match.FULL if scope["method"] == "POST" else Match.PARTIAL, {"rerankd.route": found}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST":
            state_of(scope).response_headers.append((b"allow", b"POST"))
            raise MethodNotAllowed("this path takes POST")
        state = state_of(scope)
        state.dialect = scope["rerankd.route"][0].dialects[0]
        with self._bodies.of(state.tenant) as take:
            await self._answer(scope, receive, send, take)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, take: Take) -> None:
        route, parameters = scope["rerankd.route"]
        state = state_of(scope)
        context = self._context(scope, state)
        settings = self._settings
        decoded = decode_json(
            await read_body(
                scope, receive, take, max_bytes=settings.max_body_bytes, seconds=settings.receive_timeout_seconds
            ),
            settings.max_json_depth,
        )
        state.dialect = dialect = route.choose(decoded)
        call = dialect.parse(route.with_path(decoded, parameters))
        state.queries = len(call.requests)
        self._check_queries(state.queries)
        state.documents = sum(len(request.documents) for request in call.requests)
        await self._spend_rate(state)
        results = await self._in_flight.run(self._service.rerank(call.requests, context), receive, context.deadline)
        _count(state, results)
        await send_json(send, dialect.render(call, results))

    def _context(self, scope: Scope, state: RequestState) -> CallContext:
        settings = self._settings
        given = header(scope, deadline.HEADER)
        cache_control = header(scope, b"cache-control")
        return CallContext(
            request_id=state.request_id,
            deadline=deadline.deadline_from(given, settings.deadline_seconds, settings.max_deadline_seconds),
            tenant=state.tenant,
            use_cache=cache_control is None or b"no-cache" not in cache_control.lower(),
        )

    async def _spend_rate(self, state: RequestState) -> None:
        if self._service.rates is not None:
            budget = await self._service.rates.spend(state.tenant, state.documents)
            state.response_headers.extend(budget.headers())
            budget.raise_if_refused()

    def _check_queries(self, queries: int) -> None:
        settings = self._settings
        limit, setting = min((settings.max_queries, "max_queries"), (settings.queue_requests, "queue_requests"))
        if queries > limit:
            raise TooLarge(f"the call has {queries} queries, the limit is {limit}", setting=setting)


def _count(state: RequestState, results: Sequence[RerankResult | ServiceError]) -> None:
    for result in results:
        if isinstance(result, RerankResult):
            state.tokens += result.prompt_tokens
            state.cached += result.cached_documents
