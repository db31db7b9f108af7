from __future__ import annotations

import httpx
import pytest
from tests.standin import StandInService, served


async def test_the_list_reads_like_openais(client: httpx.AsyncClient) -> None:
    body = (await client.get("/v1/models")).json()
    assert body["object"] == "list"
    assert [(row["id"], row["object"], row["model_type"]) for row in body["data"]] == [
        ("tiny", "model", "rerank"),
        ("other", "model", "rerank"),
    ]


async def test_one_name_can_be_asked_for(client: httpx.AsyncClient) -> None:
    assert (await client.get("/v1/models/other")).json()["model_type"] == "rerank"
    assert (await client.get("/v1/models/unknown")).status_code == 404


async def test_the_first_key_of_model_type_is_what_dify_looks_for(client: httpx.AsyncClient) -> None:
    body = (await client.get("/info")).json()
    assert next(iter(body["model_type"])) == "reranker"
    assert (body["model_id"], body["max_input_length"], body["max_client_batch_size"]) == ("tiny", 8192, 1000)
    assert body["template"] == {"name": "qwen3-reranker", "revision": "abc"}
    assert [model["name"] for model in body["models"]] == ["tiny", "other"]


@pytest.mark.parametrize(
    "path", ["/tei/info", "/infinity/models", "/nvidia/v1/models", "/xinference/v1/models/tiny", "/v1/cluster/auth"]
)
async def test_mounts_answer_what_their_clients_ask_first(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.get(path)).status_code == 200


async def test_while_loading_there_is_nothing_to_tell_yet(client: httpx.AsyncClient, service: StandInService) -> None:
    service.models = None
    for path in ("/info", "/v1/models", "/v1/models/tiny"):
        response = await client.get(path)
        assert response.status_code == 503
        assert int(response.headers["retry-after"]) >= 1


@pytest.mark.promise("U4")
@pytest.mark.parametrize("mount", ["", "/xinference"])
async def test_a_name_may_have_a_slash(client: httpx.AsyncClient, service: StandInService, mount: str) -> None:
    assert service.models is not None
    service.models["Qwen/Qwen3-Reranker-0.6B"] = served("Qwen/Qwen3-Reranker-0.6B")
    for slash in ("/", "%2F"):
        response = await client.get(f"{mount}/v1/models/Qwen{slash}Qwen3-Reranker-0.6B")
        assert response.json()["id"] == "Qwen/Qwen3-Reranker-0.6B"


@pytest.mark.promise("P6")
@pytest.mark.parametrize(
    ("model", "shown"),
    [
        ("/srv/secret/Qwen3-Reranker-4B/", "Qwen3-Reranker-4B"),
        ("./models/mine", "mine"),
        ("~/models/mine", "mine"),
        ("Qwen/Qwen3-Reranker-0.6B", "Qwen/Qwen3-Reranker-0.6B"),
        ("tiny", "tiny"),
    ],
)
async def test_where_a_model_lies_is_not_told(
    client: httpx.AsyncClient, service: StandInService, model: str, shown: str
) -> None:
    assert service.models is not None
    service.models["tiny"].loaded.source.model = model
    response = await client.get("/info")
    assert response.json()["model_id"] == response.json()["models"][0]["model"] == shown
    assert "secret" not in response.text
