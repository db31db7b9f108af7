from __future__ import annotations

import pytest
from tests.standin import StandInService
from tests.unit.http.conftest import Connect

from rerankd.errors import ConfigurationError

ADMIN = {"Authorization": "Bearer root-secret"}
USER = {"Authorization": "Bearer user-secret"}
KEYS = {"api_keys": "user:user-secret", "admin_keys": "root:root-secret"}


async def test_an_admin_flushes_and_reloads(connect: Connect, service: StandInService) -> None:
    client = connect(**KEYS)
    assert (await client.post("/admin/cache/flush", headers=ADMIN)).json() == {"status": "flushed"}
    assert service.flushed == 1
    reloaded = await client.post("/admin/reload", headers=ADMIN)
    assert reloaded.json() == {"status": "reloaded", "models": ["tiny", "other"]}


async def test_an_admin_reloads_one_model_by_its_name(connect: Connect, service: StandInService) -> None:
    response = await connect(**KEYS).post("/admin/reload/org/other", headers=ADMIN)
    assert response.json() == {"status": "reloaded", "models": ["org/other"]}
    assert service.reloaded == ["org/other"]


@pytest.mark.promise("P6")
async def test_a_failed_reload_says_that_the_old_models_go_on(connect: Connect, service: StandInService) -> None:
    service.reload_error = ConfigurationError("/srv/models/secret is gone")
    response = await connect(**KEYS).post("/admin/reload", headers=ADMIN)
    assert response.status_code == 500
    assert response.json()["message"] == "the reload failed and the old models go on serving; the log says why"


@pytest.mark.parametrize("path", ["/admin/reload", "/admin/reload/tiny", "/admin/cache/flush"])
async def test_a_user_key_is_not_enough(connect: Connect, service: StandInService, path: str) -> None:
    client = connect(**KEYS)
    assert (await client.post(path)).status_code == 401
    assert (await client.post(path, headers=USER)).status_code == 403
    assert service.flushed == 0


async def test_without_admin_keys_nobody_is_an_admin(connect: Connect) -> None:
    assert (await connect().post("/admin/cache/flush")).status_code == 401
    client = connect(api_keys="user:user-secret")
    assert (await client.post("/admin/cache/flush", headers=USER)).status_code == 403


async def test_an_admin_key_opens_the_rest_too(connect: Connect) -> None:
    response = await connect(**KEYS).post("/rerank", json={"query": "q", "documents": ["d"]}, headers=ADMIN)
    assert response.status_code == 200


async def test_an_admin_sees_what_the_cache_holds(connect: Connect, service: StandInService) -> None:
    client = connect(**KEYS)
    found = (await client.get("/admin/cache", headers=ADMIN)).json()
    assert found == {"cache": "off", "entries": None, "capacity": None, "reachable": True, "hits": 0, "misses": 0}
    assert (await client.get("/admin/cache", headers=USER)).status_code == 403
