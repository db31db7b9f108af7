"""What the score cache saves, seen from outside: pair by pair, and never a wrong or foreign score."""

from __future__ import annotations

from typing import Any

from tests.served import Served, served

DOCUMENTS = [f"document {number}" for number in range(100)]


async def ask(server: Served, documents: list[str], headers: dict[str, str] | None = None, **fields: Any) -> Any:
    body = {"query": "query", "documents": documents, **fields}
    response = await server.client.post("/rerank", json=body, headers=headers or {})
    assert response.status_code == 200
    return response.json()


async def test_ninety_five_known_documents_of_a_hundred_cost_five_pairs() -> None:
    async with served(cache="memory") as server:
        fresh = await ask(server, DOCUMENTS[:95])
        pairs = server.engine.pairs
        mixed = await ask(server, list(reversed(DOCUMENTS)))
        assert server.engine.pairs - pairs == 5
        assert mixed["scores"][5:] == list(reversed(fresh["scores"]))
        assert server.metric("reranker_cache_hits_total") == 95
        assert server.metric("reranker_cache_misses_total") == 100
        assert server.metric("reranker_queue_tokens") == 0


async def test_an_answer_from_the_cache_says_the_same_as_a_fresh_one() -> None:
    long = "many words " * 9_000
    async with served(cache="memory", max_pair_tokens=256) as server:
        fresh, cached = [await ask(server, ["short", long]) for _ in range(2)]
    for field in ("scores", "ranked_documents", "ranked_scores", "results", "usage"):
        assert fresh[field] == cached[field]
    assert fresh["meta"]["warnings"] == cached["meta"]["warnings"] != []


async def test_a_request_may_skip_the_look_up_and_its_scores_are_kept_all_the_same() -> None:
    async with served(cache="memory") as server:
        await ask(server, DOCUMENTS)
        await ask(server, DOCUMENTS, {"Cache-Control": "no-cache"})
        assert server.engine.pairs == 200
        await ask(server, DOCUMENTS)
        assert server.engine.pairs == 200


async def test_another_query_or_limit_is_another_pair() -> None:
    async with served(cache="memory") as server:
        for fields in (
            {},
            {"query": "another"},
            {"max_tokens_per_doc": 50},
        ):
            await ask(server, DOCUMENTS[:10], **fields)
        assert server.engine.pairs == 30


async def test_callers_share_the_cache_unless_they_are_to_be_kept_apart() -> None:
    keys = {"api_keys": "one:secret-one,two:secret-two", "cache": "memory"}
    for apart, pairs in ((False, 10), (True, 20)):
        async with served(cache_per_tenant=apart, **keys) as server:
            for secret in ("secret-one", "secret-two", "secret-one"):
                await ask(server, DOCUMENTS[:10], {"Authorization": f"Bearer {secret}"})
            assert server.engine.pairs == pairs
