"""The client against rerankd itself."""

from __future__ import annotations

import pytest
from tests.live import LiveServer

from rerankd.client import AsyncClient, Client, Query, RankedResults, errors

CAPITALS = ["Berlin is the capital of Germany.", "Paris is the capital of France.", "Bananas are yellow."]
QUESTION = "What is the capital of France?"


def test_a_question_finds_its_answer(tiny_server: LiveServer) -> None:
    with Client(tiny_server.url) as client:
        results = client.rank(QUESTION, CAPITALS, top_n=2)
    assert results[0].document.text == CAPITALS[1]
    assert len(results) == 2
    assert len(results.scores) == 3
    assert all(score is not None and 0 <= score <= 1 for score in results.scores)
    assert results.usage is not None
    assert results.usage.total_tokens > 0
    assert (results.model, bool(results.id)) == ("tiny", True)


async def test_both_clients_get_the_same_scores(tiny_server: LiveServer) -> None:
    with Client(tiny_server.url) as client:
        first = client.rank(QUESTION, CAPITALS)
    async with AsyncClient(tiny_server.url) as asked:
        assert (await asked.rank(QUESTION, CAPITALS)).scores == first.scores


async def test_the_server_says_what_it_serves(tiny_server: LiveServer) -> None:
    with Client(tiny_server.url) as client:
        info = client.info()
    async with AsyncClient(tiny_server.url) as asked:
        assert (await asked.info()) == info
    assert [model["name"] for model in info["models"]] == ["tiny"]


def test_raw_scores_keep_the_order(tiny_server: LiveServer) -> None:
    with Client(tiny_server.url) as client:
        raw, plain = client.rank(QUESTION, CAPITALS, raw_scores=True), client.rank(QUESTION, CAPITALS)
    assert [result.index for result in raw] == [result.index for result in plain]
    assert raw.scores != plain.scores


def test_several_queries_are_answered_in_order_and_one_may_fail(tiny_server: LiveServer) -> None:
    queries = [Query(QUESTION, CAPITALS, top_n=1), Query("nothing", []), Query("yellow fruit", CAPITALS)]
    with Client(tiny_server.url) as client:
        first, second, third = client.rank_many(queries)
    assert isinstance(first, RankedResults)
    assert [result.index for result in first] == [1]
    assert isinstance(second, errors.InvalidRequest)
    assert isinstance(third, RankedResults)
    assert len(third) == 3


def test_an_empty_query_is_an_invalid_request(tiny_server: LiveServer) -> None:
    with Client(tiny_server.url) as client, pytest.raises(errors.InvalidRequest) as caught:
        client.rank("", CAPITALS)
    assert caught.value.code == "invalid_request"
    assert caught.value.request_id


def test_a_wrong_base_url_is_not_found(tiny_server: LiveServer) -> None:
    with Client(f"{tiny_server.url}/nowhere") as client, pytest.raises(errors.NotFound):
        client.rank("q", CAPITALS)
