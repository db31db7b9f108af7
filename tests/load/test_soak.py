"""An hour of everything at once; ``SOAK_SECONDS`` makes it shorter, ``SOAK_LOG`` says where each minute is written.

Mixed sizes at a steady rate, 1 % of the clients leave early, 0.1 % of the requests bring poison, Redis is killed
and started every five minutes, and every minute a client with requests under way is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import random
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from tests.figures import Measured
from tests.live import ROOT, LiveServer, running_server
from tests.redis_fixtures import RedisServer
from tests.served import POISON_WORD, poison_script
from tests.tokenizer_fixtures import prompts
from tests.traffic import at_rate, open_files, rss_mb

from rerankd.checkpoint import Checkpoint
from rerankd.engine.fake import fake_logit

SECONDS = float(os.environ.get("SOAK_SECONDS", "3600"))
LOG = Path(os.environ.get("SOAK_LOG", str(ROOT / "out" / "soak.jsonl")))
RATE = 15.0
REDIS_POOL = 32
"""Connections to Redis that the server keeps open once it has needed so many together."""
SIZES = (1, 1, 2, 5, 10, 10, 20, 50, 200)
WORDS = ("capital", "city", "river", "model", "query", "token", "window", "garden", "music", "paper", "stone")


class Oracle:
    """What the fake engine must say: the same prompt, hash and sigmoid, computed here."""

    def __init__(self) -> None:
        self._checkpoint = Checkpoint.open("tiny", "", "auto")

    def scores(self, query: str, documents: Sequence[str]) -> list[float]:
        template = self._checkpoint.template
        found = prompts(self._checkpoint.tokenizer, template.default_instruction, query, documents)
        return [1 / (1 + math.exp(-(template.scale * fake_logit(ids) + template.bias))) for ids in found]


@dataclass
class Soak:
    """The traffic of the soak and what came of it."""

    url: str
    oracle: Oracle
    chance: random.Random = field(default_factory=lambda: random.Random(11))
    statuses: Counter[str] = field(default_factory=Counter)
    wrong: int = 0
    scores: int = 0

    async def one(self, client: httpx.AsyncClient, number: int) -> None:
        query = f"which {self.chance.choice(WORDS)} {self.chance.randrange(300)}"
        size = self.chance.choice(SIZES)
        documents = [" ".join(self.chance.choices(WORDS, k=self.chance.randrange(3, 40))) for _ in range(size)]
        poisoned = self.chance.random() < 0.001
        if poisoned:
            documents[0] += POISON_WORD
        patience = 0.01 if self.chance.random() < 0.01 else 60
        try:
            response = await client.post("/rerank", json={"query": query, "documents": documents}, timeout=patience)
        except httpx.TimeoutException:
            self.statuses["left"] += 1
            return
        except httpx.TransportError as error:
            # Fails the soak, but not before its hour is over.
            self.statuses[type(error).__name__] += 1
            return
        self.statuses[str(response.status_code)] += 1
        if response.status_code == 200:
            self.compare(response.json()["scores"], query, documents, poisoned=poisoned)

    def compare(self, scores: list[float | None], query: str, documents: list[str], *, poisoned: bool) -> None:
        right = self.oracle.scores(query, documents)
        self.scores += len(scores)
        for index, (got, want) in enumerate(zip(scores, right, strict=True)):
            if poisoned and index == 0:
                self.wrong += got is not None
            else:
                self.wrong += got is None or not math.isclose(got, want, rel_tol=1e-9)


async def every(seconds: float, act: Any) -> None:
    while True:
        await asyncio.sleep(seconds)
        await act()


async def kill_a_client(url: str) -> None:
    """A process with requests under way that is killed."""
    client = await asyncio.create_subprocess_exec(
        sys.executable, "benchmarks/http_load.py", "--url", url, "--connections", "8", "--seconds", "30", cwd=ROOT
    )
    await asyncio.sleep(2)
    client.kill()
    await client.wait()


async def restart(redis: RedisServer) -> None:
    redis.stop()
    await asyncio.sleep(5)
    await asyncio.to_thread(redis.start)


def minute(server: LiveServer, soak: Soak, started: float) -> dict[str, Any]:
    """One line of the log."""
    pid = server.process.pid
    return {
        "seconds": round(time.monotonic() - started),
        "rss_mb": round(rss_mb(pid), 1),
        "files": open_files(pid),
        "threads": len(list(Path(f"/proc/{pid}/task").iterdir())),
        "scores": soak.scores,
        "wrong": soak.wrong,
        "statuses": dict(soak.statuses),
    }


async def files_at_rest(server: LiveServer) -> int:
    """Descriptors while no client is connected: how many there are under load is the clients' choice."""
    await asyncio.sleep(3)
    return open_files(server.process.pid)


def write(rows: list[dict[str, Any]]) -> None:
    LOG.write_text("".join(json.dumps(row) + "\n" for row in rows))


@contextlib.asynccontextmanager
async def mishaps(
    server: LiveServer, redis: RedisServer, soak: Soak, rows: list[dict[str, Any]]
) -> AsyncIterator[None]:
    started = time.monotonic()

    async def note() -> None:
        rows.append(minute(server, soak, started))
        write(rows)

    tasks = [
        asyncio.create_task(every(min(60, SECONDS / 12), note)),
        asyncio.create_task(every(min(300, SECONDS / 4), lambda: restart(redis))),
        asyncio.create_task(every(min(60, SECONDS / 6), lambda: kill_a_client(server.url))),
    ]
    try:
        yield
    finally:
        await note()
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ends), ends


def slope_mb_per_hour(rows: list[dict[str, Any]]) -> float:
    """Least squares over what follows the first sixth (ten minutes of an hour)."""
    later = [row for row in rows if row["seconds"] >= SECONDS / 6]
    seconds, memory = [row["seconds"] for row in later], [row["rss_mb"] for row in later]
    return float(np.polyfit(seconds, memory, 1)[0] * 3600)


@pytest.mark.promise("K-01")
@pytest.mark.soak
@pytest.mark.redis
async def test_an_hour_of_everything_at_once(tmp_path: Path, redis_server: RedisServer, measured: Measured) -> None:
    LOG.parent.mkdir(parents=True, exist_ok=True)
    script = f"seconds_per_batch=0.004,seconds_per_token=0.00001,{poison_script('fail_on')}"
    flags = ("--engine", "fake", "--fake-script", script, "--cache", redis_server.url, "--log-level", "error")
    rows: list[dict[str, Any]] = []
    with running_server(*flags, log=tmp_path / "server.log") as server:
        soak = Soak(server.url, Oracle())
        at_rest = await files_at_rest(server)
        async with (
            httpx.AsyncClient(base_url=server.url, limits=httpx.Limits(max_connections=200)) as client,
            mishaps(server, redis_server, soak, rows),
        ):
            await at_rate(RATE, SECONDS, lambda number: soak.one(client, number))
            probes = [(await client.get(probe)).status_code for probe in ("/livez", "/readyz")]
        left_open = await files_at_rest(server) - at_rest
    slope = slope_mb_per_hour(rows)
    threads = [row["threads"] for row in rows]
    measured(
        "K-01",
        f"soak of {SECONDS:.0f} s",
        f"0 wrong scores, RSS slope < 10 MB/h, at rest <= {REDIS_POOL} more files",
        f"{soak.wrong} of {soak.scores} wrong, {slope:+.1f} MB/h, {left_open:+d} files at rest, "
        f"threads {threads[0]} -> {threads[-1]}, {dict(soak.statuses)}",
    )
    assert soak.wrong == 0
    assert probes == [200, 200]
    assert set(soak.statuses) <= {"200", "429", "500", "left"}
    assert left_open <= REDIS_POOL
    assert threads[-1] <= threads[0] + 2
    # Over less than an hour the slope of a warming heap says nothing.
    assert slope < 10 or SECONDS < 3600
