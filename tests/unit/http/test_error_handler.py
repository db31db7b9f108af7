from __future__ import annotations

import httpx
import pytest
from fastapi import FastAPI
from tests.standin import StandInService
from tests.unit.http.conftest import Connect

from rerankd import errors
from rerankd.errors import ServiceError

BODY = {"query": "the text of the query", "documents": ["the text of the document"]}

ANSWERED = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, ServiceError) and kind is not errors.ClientClosed
]


def raising(error: Exception) -> StandInService:
    def act(context: object) -> None:
        raise error

    return StandInService(act)


@pytest.mark.parametrize("kind", ANSWERED)
async def test_every_error_becomes_its_status_and_code(
    kind: type[ServiceError], connect: Connect, service: StandInService
) -> None:
    def act(context: object) -> None:
        raise kind("what went wrong", retry_after=3 if kind.retryable else None)

    service.act = act
    response = await connect().post("/rerank", json=BODY)
    # Clients of the documents shape read a 422 as a list of field errors and crash on anything else.
    assert response.status_code == (400 if kind.status == 422 else kind.status)
    assert response.json()["code"] == kind.code
    assert response.json()["message"] == "what went wrong"
    assert response.headers.get("retry-after") == ("3" if kind.retryable else None)


async def test_an_unforeseen_exception_tells_the_request_id_and_nothing_else(
    connect: Connect, service: StandInService
) -> None:
    def act(context: object) -> None:
        raise RuntimeError("secret /path/of/ours and the text of the query")

    service.act = act
    response = await connect().post("/rerank", json=BODY, headers={"X-Request-Id": "mine"})
    assert response.status_code == 500
    assert response.json()["code"] == "internal_error"
    assert response.json()["request_id"] == "mine"
    assert "secret" not in response.text
    assert "text of the query" not in response.text


async def test_an_unknown_path_is_told_the_right_ones_and_not_repeated(client: httpx.AsyncClient) -> None:
    response = await client.post("/no/such/<script>path", json=BODY)
    assert response.status_code == 404
    assert "POST /rerank" in response.json()["message"]
    assert "script" not in response.text


async def test_a_base_url_entered_twice_is_told_the_near_path(client: httpx.AsyncClient) -> None:
    response = await client.post("/rerank/rerank", json=BODY)
    assert response.status_code == 404
    assert "did you mean POST /" in response.json()["message"]


@pytest.mark.parametrize(("method", "path", "allow"), [("GET", "/rerank", "POST"), ("POST", "/info", "GET")])
async def test_a_wrong_method_is_told_the_right_one(
    client: httpx.AsyncClient, method: str, path: str, allow: str
) -> None:
    response = await client.request(method, path)
    assert response.status_code == 405
    assert response.headers["allow"] == allow
    assert response.json()["code"] == "method_not_allowed"


async def test_the_error_has_the_shape_of_the_dialect_of_its_path(connect: Connect) -> None:
    response = await connect(api_keys="a:b").post("/tei/rerank", json={"query": "q", "texts": ["t"]})
    assert response.status_code == 401
    assert set(response.json()) == {"error", "error_type"}


async def test_a_wrong_field_of_a_megabyte_is_not_sent_back(client: httpx.AsyncClient) -> None:
    for body in (
        {"query": "q", "documents": [{"x" * 1_000_000: 1}]},
        {"query": {"text": ["x" * 1_000_000]}, "documents": ["d"]},
        {"query": "q", "documents": ["d"], "top_n": "x" * 1_000_000},
    ):
        response = await client.post("/rerank", json=body)
        assert response.status_code == 400
        assert len(response.content) < 4096
        assert "xxxx" not in response.text


async def test_fastapi_itself_answers_nothing(app: FastAPI, client: httpx.AsyncClient) -> None:
    response = await client.get("/v1/models/no-such-model")
    assert response.json()["code"] == "not_found"
