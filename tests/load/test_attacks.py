"""Normal traffic with and without the attacks of ``attacks.py`` beside it; ``ATTACK_SECONDS`` makes the hour shorter.

Quiet and attacked spells take turns, so that whatever else the machine does falls on both alike.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import pytest
from tests.figures import Measured
from tests.live import LiveServer, running_server
from tests.load.attacks import ATTACKS
from tests.load.test_soak import Oracle
from tests.traffic import at_rate, rss_mb

SECONDS = float(os.environ.get("ATTACK_SECONDS", "3600"))
SPELL = 60.0
RATE = 5.0
CAPITALS = {"Paris": "France", "Berlin": "Germany", "Rome": "Italy", "Madrid": "Spain", "Vienna": "Austria"}
QUERY = "What is the capital of France?"
DOCUMENTS = [f"{city} is the capital of {country}." for city, country in CAPITALS.items()]
KEYS = {"normal": "a-secret-of-callers", "attacker": "another-secret"}
FLAGS = (
    *(
        "--engine",
        "fake",
        "--fake-script",
        "seconds_per_batch=0.004,seconds_per_token=0.00001",
        "--log-level",
        "error",
    ),
    *("--api-keys", ",".join(f"{name}:{secret}" for name, secret in KEYS.items())),
)


def headers(name: str) -> dict[str, str]:
    """Each caller has a key, and so a share of the queue, of its own."""
    return {"Authorization": f"Bearer {KEYS[name]}", "Cache-Control": "no-cache"}


@dataclass
class Traffic:
    """What normal callers saw."""

    truth: list[float]
    seconds: dict[str, list[float]] = field(default_factory=lambda: {"quiet": [], "attacked": []})
    statuses: Counter[int] = field(default_factory=Counter)
    wrong: int = 0

    async def ask(self, client: httpx.AsyncClient, spell: str) -> None:
        """One small request, never answered from the cache."""
        started = time.perf_counter()
        response = await client.post("/rerank", json={"query": QUERY, "documents": DOCUMENTS})
        self.seconds[spell].append(time.perf_counter() - started)
        self.statuses[response.status_code] += 1
        if response.status_code == 200:
            self.wrong += not np.allclose(response.json()["scores"], self.truth, rtol=1e-9)


async def attack_until(end: float, url: str, numbers: itertools.count[int]) -> None:
    """Every attack in turn, two at a time, from callers of their own."""
    async with httpx.AsyncClient(base_url=url, headers=headers("attacker")) as client:

        async def one_after_another(first: int) -> None:
            for attack in itertools.islice(itertools.cycle(ATTACKS), first, None):
                if time.monotonic() > end:
                    return
                await attack(client, next(numbers))

        await asyncio.gather(one_after_another(0), one_after_another(len(ATTACKS) // 2))


async def spell_of(name: str, traffic: Traffic, server: LiveServer, numbers: itertools.count[int]) -> None:
    end = time.monotonic() + min(SPELL, SECONDS / 4)
    async with (
        httpx.AsyncClient(base_url=server.url, headers=headers("normal"), timeout=60) as client,
        asyncio.TaskGroup() as group,
    ):
        if name == "attacked":
            group.create_task(attack_until(end, server.url, numbers))
        await at_rate(RATE, end - time.monotonic(), lambda number: traffic.ask(client, name))


@pytest.mark.soak
@pytest.mark.promise("K-03")
async def test_attacks_do_not_reach_normal_callers(tmp_path: Path, measured: Measured) -> None:
    with running_server(*FLAGS, log=tmp_path / "server.log") as server:
        traffic = Traffic(Oracle().scores(QUERY, DOCUMENTS))
        numbers = itertools.count()
        memory: list[float] = []
        started = time.monotonic()
        while time.monotonic() - started < SECONDS:
            for name in ("quiet", "attacked"):
                await spell_of(name, traffic, server, numbers)
            memory.append(rss_mb(server.process.pid))
            print(memory[-1], {name: _p99(seconds) for name, seconds in traffic.seconds.items()}, flush=True)
    quiet, attacked = (_p99(traffic.seconds[name]) for name in ("quiet", "attacked"))
    later = memory[len(memory) // 6 :]
    measured(
        "K-03",
        f"{next(numbers)} attacks of section A in {SECONDS:.0f} s beside {RATE:g} requests a second",
        "p99 within 2x, 0 wrong scores, memory flat",
        f"p99 {quiet * 1000:.0f} -> {attacked * 1000:.0f} ms, {traffic.wrong} wrong, "
        f"{later[0]:.0f} -> {later[-1]:.0f} MB, {dict(traffic.statuses)}",
    )
    assert traffic.wrong == 0
    assert set(traffic.statuses) == {200}
    assert attacked <= 2 * quiet
    assert later[-1] - later[0] < 64


def _p99(seconds: list[float]) -> float:
    return float(np.percentile(seconds, 99)) if seconds else float("nan")
