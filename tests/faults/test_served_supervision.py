"""Section D through real sockets: what the probes say when a part has died."""

from __future__ import annotations

import asyncio
import time

import pytest
from tests.figures import Measured
from tests.served import served, until

from rerankd.core.engine_core import EngineCore


@pytest.mark.promise("D-02")
async def test_livez_says_so_when_the_core_has_died(measured: Measured, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> None:
        raise KeyError("a bug in the core")

    async with served() as server:
        server.engine.hold()
        held = asyncio.create_task(server.rerank("held", ["d"]))
        await until(lambda: server.engine.passes == 1)
        waiting = [asyncio.create_task(server.rerank(f"q{number}", ["d"])) for number in range(5)]
        await until(lambda: server.model.engine.waiting == 6)
        monkeypatch.setattr(EngineCore, "step", broken)
        started = time.monotonic()
        server.engine.release()
        statuses = [response.status_code for response in await asyncio.gather(held, *waiting)]
        seconds = time.monotonic() - started
        livez, readyz = [(await server.client.get(path)).status_code for path in ("/livez", "/readyz")]
        refused = (await server.rerank("q", ["d"])).status_code
    measured(
        "D-02",
        "the core raises, over HTTP",
        "waiters answered < 1 s, livez 503",
        f"{statuses.count(503)} x 503 in {seconds * 1e3:.0f} ms, livez {livez}",
    )
    assert statuses == [200] + [503] * 5
    assert (livez, readyz, refused) == (503, 503, 503)
    assert seconds < 1
