from __future__ import annotations

import httpx
import pytest
from tests.standin import StandInService
from tests.unit.http.conftest import Connect

import rerankd
from rerankd.service.lifecycle import State


async def test_the_root_says_what_this_is(client: httpx.AsyncClient) -> None:
    body = (await client.get("/")).json()
    assert (body["service"], body["version"], body["status"]) == ("rerankd", rerankd.__version__, "running")


async def test_a_loaded_server_is_healthy(client: httpx.AsyncClient) -> None:
    body = (await client.get("/health")).json()
    assert (body["status"], body["model_loaded"], body["device"]) == ("healthy", True, "cpu")


@pytest.mark.parametrize(
    ("state", "livez", "readyz"),
    [
        (State.STARTING, 200, 503),
        (State.READY, 200, 200),
        (State.DEGRADED, 200, 200),
        (State.DRAINING, 200, 503),
        (State.DEAD, 503, 503),
    ],
)
async def test_probes_tell_what_the_state_means(
    client: httpx.AsyncClient, service: StandInService, state: State, livez: int, readyz: int
) -> None:
    service.lifecycle.move_to(state, "because")
    if state is State.STARTING:
        service.models = None
    assert (await client.get("/livez")).status_code == livez
    assert (await client.get("/readyz")).status_code == readyz
    health = await client.get("/health")
    assert health.status_code == readyz
    assert health.json()["status"] == ("healthy" if readyz == 200 else "unhealthy")
    assert (await client.get("/readyz")).json() == {"state": state, "reason": "because"}


@pytest.mark.promise("U18")
@pytest.mark.parametrize(
    "path", ["/", "/livez", "/ping", "/v1/models", "/v1/models/tiny", "/info", "/docs", "/openapi.json", "/metrics"]
)
async def test_what_answers_get_answers_head(client: httpx.AsyncClient, path: str) -> None:
    got, head = await client.get(path), await client.head(path)
    assert head.status_code == got.status_code == 200
    assert head.headers["content-type"] == got.headers["content-type"]


@pytest.mark.promise("U6")
async def test_sagemaker_may_ask_without_a_key(connect: Connect, service: StandInService) -> None:
    client = connect(api_keys="a:b")
    assert (await client.get("/ping")).status_code == 200
    service.lifecycle.move_to(State.DRAINING)
    assert (await client.get("/ping")).status_code == 503


async def test_the_metrics_have_the_published_names(client: httpx.AsyncClient) -> None:
    await client.post("/rerank", json={"query": "q", "documents": ["d"]})
    response = await client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    for name in (
        'reranker_requests_total{endpoint="/rerank",method="POST",status="200"} 1.0',
        'reranker_request_duration_seconds_count{endpoint="/rerank",method="POST"} 1.0',
        "reranker_input_tokens_bucket",
        "reranker_queue_requests",
        "reranker_batch_pairs",
        "reranker_engine_seconds",
    ):
        assert name in response.text
