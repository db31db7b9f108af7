"""rerankd cache: what a server's or a Redis's score cache holds, and how it is emptied."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner, Result
from tests.live import NO_GRACE, LiveServer, free_port, running_server
from tests.redis_fixtures import RedisServer

from rerankd.cli.main import cli

pytestmark = pytest.mark.timeout(600)

BODY = {"query": "q", "documents": ["one", "two", "three"]}


def run(*arguments: str, text: str = "") -> Result:
    return CliRunner().invoke(cli, ["cache", *arguments], input=text, catch_exceptions=False)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    log = tmp_path_factory.mktemp("cache") / "server.log"
    with running_server("--engine", "fake", log=log, env={"RERANKD_ADMIN_KEYS": "root:root-secret"}) as server:
        yield server


def figures(server: LiveServer) -> dict[str, object]:
    done = run("stats", server.url, "--admin-key", "root-secret", "--json")
    assert done.exit_code == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_a_servers_cache_is_looked_at_and_emptied(server: LiveServer) -> None:
    for _ in range(2):
        httpx.post(f"{server.url}/rerank", json=BODY, timeout=30).raise_for_status()
    assert figures(server) == {
        "cache": "memory",
        "entries": 3,
        "capacity": 64 * 1024 * 1024 // 384,
        "reachable": True,
        "hits": 3,
        "misses": 3,
    }
    table = run("stats", server.url, "--admin-key", "root-secret").stdout
    lines = dict(line.split() for line in table.splitlines())
    assert (lines["entries"], lines["capacity"], lines["reachable"]) == ("3", "174,762", "yes")
    assert run("clear", server.url, "--admin-key", "root-secret", text="n\n").exit_code == 1
    assert figures(server)["entries"] == 3
    assert run("clear", server.url, "--admin-key", "root-secret", "--yes").stdout == "the cache is empty\n"
    assert figures(server)["entries"] == 0


def test_without_the_admin_key_it_is_refused(server: LiveServer) -> None:
    for key in ((), ("--admin-key", "wrong")):
        done = run("stats", server.url, *key)
        assert done.exit_code == 2
        assert "401" in done.stderr
        assert "--admin-key" in done.stderr
        assert "wrong" not in done.stderr


def test_an_address_where_nothing_listens_is_one_line(tmp_path: Path) -> None:
    done = run("stats", f"http://127.0.0.1:{free_port()}")
    assert done.exit_code == 2
    assert len(done.stderr.splitlines()) == 1
    assert run("clear", f"redis://127.0.0.1:{free_port()}/0", "--yes").exit_code == 2


@pytest.mark.redis
def test_a_redis_is_looked_at_and_only_its_scores_are_forgotten(redis_server: RedisServer, tmp_path: Path) -> None:
    flags = ("--engine", "fake", "--cache", redis_server.url, *NO_GRACE)
    with running_server(*flags, log=tmp_path / "server.log") as server:
        httpx.post(f"{server.url}/rerank", json=BODY, timeout=30).raise_for_status()
        # Scores are written behind the answer; a server that is told to end writes what waits.
        server.process.terminate()
        server.process.wait(timeout=60)
    redis_server.send("SET", "another", "key")
    assert json.loads(run("stats", redis_server.url, "--json").stdout) == {"cache": "redis", "entries": 3}
    assert run("clear", redis_server.url, "--yes").stdout == "3 scores forgotten\n"
    assert json.loads(run("stats", redis_server.url, "--json").stdout)["entries"] == 0
    assert redis_server.send("GET", "another") == b"$3"
