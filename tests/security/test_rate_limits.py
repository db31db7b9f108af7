"""Rate limits through a real server: per key, else per address, with the headers that clients wait by."""

from __future__ import annotations

import httpx
import pytest
from tests.redis_fixtures import RedisServer
from tests.served import Served, served

KEYS = {"api_keys": "one:secret-one,two:secret-two"}


async def ask(server: Served, secret: str = "", documents: int = 2) -> httpx.Response:
    headers = {"Authorization": f"Bearer {secret}"} if secret else {}
    body = {"query": "q", "documents": ["d"] * documents}
    return await server.client.post("/rerank", json=body, headers=headers)


def standing(response: httpx.Response) -> tuple[int, str, str]:
    return (
        response.status_code,
        response.headers.get("ratelimit-limit", ""),
        response.headers.get("ratelimit-remaining", ""),
    )


async def test_every_answer_says_what_is_left_and_the_refusal_when_to_come_back() -> None:
    async with served(rate_limit="2/minute;10/day") as server:
        assert [standing(await ask(server)) for _ in range(3)] == [(200, "2", "1"), (200, "2", "0"), (429, "2", "0")]
        refused = await ask(server)
        assert server.metric("reranker_rejections_total", code="rate_limited") == 2
        assert (await server.client.get("/livez")).status_code == 200
        assert (await server.client.get("/v1/models")).status_code == 200
    assert 0 < int(refused.headers["ratelimit-reset"]) <= 60
    assert 0 < int(refused.headers["retry-after"]) <= 60


async def test_every_key_has_a_budget_of_its_own() -> None:
    async with served(rate_limit="2/minute", **KEYS) as server:
        statuses = [(await ask(server, secret)).status_code for secret in ["secret-one"] * 3 + ["secret-two"] * 2]
        assert statuses == [200, 200, 429, 200, 200]
        # A wrong key is refused as such and takes nothing from anybody.
        assert (await ask(server, "secret-three")).status_code == 401


async def test_documents_are_what_counts_when_asked_for() -> None:
    async with served(rate_limit="10/minute", rate_limit_unit="documents") as server:
        assert standing(await ask(server, documents=6)) == (200, "10", "4")
        assert standing(await ask(server, documents=6)) == (429, "10", "4")
        assert standing(await ask(server, documents=4)) == (200, "10", "0")
        never = await ask(server, documents=11)
        assert never.status_code == 413
        assert "retry-after" not in never.headers


async def test_without_a_rate_nothing_is_counted_and_no_header_is_sent() -> None:
    async with served() as server:
        assert standing(await ask(server)) == (200, "", "")


@pytest.mark.redis
async def test_two_replicas_share_a_rate_and_go_on_without_redis(redis_server: RedisServer) -> None:
    shared = {"rate_limit": "4/minute", "rate_limit_store": redis_server.url, "cache_timeout_seconds": 2.0}
    async with served(**shared) as one, served(**shared) as two:
        servers = [one, two, one, two, one, two]
        assert [(await ask(server)).status_code for server in servers] == [200, 200, 200, 200, 429, 429]
        redis_server.stop()
        assert [(await ask(one)).status_code for _ in range(5)] == [200, 200, 200, 200, 429]
