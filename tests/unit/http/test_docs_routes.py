from __future__ import annotations

import re

import httpx
import pytest

from rerankd.http.docs_routes import ASSETS


async def test_the_page_and_all_that_it_loads_come_from_this_server(client: httpx.AsyncClient) -> None:
    page = await client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(loaded) == 4
    for path in loaded:
        assert "//" not in path
        response = await client.get(f"/{path}")
        assert response.status_code == 200
        assert len(response.content) > 100


async def test_the_browser_is_told_to_ask_no_other_host(client: httpx.AsyncClient) -> None:
    policy = (await client.get("/docs")).headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy
    assert "unsafe-eval" not in policy
    start = (await client.get("/docs/assets/start.js")).text
    assert "validatorUrl: null" in start


async def test_the_document_has_the_version_that_most_generators_read(client: httpx.AsyncClient) -> None:
    # test_docs_page.py looks with a browser at what the page shows of it.
    document = (await client.get("/openapi.json")).json()
    assert re.fullmatch(r"3\.0\.[0-3]", document["openapi"])


@pytest.mark.parametrize("name", ["index.html", "swagger-ui.js", "..%2f__init__.py", "%2e%2e/%2e%2e/__init__.py"])
async def test_nothing_else_of_the_folder_is_served(client: httpx.AsyncClient, name: str) -> None:
    assert name not in ASSETS
    assert (await client.get(f"/docs/assets/{name}")).status_code == 404


@pytest.mark.promise("U18")
@pytest.mark.parametrize("path", ["/docs/", "/docs//"])
async def test_a_slash_behind_the_page_leads_to_the_page(client: httpx.AsyncClient, path: str) -> None:
    response = await client.get(f"http://localhost{path}", follow_redirects=True)
    assert response.url.path == "/docs"
    assert response.status_code == 200
