"""Normal traffic with and without the attacks of ``attacks.py`` beside it.

Quiet and attacked spells take turns, so that whatever else the machine does falls on both alike. ``ATTACK_SECONDS``
makes the hour shorter, ``ATTACK_ONLY`` names the attacks, with commas. Normal traffic is small requests, which are
timed, and one of a thousand paragraphs each second, so that the engine has batches of others at work in either spell:
what it computes of the attackers' tokens is honest work, shared fairly, and how long a batch holds it is no matter of
attacks.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import pytest
from tests.figures import Measured
from tests.live import ROOT, LiveServer, running_server
from tests.load.test_soak import Oracle
from tests.traffic import at_rate, percentile, rss_mb

SECONDS = float(os.environ.get("ATTACK_SECONDS", "3600"))
ONLY = os.environ.get("ATTACK_ONLY", "")
SPELL = min(60.0, SECONDS / 4)
RATE = 5.0
BULK_RATE = 1.0
MOST_TIMES = 2.0
MOST_GROWTH_MB = 64
CAPITALS = {"Paris": "France", "Berlin": "Germany", "Rome": "Italy", "Madrid": "Spain", "Vienna": "Austria"}
QUERY = "What is the capital of France?"
DOCUMENTS = [f"{city} is the capital of {country}." for city, country in CAPITALS.items()]
SENTENCE = "A document has about a hundred words, as paragraphs do that a search finds. "
BULK = [f"{number}: {SENTENCE * 7}" for number in range(1000)]
BULK_BODY = json.dumps({"query": "What did the search find?", "documents": BULK}).encode()
KEYS = {"normal": "a-secret-of-callers", "bulk": "a-secret-of-importers", "attacker": "another-secret"}
"""Each caller has a key, and so a share of the queue, of its own."""
FLAGS = (
    *("--engine", "fake", "--fake-script", "seconds_per_batch=0.004,seconds_per_token=0.000001"),
    *("--log-level", "error"),
    *("--api-keys", ",".join(f"{name}:{secret}" for name, secret in KEYS.items())),
)


@dataclass
class Traffic:
    """What normal callers saw, by spell."""

    truth: list[float]
    seconds: dict[str, list[float]] = field(default_factory=lambda: {"quiet": [], "attacked": []})
    statuses: Counter[int] = field(default_factory=Counter)
    wrong: int = 0

    async def ask(self, client: httpx.AsyncClient, spell: str) -> None:
        """One small request, never answered from the cache."""
        headers = {"Authorization": f"Bearer {KEYS['normal']}"}
        started = time.perf_counter()
        response = await client.post("/rerank", json={"query": QUERY, "documents": DOCUMENTS}, headers=headers)
        self.seconds[spell].append(time.perf_counter() - started)
        self.statuses[response.status_code] += 1
        if response.status_code == 200:
            self.wrong += not np.allclose(response.json()["scores"], self.truth, rtol=1e-9)

    async def ask_for_many(self, client: httpx.AsyncClient) -> None:
        """One large request of an honest caller."""
        headers = {"Authorization": f"Bearer {KEYS['bulk']}", "Content-Type": "application/json"}
        response = await client.post("/rerank", content=BULK_BODY, headers=headers)
        self.statuses[response.status_code] += 1

    def milliseconds(self, spell: str) -> str:
        seconds = self.seconds[spell]
        return " ".join(f"{1000 * percentile(seconds, share):.0f}" for share in (0.5, 0.9, 0.99, 1.0))

    def p99(self, spell: str) -> float:
        return percentile(self.seconds[spell], 0.99)


@asynccontextmanager
async def attacks_beside(server: LiveServer, answers: dict[str, Counter[str]]) -> AsyncIterator[None]:
    """The attacks of one spell, in a process of their own; ``answers`` learns how they were answered."""
    command = [sys.executable, "-m", "tests.load.attacks", server.url, KEYS["attacker"]]
    flags = [f"--seconds={SPELL}", f"--only={ONLY}"]
    attacker = await asyncio.create_subprocess_exec(*command, *flags, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    try:
        yield
        output, _ = await asyncio.wait_for(attacker.communicate(), 120)
    finally:
        if attacker.returncode is None:
            attacker.kill()
            await attacker.wait()
    assert attacker.returncode == 0, "the attacks ended in a fault of their own"
    for name, counted in json.loads(output).items():
        answers.setdefault(name, Counter()).update(counted)


async def spell_of(name: str, traffic: Traffic, server: LiveServer, answers: dict[str, Counter[str]]) -> None:
    headers = {"Cache-Control": "no-cache"}
    async with (
        httpx.AsyncClient(base_url=server.url, headers=headers, timeout=60) as client,
        AsyncExitStack() as stack,
    ):
        if name == "attacked":
            await stack.enter_async_context(attacks_beside(server, answers))
        await asyncio.gather(
            at_rate(RATE, SPELL, lambda number: traffic.ask(client, name)),
            at_rate(BULK_RATE, SPELL, lambda number: traffic.ask_for_many(client)),
        )


@pytest.mark.soak
@pytest.mark.promise("K-03")
async def test_attacks_do_not_reach_normal_callers(tmp_path: Path, measured: Measured) -> None:
    answers: dict[str, Counter[str]] = {}
    with running_server(*FLAGS, log=tmp_path / "server.log") as server:
        traffic = Traffic(Oracle().scores(QUERY, DOCUMENTS))
        began, memory = rss_mb(server.process.pid), list[float]()
        started = time.monotonic()
        while time.monotonic() - started < SECONDS:
            for name in ("quiet", "attacked"):
                await spell_of(name, traffic, server, answers)
            memory.append(rss_mb(server.process.pid))
            told = ", ".join(f"{name} {traffic.milliseconds(name)} ms" for name in traffic.seconds)
            print(f"{time.monotonic() - started:.0f} s: {told} (p50 p90 p99 max), {memory[-1]:.0f} MB", flush=True)
        _report(measured, traffic, answers, [began, *memory])
    assert traffic.wrong == 0
    assert set(traffic.statuses) == {200}
    assert traffic.p99("attacked") <= MOST_TIMES * traffic.p99("quiet")
    # What a large body takes comes back to the heap, not to the system: growth counts once each attack has been seen.
    later = memory[len(memory) // 6 :]
    assert later[-1] - later[0] < MOST_GROWTH_MB


def _report(measured: Measured, traffic: Traffic, answers: dict[str, Counter[str]], memory: list[float]) -> None:
    for name in traffic.seconds:
        asked = f"{len(traffic.seconds[name])} requests, {name}, p50 p90 p99 max in ms"
        measured("K-03", asked, f"p99 within {MOST_TIMES:g}x", traffic.milliseconds(name))
    for name, counted in answers.items():
        told = ", ".join(f"{number} x {answer}" for answer, number in sorted(counted.items()))
        measured("K-03", f"attack {name}", "any answer but 500", told)
    told = f"{traffic.wrong} wrong, {dict(traffic.statuses)}, {memory[0]:.0f} -> {memory[-1]:.0f} MB"
    measured("K-03", f"{SECONDS:.0f} s at {RATE:g} a second", "0 wrong scores, all 200, memory flat", told)
