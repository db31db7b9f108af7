"""Open-loop traffic for the load tests, and what a process of the system costs meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.http_load import Connection


@dataclass
class Traffic:
    """Answers by status, seconds each from the moment the request was due."""

    seconds: dict[int, list[float]] = field(default_factory=dict)

    def add(self, status: int, seconds: float) -> None:
        self.seconds.setdefault(status, []).append(seconds)

    @property
    def statuses(self) -> Counter[int]:
        return Counter({status: len(seconds) for status, seconds in self.seconds.items()})

    def percentile(self, share: float, status: int = 200) -> float:
        return percentile(self.seconds[status], share)


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


async def at_rate(rate: float, seconds: float, act: Callable[[int], Coroutine[Any, Any, None]]) -> None:
    """``act`` at fixed moments, whether the ones before have ended or not."""
    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, started + number / rate - time.perf_counter()))
            group.create_task(act(number))


async def send(url: str, rate: float, seconds: float, body: Callable[[int], bytes]) -> Traffic:
    """Requests at fixed moments over as many kept connections as it takes."""
    traffic, idle = Traffic(), list[Connection]()

    async def one(number: int) -> None:
        due = time.perf_counter()
        connection = idle.pop() if idle else await Connection.open(url)
        traffic.add(await connection.ask(body(number)), time.perf_counter() - due)
        idle.append(connection)

    await at_rate(rate, seconds, one)
    for connection in idle:
        await connection.close()
    return traffic


def rss_mb(pid: int) -> float:
    """Memory that a process holds just now, in MB."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))
