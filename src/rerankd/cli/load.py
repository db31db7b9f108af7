"""Open-loop load for ``rerankd bench``: requests leave by the clock, whether answers came or not.

A closed loop, in which every client waits for its answer, slows down with the server and so hides how long requests
wait ("coordinated omission", G. Tene). Here the clock of a request starts when it was due.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

WORDS = (
    "river", "mountain", "copper", "engine", "winter", "garden", "letter", "bridge", "market",
    "silver", "window", "harvest", "planet", "ladder", "signal", "forest", "mirror", "anchor",
    "pepper", "castle", "rocket", "valley", "thunder", "candle", "lantern", "compass", "island",
    "doctor",
)  # fmt: skip
"""One token each in the Qwen3 vocabulary, the space before them included."""
_QUERY_WORDS = 8
NO_ANSWER = "no answer"
"""Stands among the statuses for a connection that failed or a time that ran out."""


@dataclass(frozen=True, slots=True)
class Load:
    """What is sent.

    Attributes:
        url: the whole address, path included.
        rate: requests a second.
        seconds: how long requests are sent; answers may come later.
        documents, words: of one request, and of one document.
        repeated: share of the requests that repeat an earlier one, as a score cache would answer them; 0..1.
        timeout: seconds after which a request counts as unanswered.
    """

    url: str
    rate: float
    seconds: float
    documents: int
    words: int
    repeated: float = 0.0
    timeout: float = 30.0
    model: str | None = None
    instruction: str | None = None
    seed: int = 0

    def body(self, number: int) -> dict[str, Any]:
        """The request of that number: always the same for one seed, and unlike all others."""
        source = random.Random(f"{self.seed}/{number}")
        body: dict[str, Any] = {
            "query": " ".join(source.choices(WORDS, k=_QUERY_WORDS)),
            "documents": [" ".join(source.choices(WORDS, k=self.words)) for _ in range(self.documents)],
            "return_documents": False,
        }
        named = {"model": self.model, "instruction": self.instruction}
        return body | {name: value for name, value in named.items() if value is not None}

    def numbers(self) -> list[int]:
        """Which body each request has, in the order in which they are sent."""
        source = random.Random(self.seed)
        count = max(1, int(self.rate * self.seconds))
        return [
            source.randrange(number) if number and source.random() < self.repeated else number
            for number in range(count)
        ]


@dataclass(slots=True)
class Measured:
    """What became of the requests so far.

    ``seconds`` holds, for each answered request, the time since it was due; ``late`` the most that a request left
    after it was due: more than some milliseconds say that this program, not the server, was the bottleneck.
    """

    load: Load
    started: float = field(default_factory=time.perf_counter)
    ended: float | None = None
    sent: int = 0
    seconds: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    late: float = 0.0

    @property
    def answered(self) -> int:
        return sum(self.statuses.values())

    @property
    def failed(self) -> int:
        return self.answered - self.statuses["200"]

    @property
    def elapsed(self) -> float:
        return (self.ended or time.perf_counter()) - self.started

    @property
    def rate(self) -> float:
        """Requests answered with 200, a second."""
        return self.statuses["200"] / self.elapsed

    def percentile(self, share: float) -> float | None:
        """Seconds within which that share of the answers came, by the nearest rank; None before the first."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else None


async def run_load(load: Load, headers: dict[str, str], show: Callable[[Measured], None]) -> Measured:
    """Send everything, and wait for every answer; ``show`` is called four times a second."""
    measured = Measured(load)
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(headers=headers, timeout=load.timeout, limits=limits) as client:
        watching = asyncio.create_task(_watch(measured, show))
        try:
            async with asyncio.TaskGroup() as group:
                for place, number in enumerate(load.numbers()):
                    due = measured.started + place / load.rate
                    await asyncio.sleep(due - time.perf_counter())
                    group.create_task(_ask(client, measured, due, number))
        finally:
            measured.ended = time.perf_counter()
            watching.cancel()
    return measured


async def _ask(client: httpx.AsyncClient, measured: Measured, due: float, number: int) -> None:
    measured.sent += 1
    measured.late = max(measured.late, time.perf_counter() - due)
    try:
        response = await client.post(measured.load.url, json=measured.load.body(number))
    except httpx.HTTPError:
        measured.statuses[NO_ANSWER] += 1
        return
    measured.statuses[str(response.status_code)] += 1
    measured.seconds.append(time.perf_counter() - due)


async def _watch(measured: Measured, show: Callable[[Measured], None]) -> None:
    while True:
        show(measured)
        await asyncio.sleep(0.25)
