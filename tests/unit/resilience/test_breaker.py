from __future__ import annotations

import asyncio

import pytest
import structlog

from rerankd.resilience import breaker as breaker_module
from rerankd.resilience.breaker import FAILURES, Breaker


class Store:
    """A store that answers probes or does not."""

    def __init__(self) -> None:
        self.answers = False
        self.probes = 0
        self.changes: list[bool] = []

    async def probe(self) -> None:
        self.probes += 1
        if not self.answers:
            raise ConnectionError

    def breaker(self, pause: float = 0.01) -> Breaker:
        return Breaker("store", self.probe, pause, self.changes.append)


def fail(breaker: Breaker, times: int) -> None:
    for _ in range(times):
        breaker.failed(TimeoutError())


async def test_it_opens_after_failures_in_a_row_and_not_after_scattered_ones() -> None:
    store = Store()
    breaker = store.breaker()
    for _ in range(3):
        fail(breaker, FAILURES - 1)
        breaker.succeeded()
    assert not breaker.is_open
    fail(breaker, FAILURES)
    assert breaker.is_open
    assert store.changes == [True]
    await breaker.close()


async def test_it_closes_when_a_probe_succeeds_and_opens_again_when_needed() -> None:
    store = Store()
    breaker = store.breaker()
    async with asyncio.timeout(30):
        for _ in range(2):
            store.answers, store.probes = False, 0
            fail(breaker, FAILURES + 3)
            while store.probes < 3:
                assert breaker.is_open
                await asyncio.sleep(0.01)
            store.answers = True
            while breaker.is_open:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    assert store.changes == [True, False, True, False]


async def test_closing_it_ends_the_probing() -> None:
    store = Store()
    breaker = store.breaker()
    fail(breaker, FAILURES)
    await breaker.close()
    probes = store.probes
    await asyncio.sleep(0.03)
    assert store.probes == probes
    assert len(asyncio.all_tasks()) == 1


async def test_the_log_has_the_kind_of_failure_and_never_its_message(monkeypatch: pytest.MonkeyPatch) -> None:
    log = structlog.testing.CapturingLogger()
    monkeypatch.setattr(breaker_module, "_log", log)
    breaker = Store().breaker()
    for _ in range(FAILURES):
        breaker.failed(ConnectionError("redis://:secret@host"))
    await breaker.close()
    (call,) = log.calls
    assert call.kwargs == {"store": "store", "error": "ConnectionError"}
