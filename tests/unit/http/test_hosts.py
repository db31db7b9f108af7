from __future__ import annotations

from typing import Any

import pytest
from tests.unit.http.conftest import Connect

BODY = {"query": "q", "documents": ["d"]}
OWN = ["localhost", "localhost:8000", "127.0.0.1:8000", "[::1]:8000", "127.9.9.9", "x.localhost", "LOCALHOST:1"]
FOREIGN = ["evil.example", "localhost.evil.example", "10.0.0.1", "[2001:db8::1]", "127.0.0.1.nip.io", ""]


async def status(connect: Connect, name: str, method: str = "POST", path: str = "/rerank", **settings: Any) -> int:
    headers = {"Host": name, "Authorization": "Bearer b"}
    response = await connect(**settings).request(method, path, json=BODY, headers=headers)
    return response.status_code


@pytest.mark.promise("P11")
@pytest.mark.parametrize("host", OWN)
async def test_a_local_server_is_reached_under_the_names_of_its_machine(connect: Connect, host: str) -> None:
    assert await status(connect, host) == 200


@pytest.mark.promise("P11")
@pytest.mark.parametrize("host", FOREIGN)
async def test_a_local_server_without_keys_has_no_foreign_names(connect: Connect, host: str) -> None:
    assert await status(connect, host) == 403
    assert await status(connect, host, "GET", "/info") == 403


@pytest.mark.parametrize("settings", [{"api_keys": "a:b"}, {"host": "0.0.0.0", "insecure": True}])
async def test_a_key_or_an_address_of_the_world_takes_any_name(connect: Connect, settings: dict[str, Any]) -> None:
    assert await status(connect, "evil.example", **settings) == 200


@pytest.mark.parametrize(
    ("allowed", "host", "expected"),
    [
        ("rerank.example", "rerank.example:443", 200),
        ("rerank.example", "localhost", 403),
        ("a.example, *.b.example", "x.B.example", 200),
        ("*.b.example", "b.example", 403),
        ("*", "evil.example", 200),
    ],
)
async def test_a_list_of_names_is_kept_to(connect: Connect, allowed: str, host: str, expected: int) -> None:
    for settings in ({}, {"api_keys": "a:b"}):
        assert await status(connect, host, allowed_hosts=allowed, **settings) == expected


async def test_the_refusal_names_the_setting_and_not_the_host(connect: Connect) -> None:
    response = await connect().post("/rerank", json=BODY, headers={"Host": "evil.example"})
    assert "allowed_hosts" in response.json()["message"]
    assert "evil" not in response.text
