from __future__ import annotations

import asyncio

import httpx
import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict
from tests.standin import StandInService
from tests.unit.http.conftest import Connect

from rerankd.service.lifecycle import State

BODY = {"query": "secret query", "documents": ["secret document", "another"]}


def count(service: StandInService, **labels: str) -> float:
    return service.metrics.registry.get_sample_value("reranker_requests_total", labels) or 0.0


async def logged(client: httpx.AsyncClient, method: str, path: str, **given: object) -> EventDict:
    with capture_logs() as lines:
        await client.request(method, path, **given)  # type: ignore[arg-type]
    (line,) = [line for line in lines if line["event"] == "request"]
    return line


async def test_one_line_says_what_happened_in_numbers(client: httpx.AsyncClient) -> None:
    line = await logged(client, "POST", "/rerank", json=BODY)
    assert (line["method"], line["route"], line["status"], line["dialect"]) == ("POST", "/rerank", 200, "native")
    assert (line["queries"], line["documents"], line["tokens"]) == (1, 2, 22)
    assert line["log_level"] == "info"
    assert "secret" not in repr(line)


async def test_a_refused_request_says_why(client: httpx.AsyncClient) -> None:
    line = await logged(client, "POST", "/rerank", content=b"{")
    assert (line["status"], line["code"]) == (400, "invalid_json")


async def test_probes_are_quiet_whatever_they_hear(client: httpx.AsyncClient, service: StandInService) -> None:
    assert (await logged(client, "GET", "/livez"))["log_level"] == "debug"
    service.lifecycle.move_to(State.DRAINING)
    assert (await logged(client, "GET", "/readyz"))["log_level"] == "debug"


async def test_requests_are_counted_by_route_template(client: httpx.AsyncClient, service: StandInService) -> None:
    await client.post("/rerank/", json=BODY)
    await client.get("/v1/models/tiny")
    await client.get("/v1/models/other")
    assert count(service, method="POST", endpoint="/rerank", status="200") == 1
    assert count(service, method="GET", endpoint="/v1/models/{name}", status="200") == 2


async def test_a_client_cannot_invent_metric_labels(client: httpx.AsyncClient, service: StandInService) -> None:
    for number in range(20):
        await client.request("PROPFIND" if number % 2 else "GET", f"/made-up/{number}")
    assert count(service, method="OTHER", endpoint="unmatched", status="404") == 10
    assert count(service, method="GET", endpoint="unmatched", status="404") == 10


async def test_a_slash_at_the_end_does_no_harm(client: httpx.AsyncClient) -> None:
    assert (await client.post("/rerank/", json=BODY)).status_code == 200
    assert (await client.get("/health/")).status_code == 200


@pytest.mark.promise("U13")
@pytest.mark.parametrize(
    "path", ["//rerank", "/v1//rerank", "//v1///rerank//", "/prefix/rerank", "//prefix//rerank/", "/rerank"]
)
async def test_slashes_and_a_prefix_that_a_proxy_kept_do_no_harm(connect: Connect, path: str) -> None:
    client = connect(root_path="/prefix/")
    assert (await client.post(f"http://localhost{path}", json=BODY)).status_code == 200
    assert (await client.post("/prefixed/rerank", json=BODY)).status_code == 404


@pytest.mark.promise("U13")
@pytest.mark.parametrize(
    "path", ["//admin/reload", "/admin//reload", "/prefix/admin/reload", "/prefix//admin//reload/"]
)
async def test_no_spelling_of_a_path_goes_round_the_keys(connect: Connect, path: str) -> None:
    client = connect(root_path="/prefix", api_keys="a:b", admin_keys="root:secret")
    response = await client.post(f"http://localhost{path}", headers={"Authorization": "Bearer b"})
    assert response.status_code == 403
    for open_path in ("//livez", "/prefix/livez"):
        assert (await client.get(f"http://localhost{open_path}")).status_code == 200


@pytest.mark.promise("W3")
async def test_the_line_names_the_model_that_answered(client: httpx.AsyncClient) -> None:
    assert (await logged(client, "POST", "/rerank", json={**BODY, "model": "foreign"}))["model"] == "tiny"
    assert (await logged(client, "POST", "/rerank", content=b"{"))["model"] == ""


@pytest.mark.promise("U5")
@pytest.mark.parametrize("asked", ["api-key", "cache-control", "x-stainless-lang, authorization", "traceparent"])
async def test_a_page_of_a_listed_origin_may_send_any_header(connect: Connect, asked: str) -> None:
    client = connect(cors_origins="https://page.example")
    for origin, status in (("https://page.example", 200), ("https://other.example", 400)):
        response = await client.options(
            "/rerank",
            headers={
                "Origin": origin,
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": asked,
            },
        )
        assert response.status_code == status
        allowed = response.headers.get("access-control-allow-origin")
        assert allowed == (origin if status == 200 else None)


async def test_a_draining_server_sends_its_clients_to_another_connection(
    client: httpx.AsyncClient, service: StandInService
) -> None:
    service.lifecycle.move_to(State.DRAINING)
    assert (await client.post("/rerank", json=BODY)).headers["connection"] == "close"


async def test_a_client_that_left_is_counted_as_499(connect: Connect, service: StandInService) -> None:
    service.act = lambda context: asyncio.sleep(5)
    app = connect()._transport.app  # type: ignore[attr-defined]
    sent: list[object] = []
    messages = iter(
        [
            {"type": "http.request", "body": b'{"query": "q", "documents": ["d"]}', "more_body": False},
            {"type": "http.disconnect"},
        ]
    )

    async def receive() -> object:
        return next(messages)

    async def send(message: object) -> None:
        sent.append(message)

    headers = [(b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/rerank", "query_string": b"", "headers": headers}
    with capture_logs() as lines:
        await app(scope, receive, send)
    assert sent == []
    assert service.cancelled == 1
    assert [line["status"] for line in lines if line["event"] == "request"] == [499]
    assert count(service, method="POST", endpoint="/rerank", status="499") == 1
    assert service.metrics.registry.get_sample_value("reranker_rejections_total", {"code": "client_closed"}) == 1


@pytest.mark.parametrize("code", ["invalid_json", "unauthorized"])
async def test_each_refusal_is_counted_by_its_code(connect: Connect, service: StandInService, code: str) -> None:
    client = connect(api_keys="a:b" if code == "unauthorized" else "")
    await client.post("/rerank", content=b"{")
    assert service.metrics.registry.get_sample_value("reranker_rejections_total", {"code": code}) == 1
