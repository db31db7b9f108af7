"""A real Prometheus scrapes a real server, and every panel of the dashboard has data from it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
import yaml
from tests.deploy.test_files import DEPLOY, needs, panels
from tests.figures import Measured
from tests.live import LiveServer, free_port, running_server
from tests.served import POISON_WORD, poison_script

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@contextlib.contextmanager
def prometheus(folder: Path, target: str) -> Iterator[str]:
    """Prometheus with the shipped rules, every second instead of every fifteen."""
    shutil.copy(DEPLOY / "prometheus" / "rules.yml", folder / "rules.yml")
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yml"],
        "scrape_configs": [{"job_name": "rerankd", "static_configs": [{"targets": [target]}]}],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{free_port()}"
    command = [
        needs("prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
        "--log.level=error",
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait()


async def everything_happens(server: LiveServer) -> None:
    """Answers, hits, refusals, a failed pass, a lost pair, and work that nobody waits for any more."""
    async with httpx.AsyncClient(base_url=server.url, timeout=30) as client:

        async def ask(query: str, *documents: str, milliseconds: int = 20_000) -> int:
            response = await client.post(
                "/rerank",
                json={"query": query, "documents": documents},
                headers={"X-Request-Timeout-Ms": str(milliseconds)},
            )
            return response.status_code

        assert await ask("q", "x" + POISON_WORD) == 500
        assert [await ask("q", "a"), await ask("q", "a")] == [200, 200]
        statuses = await asyncio.gather(*(ask(f"{uuid4()}", "a", milliseconds=400) for _ in range(30)))
        assert {429, 504} & set(statuses)
        running = asyncio.create_task(ask(f"{uuid4()}", "a"))
        await asyncio.sleep(0.1)
        with pytest.raises(httpx.ReadTimeout):
            await client.post("/rerank", json={"query": f"{uuid4()}", "documents": ["a"]}, timeout=0.2)
        assert await running == 200


def has_data(url: str, query: str) -> bool:
    found = httpx.get(f"{url}/api/v1/query", params={"query": query}, timeout=10).json()
    return any(not math.isnan(float(series["value"][1])) for series in found["data"]["result"])


@pytest.mark.promise("panels")
def test_every_panel_has_data_from_a_running_server(tmp_path: Path, measured: Measured) -> None:
    script = f"seconds_per_batch=0.6,{poison_script('fail_on')}"
    queries = {target["expr"]: panel["title"] for panel in panels() for target in panel.get("targets", ())}
    assert len(queries) > 10
    flags = ("--engine", "fake", "--fake-script", script, "--queue-requests", "4", "--max-batch-tokens", "40")
    with (
        running_server(*flags, log=tmp_path / "log") as server,
        prometheus(tmp_path, f"127.0.0.1:{server.port}") as url,
    ):
        until = time.monotonic() + 90
        missing = set(queries)
        while missing and time.monotonic() < until:
            asyncio.run(everything_happens(server))
            time.sleep(2)
            with contextlib.suppress(httpx.TransportError):
                missing = {query for query in missing if not has_data(url, query)}
        alerts = json.loads(httpx.get(f"{url}/api/v1/rules").text)["data"]["groups"]
    have = len(queries) - len(missing)
    measured("panels", "queries of the dashboard", f"{len(queries)} with data", f"{have} with data")
    assert {queries[query]: query for query in missing} == {}
    rules = [rule for group in alerts for rule in group["rules"]]
    assert {rule["health"] for rule in rules} == {"ok"}
