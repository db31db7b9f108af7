"""The client for scripts that read the server's JSON: the answers are the server's own, the errors the client's."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from tests.live import LiveServer, running_server

from rerankd import RerankerClient
from rerankd.client import errors

DOCUMENTS = ["Berlin is the capital of Germany.", "Paris is the capital of France.", "Bananas are yellow."]


def test_the_answers_are_those_of_the_routes(tiny_server: LiveServer) -> None:
    question, instruction = "What is the capital of France?", "Find the answer"
    pairs = [{"query": question, "documents": DOCUMENTS, "top_k": 1}, {"query": "no documents"}]
    with RerankerClient(f"{tiny_server.url}/", "any-key") as client:
        ranked = client.rerank(question, DOCUMENTS, instruction=instruction, top_k=2)
        batch = client.batch_rerank(pairs)
        health = client.health_check()
    assert ranked["ranked_documents"] == [DOCUMENTS[1], DOCUMENTS[0]]
    assert ranked["ranked_scores"] == sorted(ranked["scores"], reverse=True)[:2]
    body = {"query": question, "documents": DOCUMENTS, "instruction": instruction, "top_k": 2}
    raw = httpx.post(f"{tiny_server.url}/rerank", json=body).json()
    assert {key: ranked[key] for key in ("scores", "results", "model", "object")} == {
        key: raw[key] for key in ("scores", "results", "model", "object")
    }
    assert batch == httpx.post(f"{tiny_server.url}/batch_rerank", json={"pairs": pairs}).json()
    assert [set(item) for item in batch["results"]] == [
        {"query", "scores", "ranked_documents", "ranked_scores"},
        {"error", "code"},
    ]
    assert health == httpx.get(f"{tiny_server.url}/health").json()
    assert health["status"] == "healthy"


def test_what_is_not_given_is_not_sent() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.content == b'{"query":"q","documents":["a"]}'
        assert "Authorization" not in request.headers
        return httpx.Response(200, json={"scores": [0.5]})

    assert RerankerClient("http://server.test", transport=httpx.MockTransport(answer)).rerank("q", ["a"]) == {
        "scores": [0.5]
    }


def test_an_unhealthy_server_is_an_answer() -> None:
    unhealthy = {"status": "unhealthy", "reason": "the model is loading"}
    transport = httpx.MockTransport(lambda request: httpx.Response(503, json=unhealthy))
    assert RerankerClient("http://server.test", transport=transport).health_check() == unhealthy


def test_the_right_key_opens_a_server_and_a_wrong_one_does_not(tmp_path: Path) -> None:
    flags = ("--engine", "fake", "--api-keys", "me:secret")
    with running_server(*flags, log=tmp_path / "server.log") as server:
        with RerankerClient(server.url, "secret") as client:
            assert client.rerank("q", ["a", "b"])["ranked_documents"]
        for key in ("wrong", None):
            with RerankerClient(server.url, key) as client, pytest.raises(errors.Unauthorized):
                client.rerank("q", ["a"])
