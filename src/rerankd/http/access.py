"""The outermost layer: gives each request its state and its id, and writes its log line and its metrics."""

from __future__ import annotations

import functools
import re
import time

import structlog
from prometheus_client import Counter, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rerankd.http.request_state import REQUEST_ID as REQUEST_ID_HEADER
from rerankd.http.request_state import SCOPE_KEY, RequestState, first_headers, request_id_from
from rerankd.observe.logs import REQUEST_ID
from rerankd.observe.metrics import Metrics
from rerankd.observe.tracing import Tracer
from rerankd.service.lifecycle import Lifecycle, State

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})
_PROBES = frozenset({"/livez", "/readyz", "/health", "/metrics"})
"""Asked every few seconds by machines: logged at debug."""

_KEPT_METRICS = 256

_CLOSE = (b"connection", b"close")
_log = structlog.get_logger(__name__)

_SLASHES = re.compile("//+")


def canonical_path(path: str, root_path: str = "/") -> str:
    """The one form of a path that every later layer compares: keys, routes and metrics see the same.

    Slashes at the end and in a row are the usual errors of joining a base URL; a proxy may or may not have cut its
    own prefix off.
    """
    path = _SLASHES.sub("/", path).rstrip("/") or "/"
    if root_path != "/" and (path == root_path or path.startswith(f"{root_path}/")):
        return path.removeprefix(root_path) or "/"
    return path


class Access:
    """Middleware around everything else."""

    def __init__(
        self, app: ASGIApp, metrics: Metrics, lifecycle: Lifecycle, root_path: str, tracer: Tracer | None = None
    ) -> None:
        self._app = app
        self._root_path = canonical_path(root_path)
        self._metrics = metrics
        self._lifecycle = lifecycle
        self._tracer = tracer
        self._measured = functools.lru_cache(_KEPT_METRICS)(self._metrics_of)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope["path"] = canonical_path(scope["path"], self._root_path)
        headers = first_headers(scope["headers"])
        state = RequestState(request_id_from(headers.get(REQUEST_ID_HEADER)), headers)
        scope[SCOPE_KEY] = state
        REQUEST_ID.set(state.request_id)
        try:
            await self._app(scope, receive, ResponseHeaders(state, send, self._lifecycle))
        finally:
            self._finish(scope, state)

    def _metrics_of(self, method: str, route: str, status: int) -> tuple[Counter, Histogram]:
        """The metrics of such requests; finding them by their labels costs more than counting."""
        metrics = self._metrics
        return metrics.requests.labels(method, route, str(status)), metrics.request_duration.labels(method, route)

    def _finish(self, scope: Scope, state: RequestState) -> None:
        seconds = time.monotonic() - state.started
        method = scope["method"] if scope["method"] in _METHODS else "OTHER"
        requests, duration = self._measured(method, state.route, state.status)
        requests.inc()
        duration.observe(seconds)
        if state.code:
            self._metrics.rejections.labels(state.code).inc()
        _write_line(method, state, seconds)
        if self._tracer is not None and state.route not in _PROBES:
            _trace(self._tracer, method, scope, state, state.started + seconds)


def _trace(tracer: Tracer, method: str, scope: Scope, state: RequestState, ended: float) -> None:
    """The names of attributes are those of OpenTelemetry's conventions where it has one."""
    attributes: dict[str, str | int] = {
        "http.request.method": method,
        "http.route": state.route,
        "http.response.status_code": state.status,
        "rerankd.request_id": state.request_id,
    }
    if state.received_bytes:
        attributes |= {
            "http.request.body.size": state.received_bytes,
            "rerankd.model": state.model,
            "rerankd.documents": state.documents,
            "rerankd.cached_documents": state.cached,
            "rerankd.tokens": state.tokens,
        }
    error = state.code if state.status >= 500 else ""
    tracer.record(f"{method} {state.route}", state.started, ended, state.stages, attributes, scope["headers"], error)


def _write_line(method: str, state: RequestState, seconds: float) -> None:
    facts = {
        "method": method,
        "route": state.route,
        "status": state.status,
        "ms": round(seconds * 1000, 2),
        "tenant": state.tenant,
    }
    if state.received_bytes:
        facts |= {
            "bytes": state.received_bytes,
            "dialect": state.dialect.name if state.dialect else "",
            "model": state.model,
            "queries": state.queries,
            "documents": state.documents,
            "cached": state.cached,
            "tokens": state.tokens,
        }
    if state.experiment:
        facts["experiment"] = state.experiment
    if state.code:
        facts["code"] = state.code
    if state.route in _PROBES:
        _log.debug("request", **facts)
    elif state.status >= 500:
        _log.error("request", **facts)
    else:
        _log.info("request", **facts)


class ResponseHeaders:
    """A ``send`` that adds the headers every response carries and notes the status."""

    def __init__(self, state: RequestState, send: Send, lifecycle: Lifecycle) -> None:
        self._state = state
        self._send = send
        self._lifecycle = lifecycle

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._state.status = message["status"]
            headers = [*message["headers"], (REQUEST_ID_HEADER, self._state.request_id.encode("ascii"))]
            if self._lifecycle.state is State.DRAINING:
                # Pooled connections go elsewhere before this process ends.
                headers.append(_CLOSE)
            message["headers"] = headers + self._state.response_headers
        await self._send(message)
