"""Section S: every route needs a key but a short list, whatever a path is written like."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from fastapi import FastAPI
from starlette.routing import Route
from tests.figures import Measured
from tests.standin import StandInService

from rerankd.http import playground_routes
from rerankd.http.app import create_app
from rerankd.http.auth import OPEN_ROUTES
from rerankd.settings import Settings
from rerankd.wire.registry import ROUTES

USER = {"Authorization": "Bearer user-secret"}
ADMIN = {"Authorization": "Bearer admin-secret"}
BODY = {"query": "q", "documents": ["d"]}


@pytest.fixture
def app() -> FastAPI:
    settings = Settings(api_keys="user:user-secret", admin_keys="root:admin-secret")
    return create_app(settings, StandInService())


@pytest.fixture
def client(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost")


def discovered(app: FastAPI) -> Iterator[tuple[str, str]]:
    """Every method and path that the application answers: the wire's table, and what its router has."""
    yield from (("POST", known.path) for known in ROUTES)
    for route in app.routes:
        assert isinstance(route, Route), f"a kind of route that this test does not know: {route!r}"
        yield from ((method, route.path) for method in route.methods or ())


def concrete(path: str) -> str:
    return path.replace("{name}", "tiny").replace("{model}", "tiny")


@pytest.mark.promise("S-01")
async def test_every_route_needs_a_key_except_the_list(
    app: FastAPI, client: httpx.AsyncClient, measured: Measured
) -> None:
    routes = sorted(set(discovered(app)))
    closed = [route for route in routes if route not in OPEN_ROUTES]
    assert {path for _, path in routes} >= {"/rerank", "/docs", "/openapi.json", "/metrics", "/admin/reload", "/info"}
    for method, path in closed:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"x-api-key": "wrong"}):
            response = await client.request(method, concrete(path), headers=headers, json=BODY)
            assert response.status_code == 401, f"{method} {path} answered {response.status_code} without a key"
        response = await client.request(method, concrete(path), headers=ADMIN, json=BODY)
        assert response.status_code not in (401, 403, 405), f"{method} {path} stays closed with a key"
    measured(
        "S-01", "every route without, with a wrong, with a key", "401, 401, open", f"{len(closed)} closed routes"
    )


async def test_the_open_list_is_what_a_load_balancer_needs_and_no_more(client: httpx.AsyncClient) -> None:
    handshakes = {"/v1/cluster/auth", "/xinference/v1/cluster/auth"}
    open_paths = {"/", "/health", "/livez", "/readyz", "/ping", *handshakes, *playground_routes.FILES}
    assert {path for _, path in OPEN_ROUTES} == open_paths
    for method, path in OPEN_ROUTES:
        assert (await client.request(method, path)).status_code == 200


@pytest.mark.promise("S-02")
@pytest.mark.parametrize(
    "path",
    [
        "/rerank/",
        "//rerank",
        "/rerank//",
        "/./rerank",
        "/livez/../rerank",
        "/RERANK",
        "/Rerank",
        "/%72erank",
        "/rerank%2f",
        "/rerank%00",
        "/rerank;x=1",
        "/rerank?x=/livez",
        "/livez%2f..%2frerank",
        "/livez/rerank",
        "/livez;/rerank",
        "/tei/rerank/",
        "/admin/reload/",
        "//admin/reload",
        "/Admin/reload",
    ],
)
async def test_no_spelling_of_a_path_opens_it(client: httpx.AsyncClient, measured: Measured, path: str) -> None:
    response = await client.post(path, json=BODY)
    measured("S-02", path, "401", str(response.status_code))
    assert response.status_code == 401


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "TRACE", "LINK"])
async def test_no_method_opens_a_path(client: httpx.AsyncClient, method: str) -> None:
    assert (await client.request(method, "/rerank", json=BODY)).status_code == 401


async def test_the_open_paths_are_open_for_reading_alone(client: httpx.AsyncClient) -> None:
    for path in ("/", "/health", "/livez"):
        assert (await client.post(path, json=BODY)).status_code == 401


@pytest.mark.promise("S-03")
async def test_a_bare_options_needs_a_key(client: httpx.AsyncClient, measured: Measured) -> None:
    status = (await client.options("/rerank")).status_code
    measured("S-03", "OPTIONS without a key", "401", str(status))
    assert status == 401


@pytest.mark.promise("S-03")
@pytest.mark.parametrize("origin", ["https://page.example", "https://evil.example"])
async def test_a_preflight_tells_nothing_and_names_only_listed_origins(origin: str, measured: Measured) -> None:
    settings = Settings(api_keys="user:user-secret", cors_origins="https://page.example")
    transport = httpx.ASGITransport(create_app(settings, StandInService()))
    headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        response = await client.options("/rerank", headers=headers)
        answer = await client.post("/rerank", json=BODY, headers=USER | {"Origin": origin})
    allowed = response.headers.get("access-control-allow-origin")
    measured("S-03", f"preflight from {origin}", "only the listed origin", str(allowed))
    listed = origin == "https://page.example"
    assert allowed == (origin if listed else None)
    assert answer.headers.get("access-control-allow-origin") == (origin if listed else None)
    assert "access-control-allow-credentials" not in response.headers
    assert "query" not in response.text


@pytest.mark.promise("S-04")
async def test_admin_routes_need_an_admin_key(app: FastAPI, client: httpx.AsyncClient, measured: Measured) -> None:
    admin = [(method, path) for method, path in discovered(app) if path.startswith("/admin")]
    assert len(admin) >= 2
    for method, path in admin:
        assert (await client.request(method, path, headers=USER)).status_code == 403
        # The stand-in has no experiments: those routes are let through, and say so.
        found = 404 if "/experiments" in path else 200
        assert (await client.request(method, path, headers=ADMIN)).status_code == found
    measured("S-04", f"{len(admin)} admin routes with a user's key", "403", "403")


@pytest.mark.promise("S-06")
async def test_by_default_only_this_machine_is_served_and_no_origin_allowed(measured: Measured) -> None:
    settings = Settings()
    transport = httpx.ASGITransport(create_app(settings, StandInService()))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        response = await client.post("/rerank", json=BODY, headers={"Origin": "https://page.example"})
    measured("S-06", "bind and CORS by default", "127.0.0.1, no header", settings.host)
    assert settings.host == "127.0.0.1"
    assert not [name for name in response.headers if name.startswith("access-control")]
