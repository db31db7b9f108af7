"""One span a request and one a stage, at a real OTLP receiver, beside the caller's own trace."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.live import NO_GRACE, running_server

from rerankd.errors import ConfigurationError
from rerankd.observe import tracing

pytest.importorskip("opentelemetry.sdk", reason="needs the extra otel")
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Receiver:
    """Takes spans over OTLP/HTTP, as a collector does."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.services: set[str] = set()
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                for group in ExportTraceServiceRequest.FromString(body).resource_spans:
                    named = {one.key: one.value.string_value for one in group.resource.attributes}
                    receiver.services.add(named["service.name"])
                    receiver.spans += [span for scope in group.scope_spans for span in scope.spans]
                self.send_response(200)
                self.end_headers()

            def log_message(self, *parts: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()
    yield found
    found.server.shutdown()
    found.server.server_close()


def test_every_stage_is_a_span_of_the_callers_trace(receiver: Receiver, tmp_path: Path) -> None:
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "OTEL_SERVICE_NAME": "reranker-of-the-test"}
    with running_server("--engine", "fake", *NO_GRACE, log=tmp_path / "log", env=env) as server:
        body = {"query": "a secret question", "documents": ["one", "two"]}
        headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "x-request-id": "request-7"}
        assert httpx.post(f"{server.url}/rerank", json=body, headers=headers).status_code == 200
        assert httpx.post(f"{server.url}/rerank", json={"query": "q"}).status_code == 400
        httpx.get(f"{server.url}/livez")
        assert server.stop() == 0
    roots = [span for span in receiver.spans if span.kind == Span.SPAN_KIND_SERVER]
    ours = next(span for span in roots if span.trace_id.hex() == TRACE)
    own = next(span for span in roots if span is not ours)
    assert len(roots) == 2  # nothing for a probe
    assert receiver.services == {"reranker-of-the-test"}
    assert (ours.name, ours.parent_span_id.hex()) == ("POST /rerank", PARENT)
    facts = {one.key: one.value.string_value or one.value.int_value for one in ours.attributes}
    assert facts["rerankd.request_id"] == "request-7"
    assert (facts["http.response.status_code"], facts["rerankd.documents"]) == (200, 2)
    children = [span for span in receiver.spans if span.parent_span_id == ours.span_id]
    assert [span.name for span in children] == ["read", "cache", "tokenise", "queue", "engine", "render"]
    for span in children:
        assert ours.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.end_time_unix_nano <= ours.end_time_unix_nano
        assert span.trace_id == ours.trace_id
    assert (own.parent_span_id, own.status.code) == (b"", 0)  # a client's mistake is no error of ours
    assert not any("secret" in str(span) for span in receiver.spans)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_nothing_is_traced_unasked(environ: dict[str, str]) -> None:
    assert tracing.open_tracer(environ) is None


def test_a_missing_package_is_said_with_the_extra_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(ConfigurationError, match=r"rerankd\[otel\]"):
        tracing.open_tracer({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"})
