from __future__ import annotations

import httpx
import pytest

from rerankd.http.request_state import request_id_from


@pytest.mark.parametrize(
    "given", [b"abc", b"Root=1-67891233-abcdef012345678912345678", b"a" * 128, b"a/b+c@d:e_f.g-h"]
)
def test_a_harmless_id_is_taken_as_it_is(given: bytes) -> None:
    assert request_id_from(given) == given.decode()


@pytest.mark.parametrize(
    "given", [None, b"", b"a" * 129, b"a b", b'a"b', b"a\nb", b"a\x1b[31m", "ä".encode(), b"<b>"]
)
def test_anything_else_is_replaced_by_a_fresh_id(given: bytes | None) -> None:
    made = {request_id_from(given), request_id_from(given)}
    assert len(made) == 2
    assert all(len(one) == 32 for one in made)


async def test_every_response_carries_the_id_of_its_request(client: httpx.AsyncClient) -> None:
    for path in ("/livez", "/nowhere", "/rerank"):
        response = await client.get(path, headers={"X-Request-Id": "mine"})
        assert response.headers["x-request-id"] == "mine"


async def test_an_error_carries_the_id_in_its_body_too(client: httpx.AsyncClient) -> None:
    response = await client.post("/rerank", content=b"{", headers={"X-Request-Id": "mine"})
    assert response.json()["request_id"] == "mine"
