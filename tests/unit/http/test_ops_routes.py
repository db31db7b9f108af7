from __future__ import annotations

import httpx
import pytest
from tests.standin import StandInService

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


async def test_a_probe_may_ask_for_the_head_alone(client: httpx.AsyncClient) -> None:
    assert (await client.head("/livez")).status_code == 200


async def test_the_metrics_have_the_published_names(client: httpx.AsyncClient) -> None:
    await client.post("/rerank", json={"query": "q", "documents": ["d"]})
    response = await client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    for name in (
        'reranker_requests_total{endpoint="/rerank",method="POST",status="200"} 1.0',
        'reranker_request_duration_seconds_count{endpoint="/rerank",method="POST"} 1.0',
        "reranker_input_tokens_bucket",
        "reranker_queue_requests",
        "reranker_batch_pairs_bucket",
        "reranker_engine_seconds_bucket",
    ):
        assert name in response.text
