from __future__ import annotations

import json
import math
import threading
from typing import Any

import httpx
import pytest

from rerankd.client import Client
from rerankd.errors import ConfigurationError, RerankdError
from rerankd.evaluate.errors import EvaluationError
from rerankd.evaluate.scorer import ServerScorer
from rerankd.types import RerankRequest


def scorer(answer: Any) -> ServerScorer:
    made = ServerScorer("http://server.test", "docs")
    made._client = Client("http://server.test", retries=0, transport=httpx.MockTransport(answer))
    return made


def test_a_server_is_asked_for_raw_scores_in_order() -> None:
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        asked.append(body)
        scores = [float(text) for text in body["documents"]]
        return httpx.Response(200, json={"scores": scores, "usage": {"prompt_tokens": 7, "total_tokens": 7}})

    requests = [RerankRequest(f"q{n}", (str(n), str(-n)), instruction="i") for n in range(20)]
    found = list(scorer(answer).score(requests))
    assert [scores.scores.tolist() for scores in found] == [[n, -n] for n in range(20)]
    assert {scores.tokens for scores in found} == {7}
    assert all(body["raw_scores"] and body["model"] == "docs" and body["instruction"] == "i" for body in asked)


def test_a_few_queries_are_asked_for_at_once() -> None:
    together = threading.Barrier(4, timeout=10)

    def answer(request: httpx.Request) -> httpx.Response:
        together.wait()
        return httpx.Response(200, json={"scores": [0.0]})

    assert len(list(scorer(answer).score(RerankRequest(str(n), ("a",)) for n in range(8)))) == 8


def test_a_document_that_failed_is_not_a_number() -> None:
    (found,) = scorer(lambda request: httpx.Response(200, json={"scores": [None, 1.5]})).score(
        [RerankRequest("q", ("a", "b"))]
    )
    assert math.isnan(found.scores[0])
    assert found.scores[1] == 1.5


def test_a_server_that_refuses_ends_the_run_with_one_line() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(401, json={"code": "unauthorized", "message": "no such key"})

    with pytest.raises(RerankdError, match=r"the server at http://server\.test: no such key"):
        list(scorer(answer).score(RerankRequest(str(n), ("a",)) for n in range(50)))


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="base_url"):
        ServerScorer("localhost", None)


CARD = {"name": "docs", "fingerprint": "f1", "template": "t1", "instruction": "find", "max_pair_tokens": 400}
INFO = {"models": [CARD], "engine": "native", "model_dtype": "float32", "device": "cuda:0"}


def test_what_a_server_serves_decides_which_kept_scores_are_its() -> None:
    identity = scorer(lambda request: httpx.Response(200, json=INFO)).identity
    assert identity["revision"] == "f1"
    assert identity["default_instruction"] == "find"
    assert identity["device"] == "cuda"


def test_a_name_that_is_not_served_is_refused() -> None:
    other = INFO | {"models": [CARD | {"name": "other"}]}
    with pytest.raises(EvaluationError, match=r"there is no docs at http://server\.test; it serves other"):
        _ = scorer(lambda request: httpx.Response(200, json=other)).identity


def test_a_server_out_of_reach_is_said_in_one_line() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with pytest.raises(RerankdError, match="the connection failed: refused"):
        _ = scorer(answer).identity
