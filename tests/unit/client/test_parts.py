"""Requests that are larger than the server takes, against a server that refuses what is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from tests.live import LiveServer, running_server

from rerankd.client import AsyncClient, Client, Document, DocumentError, Query, RankedResults, Usage, errors

INFO = {
    "limits": {"max_queries": 3, "max_request_characters": 400_000, "max_body_bytes": 500_000},
    "models": [{"name": "tiny", "max_documents": 50}, {"name": "docs", "max_documents": 20}],
    "max_client_batch_size": 50,
}


def score(text: str) -> float:
    return len(text) % 101 / 101


class Server:
    """Scores by length, counts what it is sent, and refuses what is beyond its limits."""

    def __init__(self, info: Any = INFO, *, most: int = 50) -> None:
        self.info = info
        self.most = most
        self.paths: list[str] = []
        self.bodies: list[Any] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.paths.append(request.url.path)
        if request.url.path == "/info":
            return httpx.Response(200 if isinstance(self.info, dict) else self.info, json=self.info)
        body = json.loads(request.content)
        self.bodies.append(body)
        assert len(request.content) <= INFO["limits"]["max_body_bytes"]  # type: ignore[index]
        answer = {"/rerank": self.rank, "/batch_rerank": self.batch, "/score": self.score}[request.url.path](body)
        return httpx.Response(413 if answer.get("code") == "too_large" else 200, json=answer)

    def rank(self, body: Any) -> dict[str, Any]:
        texts = body["documents"]
        if len(texts) > self.most or sum(map(len, texts)) > 400_000:
            return {"code": "too_large", "message": "too many"}
        bad = [place for place, text in enumerate(texts) if text == "bad"]
        return {
            "id": f"r{len(self.bodies)}",
            "model": "tiny",
            "scores": [None if text == "bad" else score(text) for text in texts],
            "errors": [{"index": place, "code": "engine_error", "message": "bad"} for place in bad],
            "usage": {"prompt_tokens": len(texts), "total_tokens": len(texts)},
            "meta": {"warnings": ["some were cut"]},
        }

    def batch(self, body: Any) -> dict[str, Any]:
        if len(body["pairs"]) > 3:
            return {"code": "too_large", "message": "too many queries"}
        items = [self.rank(pair) if pair["documents"] else {"error": "none", "code": "x"} for pair in body["pairs"]]
        assert all(item.get("code") != "too_large" for item in items)
        return {"results": items}

    def score(self, body: Any) -> dict[str, Any]:
        assert len(body["queries"]) <= self.most
        assert len(set(body["queries"])) <= 3
        return {"data": [{"index": place, "score": score(text)} for place, text in enumerate(body["documents"])]}


def sync_call(server: Server, method: str, *given: Any, **named: Any) -> Any:
    with Client("http://server.test", transport=httpx.MockTransport(server)) as client:
        return getattr(client, method)(*given, **named)


def async_call(server: Server, method: str, *given: Any, **named: Any) -> Any:
    async def call() -> Any:
        async with AsyncClient("http://server.test", transport=httpx.MockTransport(server)) as client:
            return await getattr(client, method)(*given, **named)

    return asyncio.run(call())


CALLS = pytest.mark.parametrize("call", [sync_call, async_call])
Call = Callable[..., Any]


@CALLS
def test_many_documents_go_in_parts_and_come_back_as_one_answer(call: Call) -> None:
    documents = [Document("x" * (7 * number % 997), id=str(number)) for number in range(333)]
    documents[120] = Document("bad")
    server = Server()
    results = call(server, "rank", "q", documents, top_n=7)
    scores = [None if document.text == "bad" else score(document.text) for document in documents]
    assert server.paths == ["/info", *["/rerank"] * 7]
    assert list(results.scores) == scores
    order = sorted((place for place in range(333) if place != 120), key=lambda place: -scores[place])[:7]
    assert [result.index for result in results] == order
    assert [result.document for result in results] == [documents[place] for place in order]
    assert results.errors == (DocumentError(120, "engine_error", "bad"),)
    assert results.usage == Usage(333, 333)
    assert results.warnings == ("some were cut",)
    assert (results.model, results.id) == ("tiny", "r1")


@CALLS
def test_each_served_name_has_its_own_number_of_documents(call: Call) -> None:
    server = Server()
    assert len(call(server, "rank", "q", ["a"] * 120, model="docs")) == 120
    assert [len(body["documents"]) for body in server.bodies] == [20] * 6


@CALLS
@pytest.mark.parametrize("text", ["a" * 30_000, "文" * 30_000, '"' * 30_000, "\n" * 30_000])
def test_long_documents_go_in_parts_of_characters_and_bytes(call: Call, text: str) -> None:
    server = Server()
    assert len(call(server, "rank", "q", [text] * 20)) == 20
    assert len(server.bodies) > 1


@CALLS
def test_a_small_request_asks_for_nothing(call: Call) -> None:
    server = Server()
    call(server, "rank", "q", ["a"] * 50)
    assert server.paths == ["/rerank"]


def test_the_limits_are_asked_for_once() -> None:
    server = Server()
    with Client("http://server.test", transport=httpx.MockTransport(server)) as client:
        for _ in range(3):
            client.rank("q", ["a"] * 150)
    assert server.paths.count("/info") == 1


@CALLS
def test_many_queries_and_long_ones_are_packed_and_merged(call: Call) -> None:
    queries = [Query(f"q{number}", ["a" * n for n in range(number * 10)], top_n=2) for number in range(15)]
    server = Server()
    answers = call(server, "rank_many", queries)
    assert isinstance(answers[0], errors.StatusError)
    for query, answer in zip(queries[1:], answers[1:], strict=True):
        assert isinstance(answer, RankedResults)
        assert list(answer.scores) == [score(text) for text in query.documents]
        assert len(answer) == 2
    assert max(len(body["pairs"]) for body in server.bodies) == 3


@CALLS
def test_many_pairs_are_scored_in_order(call: Call) -> None:
    pairs = [(f"q{number // 4}", "a" * number) for number in range(401)]
    server = Server()
    assert call(server, "score", pairs) == [score(text) for _, text in pairs]
    assert len(server.bodies) > 8
    assert call(server, "score", []) == []


@CALLS
def test_a_threshold_holds_over_all_parts(call: Call) -> None:
    results = call(Server(), "rank", "q", ["a" * number for number in range(120)], threshold=0.99)
    assert [result.score for result in results] == [100 / 101]
    assert results.nothing_relevant is False
    assert call(Server(), "rank", "q", ["a"] * 120, threshold=0.9).nothing_relevant is True


@CALLS
@pytest.mark.parametrize(
    "option",
    [{"fusion": "rrf"}, {"first_stage_scores": [0.5] * 120}, {"cascade": {"model": "docs"}}],
    ids=lambda option: next(iter(option)),
)
def test_a_query_that_weighs_all_its_documents_against_each_other_is_never_cut(
    call: Call, option: dict[str, Any]
) -> None:
    server = Server(most=1000)
    assert len(call(server, "rank", "q", ["a"] * 120, **option)) == 120
    assert [len(body["documents"]) for body in server.bodies] == [120]
    small = Server()
    with pytest.raises(errors.TooLarge):
        call(small, "rank", "q", ["a"] * 120, **option)
    found = call(small, "rank_many", [Query("q", ["a"] * 40, options=option), Query("q", ["b"] * 120)])
    assert [len(answer) for answer in found] == [40, 120]


@CALLS
def test_limits_that_have_changed_are_asked_for_again(call: Call) -> None:
    server = Server({"max_client_batch_size": 200}, most=40)

    def lowered(request: httpx.Request) -> httpx.Response:
        answer = server(request)
        if answer.status_code == 413:
            server.info = {"max_client_batch_size": 40}
        return answer

    # The limits that are asked for first are wrong, so the first call fails; the second learns better.
    if call is sync_call:
        with Client("http://server.test", transport=httpx.MockTransport(lowered)) as client:
            with pytest.raises(errors.TooLarge):
                client.rank("q", ["a"] * 150)
            assert len(client.rank("q", ["a"] * 150)) == 150
    assert call(server, "rank", "q", ["a"] * 30).scores == (score("a"),) * 30


@CALLS
@pytest.mark.parametrize("info", [403, 404])
def test_a_server_that_keeps_its_limits_to_itself_judges_the_whole_request(call: Call, info: int) -> None:
    assert len(call(Server(info, most=500), "rank", "q", ["a"] * 150)) == 150
    with pytest.raises(errors.TooLarge):
        call(Server(info), "rank", "q", ["a"] * 150)


@CALLS
def test_one_document_that_is_too_large_alone_is_refused_by_the_server(call: Call) -> None:
    server = Server()
    with pytest.raises(errors.TooLarge):
        call(server, "rank", "q", ["a", "b" * 450_000, "c"])


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Any:
    flags = ("--engine", "fake", "--max-documents", "16", "--max-queries", "4", "--max-body-bytes", "65536")
    with running_server(*flags, log=tmp_path_factory.mktemp("narrow") / "server.log") as server:
        yield server


def test_a_server_with_narrow_limits_answers_all_the_same(narrow: LiveServer) -> None:
    documents = [f"document {number} " + "word " * (number % 90) for number in range(300)]
    with Client(narrow.url) as client:
        results = client.rank("q", documents)
        parts = [client.rank("q", documents[begin : begin + 16]).scores for begin in range(0, 300, 16)]
        assert results.scores == tuple(score for part in parts for score in part)
        assert client.score([("q", document) for document in documents]) == list(results.scores)
        many = client.rank_many([Query("q", documents), Query("r", documents[:3])])
        assert isinstance(many[0], RankedResults)
        assert many[0].scores == results.scores
