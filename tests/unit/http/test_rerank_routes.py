from __future__ import annotations

import httpx
import pytest
from tests.standin import StandInService
from tests.unit.http.conftest import Connect

BODY = {"query": "q", "documents": ["a", "bbb", "cc"]}


async def test_a_request_goes_in_and_its_answer_comes_out(client: httpx.AsyncClient, service: StandInService) -> None:
    response = await client.post("/rerank", json=BODY | {"top_k": 2})
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert body["ranked_documents"] == ["bbb", "cc"]
    assert [row["index"] for row in body["results"]] == [1, 2]
    (requests, context) = service.calls[0]
    assert [request.query for request in requests] == ["q"]
    assert context.request_id == response.headers["x-request-id"]


async def test_all_queries_of_a_call_reach_the_service_together(
    client: httpx.AsyncClient, service: StandInService
) -> None:
    response = await client.post("/batch_rerank", json={"pairs": [BODY, {"query": "no documents"}, BODY]})
    assert response.status_code == 200
    assert len(service.calls) == 1
    assert len(service.calls[0][0]) == 2
    assert ["error" in item for item in response.json()["results"]] == [False, True, False]


async def test_text_of_any_language_comes_back_as_it_was(client: httpx.AsyncClient) -> None:
    response = await client.post("/rerank", json={"query": "法国", "documents": ["巴黎 🗼 \u0000"]})
    assert response.json()["ranked_documents"] == ["巴黎 🗼 \u0000"]
    assert "巴黎".encode() in response.content


@pytest.mark.parametrize(
    ("value", "use_cache"), [("no-cache", False), ("max-age=0, No-Cache", False), ("max-age=9", True)]
)
async def test_cache_control_decides_whether_known_scores_are_used(
    client: httpx.AsyncClient, service: StandInService, value: str, use_cache: bool
) -> None:
    await client.post("/rerank", json=BODY, headers={"Cache-Control": value})
    assert service.calls[0][1].use_cache is use_cache


async def test_a_body_over_the_limit_never_reaches_the_service(connect: Connect, service: StandInService) -> None:
    response = await connect(max_body_bytes=100).post("/rerank", json={"query": "q", "documents": ["x" * 200]})
    assert response.status_code == 413
    assert service.calls == []


async def test_a_parameter_of_the_path_stands_for_the_model(
    client: httpx.AsyncClient, service: StandInService
) -> None:
    await client.post("/inference/other", json={"queries": ["q"], "documents": ["d"]})
    assert service.calls[0][0][0].model == "other"
