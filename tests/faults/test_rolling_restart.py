"""E-05: two processes behind the shipped nginx configuration, restarted one after the other under load."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from tests.figures import Measured
from tests.live import ROOT, LiveServer, free_port

NGINX = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
FLAGS = (
    "--engine",
    "fake",
    "--drain-grace-seconds",
    "1",
    "--cache",
    "off",
    "--fake-script",
    "seconds_per_batch=0.01",
)
RATE = 50
SECONDS = 60
"""Of load at least."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(NGINX is None, reason="needs nginx"),
]


@contextlib.contextmanager
def proxy(folder: Path, ports: list[int]) -> Iterator[str]:
    """nginx with the shipped configuration, whose three addresses alone are changed."""
    own = free_port()
    shutil.copytree(ROOT / "deploy" / "nginx", folder, dirs_exist_ok=True)
    for name, addresses in (
        ("nginx.conf", {8080: own}),
        ("least-connections.conf", dict(zip((8000, 8001), ports, strict=True))),
    ):
        text = (folder / name).read_text()
        for shipped, port in addresses.items():
            text = text.replace(f"127.0.0.1:{shipped}", f"127.0.0.1:{port}")
        (folder / name).write_text(text)
    assert NGINX is not None
    log = (folder / "nginx.log").open("wb")
    process = subprocess.Popen(
        [NGINX, "-p", str(folder), "-c", "nginx.conf", "-g", "daemon off; user root;"], stdout=log, stderr=log
    )
    try:
        yield f"http://127.0.0.1:{own}"
    finally:
        process.terminate()
        process.wait()
        log.close()


async def send_at_a_rate(url: str, statuses: Counter[int], stop: asyncio.Event) -> None:
    """``RATE`` requests a second, whether answers came or not; 0 counts what broke."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
    async with httpx.AsyncClient(base_url=url, timeout=30, limits=limits) as client, asyncio.TaskGroup() as group:

        async def one(number: int) -> None:
            body = {"query": f"q{number}", "documents": ["a", "b"]}
            try:
                statuses[(await client.post("/rerank", json=body)).status_code] += 1
            except httpx.TransportError:
                statuses[0] += 1

        started, number = time.monotonic(), 0
        while not stop.is_set():
            group.create_task(one(number))
            number += 1
            await asyncio.sleep(max(0.0, started + number / RATE - time.monotonic()))


def restart(server: LiveServer) -> LiveServer:
    """SIGTERM, wait for the end, start again on the same port."""
    assert server.stop() == 0
    return LiveServer(*FLAGS, log=server.log, port=server.port).wait_ready()


class Behind:
    """Two processes behind the shipped nginx, and what became of the requests at them."""

    def __init__(self, folder: Path) -> None:
        self.servers = [LiveServer(*FLAGS, log=folder / f"server{number}.log") for number in range(2)]
        self.statuses: Counter[int] = Counter()
        self._folder = folder

    @contextlib.asynccontextmanager
    async def load(self) -> AsyncIterator[None]:
        """Requests at a rate while the block runs."""
        for server in self.servers:
            server.wait_ready()
        with proxy(self._folder, [server.port for server in self.servers]) as url:
            await asyncio.sleep(0.5)
            stop = asyncio.Event()
            load = asyncio.create_task(send_at_a_rate(url, self.statuses, stop))
            try:
                yield
            finally:
                stop.set()
                await load

    def end(self) -> None:
        for server in self.servers:
            server.process.kill()
            server.process.wait()


@pytest.fixture
def behind(tmp_path: Path) -> Iterator[Behind]:
    found = Behind(tmp_path)
    yield found
    found.end()


@pytest.mark.promise("E-05")
async def test_a_rolling_restart_loses_nothing(behind: Behind, measured: Measured) -> None:
    started = time.monotonic()
    async with behind.load():
        for number in range(2):
            await asyncio.sleep(2)
            behind.servers[number] = await asyncio.to_thread(restart, behind.servers[number])
        await asyncio.sleep(max(2.0, SECONDS - (time.monotonic() - started)))
        seconds = time.monotonic() - started
    statuses = behind.statuses
    measured(
        "E-05",
        f"2 processes, nginx, {RATE} req/s for {SECONDS} s, each restarted",
        "0 failed",
        f"{dict(statuses)} in {seconds:.0f} s",
    )
    assert statuses.total() > RATE
    assert set(statuses) == {200}


@pytest.mark.promise("L-01")
async def test_a_killed_process_loses_only_what_it_had(behind: Behind, measured: Measured) -> None:
    async with behind.load():
        await asyncio.sleep(2)
        victim = behind.servers[0]
        victim.process.kill()
        victim.process.wait()
        killed = time.monotonic()
        again = LiveServer(*FLAGS, log=victim.log, port=victim.port)
        behind.servers[0] = await asyncio.to_thread(again.wait_ready)
        back = time.monotonic() - killed
        await asyncio.sleep(2)
    lost = behind.statuses.total() - behind.statuses[200]
    measured(
        "L-01", "1 of 2 processes behind nginx killed", "lost <= in flight, back < 60 s", f"{lost} lost, {back:.0f} s"
    )
    assert lost <= RATE  # a second of requests, were none tried on the other
    assert behind.statuses[200] > RATE
