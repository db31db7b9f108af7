"""Section C as clients see it: which document is lost, in which words, and what the server does next."""

from __future__ import annotations

import json

import pytest
from tests.figures import Measured
from tests.served import POISON_WORD, poison_script, served

WORDS = [f"document number {number}" for number in range(10)]


def poisoned(documents: list[str], *places: int) -> list[str]:
    return [text + POISON_WORD if place in places else text for place, text in enumerate(documents)]


async def test_a_poison_document_costs_its_own_score_alone_over_http() -> None:
    async with served(fake_script=poison_script("fail_on")) as server:
        clean = (await server.rerank("q", WORDS)).json()
        response = await server.rerank("q", poisoned(WORDS, 4))
        scores = response.json()["scores"]
        assert response.status_code == 200
        assert scores[4] is None
        assert [score for place, score in enumerate(scores) if place != 4] == [
            score for place, score in enumerate(clean["scores"]) if place != 4
        ]
        assert WORDS[4] + POISON_WORD not in response.json()["ranked_documents"]


@pytest.mark.promise("C-07")
async def test_a_score_that_is_no_number_is_reported_never_sorted_never_cached(measured: Measured) -> None:
    async with served(fake_script=poison_script("nan_on"), cache="memory") as server:
        documents = poisoned(WORDS, 3)
        response = await server.rerank("q", documents)
        body = json.loads(response.text, parse_constant=lambda word: (_ for _ in ()).throw(ValueError(word)))
        ranked = body["ranked_scores"]
        assert (response.status_code, body["scores"][3], len(ranked)) == (200, None, 9)
        assert ranked == sorted(ranked, reverse=True)
        pairs = server.engine.pairs
        again = (await server.rerank("q", documents)).json()
        rescored = server.engine.pairs - pairs
        other = await server.client.post("/v2/rerank", json={"model": "tiny", "query": "q", "documents": documents})
    measured(
        "C-07",
        "NaN at index 3 of 10, over HTTP",
        "9 ranked, not cached; other dialects 500",
        f"{len(ranked)} ranked, {rescored} pair scored again, Cohere v2: {other.status_code}",
    )
    assert again["scores"] == body["scores"]
    assert (rescored, other.status_code) == (1, 500)


@pytest.mark.promise("C-08")
async def test_no_number_that_json_lacks_is_ever_sent(measured: Measured) -> None:
    async with served(fake_script=poison_script("inf_on")) as server:
        response = await server.rerank("q", poisoned(WORDS, 0, 9))
        clean = "NaN" not in response.text and "Infinity" not in response.text
    measured("C-08", "infinite logits, over HTTP", "never NaN in JSON", f"{response.status_code}, no NaN: {clean}")
    assert clean
    assert [place for place, score in enumerate(response.json()["scores"]) if score is None] == [0, 9]


@pytest.mark.promise("C-06")
async def test_one_pair_too_big_leaves_the_server_ready(measured: Measured) -> None:
    async with served(fake_script="oom_above_tokens=300") as server:
        response = await server.rerank("q", [*WORDS, "word " * 500])
        lost = [place for place, score in enumerate(response.json()["scores"]) if score is None]
        ready = (await server.client.get("/readyz")).status_code
        after = (await server.rerank("q", WORDS)).status_code
    measured(
        "C-06", "one pair does not fit, over HTTP", "500 for it only, server ready", f"lost {lost}, readyz {ready}"
    )
    assert (lost, ready, after) == ([10], 200, 200)


async def test_out_of_memory_is_not_the_clients_concern() -> None:
    async with served(fake_script="oom_above_tokens=200", max_batch_tokens=4000) as server:
        documents = [f"document {number}" for number in range(100)]
        for number in range(20):
            response = await server.rerank(f"question {number}", documents)
            assert response.status_code == 200
            assert None not in response.json()["scores"]
        assert server.metric("reranker_engine_failures_total", kind="out_of_memory") >= 1
        failures = server.metric("reranker_engine_failures_total", kind="out_of_memory")
        await server.rerank("one more", documents)
        assert server.metric("reranker_engine_failures_total", kind="out_of_memory") == failures


async def test_a_poison_is_answered_from_memory_the_third_time() -> None:
    async with served(fake_script=poison_script("fail_on")) as server:
        for _ in range(2):
            await server.rerank("q", poisoned(["d"], 0))
        passes = server.engine.passes
        alone = await server.rerank("q", poisoned(["d"], 0))
        assert (alone.status_code, server.engine.passes) == (500, passes)
        beside = await server.rerank("q", poisoned(["d", "e"], 0))
        assert beside.status_code == 200
        assert [score is None for score in beside.json()["scores"]] == [True, False]
        assert server.engine.passes == passes + 1
