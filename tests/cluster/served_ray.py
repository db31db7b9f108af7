"""A served Ray cluster, for tests."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import httpx
from tests.live import LiveServer

from rerankd.cluster.messages import Call, Reply
from rerankd.cluster.routing import prefix_key
from rerankd.types import RerankRequest


@dataclasses.dataclass
class Cluster:
    """A served cluster, and the way to its replicas beside HTTP."""

    server: LiveServer
    handle: Any

    @property
    def url(self) -> str:
        return self.server.url

    async def send(self, call: Call) -> Reply:
        reply: Reply = await self.handle.rerank.remote(call)
        return reply


def call_of(query: str, *documents: str, avoid: set[str] | None = None, name: str = "tiny") -> Call:
    request = RerankRequest(query, documents or ("a",))
    key = prefix_key(name, None, query)
    return Call((request,), "id", 20.0, "tenant", True, name, key, frozenset(avoid or ()))


def start(address: str, folder: Path, *flags: str) -> Cluster:
    from ray import serve

    server = LiveServer(
        *("--ray", "--engine", "fake", "--ray-replica-cpus", "0.5", "--log-format", "json", *flags),
        log=folder / "ray.log",
        env={"RAY_ADDRESS": address},
    )
    try:
        server.wait_ready(240)
    except AssertionError:
        # The next one would find Serve running, at this one's port.
        server.stop()
        raise
    return Cluster(server, serve.get_deployment_handle("engine", "rerankd"))


async def post(url: str, query: str, documents: tuple[str, ...] = ("a", "b"), **options: Any) -> httpx.Response:
    async with httpx.AsyncClient(timeout=options.pop("timeout", 60)) as client:
        body = {"query": query, "documents": list(documents)}
        return await client.post(f"{url}/rerank", json=body, **options)


def engine_pids() -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if command.startswith(b"ray::ServeReplica:rerankd:engine"):
            found.append(int(folder.name))
    return sorted(found)
