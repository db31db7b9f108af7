from __future__ import annotations

import re

import httpx
import pytest
from tests.standin import StandInService

from rerankd.http.app import create_app
from rerankd.http.auth import OPEN_ROUTES
from rerankd.http.playground_routes import FILES, PAGE
from rerankd.settings import Settings


def connected(**settings: object) -> httpx.AsyncClient:
    app = create_app(Settings(**settings), StandInService())  # type: ignore[arg-type]
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost")


@pytest.mark.parametrize("path", FILES)
async def test_a_file_is_served_with_its_type_and_a_strict_policy(path: str) -> None:
    async with connected() as client:
        answer = await client.get(path)
        again = await client.get(path, headers={"If-None-Match": answer.headers["etag"]})
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert re.search("html|css|javascript|svg", answer.headers["content-type"])
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("path", FILES)
async def test_no_file_names_another_host(path: str) -> None:
    async with connected() as client:
        text = (await client.get(path)).text
    assert set(re.findall(r"https?://[\w.-]+", text)) <= {"http://www.w3.org"}


async def test_the_page_needs_no_key_and_what_it_asks_does() -> None:
    async with connected(api_keys="me:secret") as client:
        assert (await client.get(PAGE)).status_code == 200
        assert (await client.get("/info")).status_code == 401


async def test_a_flag_takes_the_page_away() -> None:
    async with connected(playground=False) as client:
        assert [(await client.get(path)).status_code for path in FILES] == [404] * len(FILES)
        assert "playground" not in (await client.get("/")).json()
    async with connected() as client:
        assert (await client.get("/")).json()["playground"] == PAGE


async def test_a_slash_at_the_end_leads_to_the_page() -> None:
    async with connected() as client:
        answer = await client.get(f"{PAGE}/")
    assert answer.status_code == 308
    assert (
        httpx.URL("http://server.test/prefix/playground/").join(answer.headers["location"]).path
        == "/prefix/playground"
    )


def test_every_file_is_open_and_nothing_else_of_the_page() -> None:
    assert {path for _, path in OPEN_ROUTES if path.startswith(PAGE)} == set(FILES)
