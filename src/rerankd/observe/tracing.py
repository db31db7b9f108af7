"""OpenTelemetry traces of requests (extra ``otel``): one span for the request, one for each stage.

Spans are made at a request's end from the times that its stages noted, so a request that nobody traces costs nothing.
Everything about the export comes from the standard variables (``OTEL_EXPORTER_OTLP_ENDPOINT``, ``OTEL_SERVICE_NAME``,
``OTEL_TRACES_SAMPLER`` ...). Texts, keys and addresses are in no span.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rerankd.errors import ConfigurationError
from rerankd.types import Stage

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_PROPAGATED = ("traceparent", "tracestate")


class Tracer:
    """Makes the spans of a request and gives them to a processor, which exports them in the background."""

    def __init__(self, processor: SpanProcessor) -> None:
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        import rerankd

        named = Resource({"service.name": "rerankd", "service.version": rerankd.__version__})
        self._provider = TracerProvider(resource=named.merge(OTELResourceDetector().detect()))
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("rerankd", rerankd.__version__)
        self._propagator = TraceContextTextMapPropagator()
        # From this process's monotonic clock, in which stages are noted, to nanoseconds since 1970.
        self._offset = time.time() - time.monotonic()

    def record(
        self,
        name: str,
        started: float,
        ended: float,
        stages: Sequence[Stage],
        attributes: Mapping[str, str | int],
        headers: Sequence[tuple[bytes, bytes]],
        error: str = "",
    ) -> None:
        """A request that has been answered.

        Args:
            started, ended: of the request, by ``time.monotonic()``.
            stages: each becomes a child span.
            headers: of the request; a ``traceparent`` among them (W3C Trace Context) is the span's parent.
            error: why the server failed; a client's mistake is none.
        """
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

        named = ((key.decode("latin-1"), value.decode("latin-1")) for key, value in headers)
        carrier = {key: value for key, value in named if key in _PROPAGATED}
        span = self._tracer.start_span(
            name,
            context=self._propagator.extract(carrier),
            kind=SpanKind.SERVER,
            attributes=dict(attributes),
            start_time=self._nanoseconds(started),
        )
        if span.is_recording():
            inside = set_span_in_context(span)
            for stage in stages:
                child = self._tracer.start_span(stage.name, inside, start_time=self._nanoseconds(stage.started))
                child.end(self._nanoseconds(stage.ended))
        if error:
            span.set_status(Status(StatusCode.ERROR, error))
        span.end(self._nanoseconds(ended))

    def _nanoseconds(self, moment: float) -> int:
        return int((moment + self._offset) * 1e9)

    def close(self) -> None:
        """Export what waits."""
        self._provider.shutdown()


def open_tracer(environ: Mapping[str, str] = os.environ) -> Tracer | None:
    """The tracer that the standard variables ask for; None when they name no place to send spans to.

    Raises:
        ConfigurationError: they do, and OpenTelemetry is not installed.
    """
    is_off = environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or environ.get("OTEL_TRACES_EXPORTER") == "none"
    if is_off or not any(environ.get(name) for name in _ENDPOINTS):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as error:
        raise ConfigurationError("OTEL_EXPORTER_OTLP_ENDPOINT needs: pip install 'rerankd[otel]'") from error
    return Tracer(BatchSpanProcessor(OTLPSpanExporter()))
