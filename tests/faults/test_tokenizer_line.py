"""Section A before the queue: texts that come faster than they can be tokenised."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

import pytest
from tests.figures import Measured
from tests.served import served
from tests.traffic import percentile

from rerankd.prompt.build import RequestPrompts

SLICE_SECONDS = 0.05
FLOOD = 150
LARGE = ["word " * 13_000] * 8
"""Each document is a slice of its own."""


def slow_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every slice takes the tokenizer's thread a while; what is made of it is short."""
    pairs = RequestPrompts.pairs

    def slow(self: RequestPrompts, documents: Any, *rest: Any) -> Any:
        time.sleep(SLICE_SECONDS if len(documents[0]) > 1000 else 0)
        return pairs(self, [document[:20] for document in documents], *rest)

    monkeypatch.setattr(RequestPrompts, "pairs", slow)


@pytest.mark.promise("A-05")
async def test_a_flood_of_large_texts_is_refused_and_not_all_of_it_late(
    monkeypatch: pytest.MonkeyPatch, measured: Measured
) -> None:
    keys = "flood:secret-a,other:secret-b"
    async with served(api_keys=keys, tokenizer_threads=1, deadline_seconds=3.0) as server:
        slow_down(monkeypatch)

        async def ask(secret: str, query: str, documents: list[str]) -> int:
            response = await server.client.post(
                "/rerank",
                json={"query": query, "documents": documents, "return_documents": False},
                headers={"Authorization": f"Bearer {secret}"},
            )
            return response.status_code

        await ask("secret-a", "warm", LARGE)
        flood = [asyncio.create_task(ask("secret-a", f"q{number}", LARGE)) for number in range(FLOOD)]
        others, waits = Counter[int](), []
        while not all(task.done() for task in flood):
            before = time.monotonic()
            others[await ask("secret-b", f"o{before}", ["a short one"])] += 1
            waits.append(time.monotonic() - before)
            await asyncio.sleep(0.05)
        statuses = Counter(task.result() for task in flood)
    measured(
        "A-05",
        f"{FLOOD} large texts at once, the tokenizer far too slow for them",
        "some served, hardly one late, others 0 x 429",
        f"{dict(statuses)}, others {dict(others)}, p95 {percentile(waits, 0.95) * 1e3:.0f} ms",
    )
    assert set(statuses) <= {200, 429, 504}
    # Side by side, not one of them would be done in time.
    assert statuses[200] >= 3
    assert statuses[429] > FLOOD / 2
    assert set(others) == {200}
