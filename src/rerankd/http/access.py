"""The outermost layer: gives each call its record and its id, and writes its log line and its metrics."""

from __future__ import annotations

import time

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rerankd.http import request_id
from rerankd.http.record import SCOPE_KEY, CallRecord, header
from rerankd.observe.metrics import Metrics
from rerankd.service.lifecycle import Lifecycle, State

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})
_PROBES = frozenset({"/livez", "/readyz", "/health", "/metrics"})
"""Asked every few seconds by machines: logged at debug."""

_CLOSE = (b"connection", b"close")
_log = structlog.get_logger(__name__)


class Access:
    """Middleware around everything else."""

    def __init__(self, app: ASGIApp, metrics: Metrics, lifecycle: Lifecycle) -> None:
        self._app = app
        self._metrics = metrics
        self._lifecycle = lifecycle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # A trailing slash is the usual typing error; without it the path is compared as it is.
        scope["path"] = scope["path"].rstrip("/") or "/"
        record = CallRecord(request_id.request_id_from(header(scope, request_id.HEADER)))
        scope[SCOPE_KEY] = record
        structlog.contextvars.bind_contextvars(request_id=record.request_id)
        try:
            await self._app(scope, receive, _Tagger(record, send, self._lifecycle))
        finally:
            self._finish(scope, record)

    def _finish(self, scope: Scope, record: CallRecord) -> None:
        seconds = time.monotonic() - record.started
        method = scope["method"] if scope["method"] in _METHODS else "OTHER"
        self._metrics.requests.labels(method, record.route, str(record.status)).inc()
        self._metrics.request_duration.labels(method, record.route).observe(seconds)
        if record.code:
            self._metrics.rejections.labels(record.code).inc()
        _write_line(method, record, seconds)


def _write_line(method: str, record: CallRecord, seconds: float) -> None:
    facts = {
        "method": method,
        "route": record.route,
        "status": record.status,
        "ms": round(seconds * 1000, 2),
        "tenant": record.tenant,
    }
    if record.received_bytes:
        facts |= {
            "bytes": record.received_bytes,
            "dialect": record.dialect.name if record.dialect else "",
            "queries": record.queries,
            "documents": record.documents,
            "cached": record.cached,
            "tokens": record.tokens,
        }
    if record.code:
        facts["code"] = record.code
    if record.route in _PROBES:
        _log.debug("request", **facts)
    elif record.status >= 500:
        _log.error("request", **facts)
    else:
        _log.info("request", **facts)


class _Tagger:
    """A ``send`` that adds the headers every response carries and notes the status."""

    def __init__(self, record: CallRecord, send: Send, lifecycle: Lifecycle) -> None:
        self._record = record
        self._send = send
        self._lifecycle = lifecycle

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._record.status = message["status"]
            headers = [*message["headers"], (request_id.HEADER, self._record.request_id.encode("ascii"))]
            if self._lifecycle.state is State.DRAINING:
                # Pooled connections go elsewhere before this process ends.
                headers.append(_CLOSE)
            message["headers"] = headers + self._record.response_headers
        await self._send(message)
