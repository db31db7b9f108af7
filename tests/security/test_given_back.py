"""What a call held is gone with its end, however it ended: no full garbage collection has to find it first.

Full collections are rare in a server (they stop everyone), so that an error whose traceback leads back to itself
would keep body, texts and scores of its call for minutes.
"""

from __future__ import annotations

import asyncio
import gc
import json
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest
from tests.served import Served, served, until

from rerankd.service.prepared_request import PreparedRequest
from rerankd.types import DocumentScore, RerankRequest, RerankResult
from rerankd.wire.base import ParsedCall

HEAVY = (RerankRequest, RerankResult, DocumentScore, PreparedRequest, ParsedCall)
DOCUMENTS = [f"document {place} of some" for place in range(200)]


async def answered(server: Served) -> None:
    assert (await server.rerank("question", DOCUMENTS)).status_code == 200


async def refused_as_too_large(server: Served) -> None:
    assert (await server.rerank("question", ["a" * 3_000_000, *DOCUMENTS])).status_code == 413


async def refused_as_too_long(server: Served) -> None:
    documents = ["a word " * 9000, *DOCUMENTS]
    assert (await server.rerank("question", documents, truncate=False)).status_code == 400


async def refused_in_a_batch(server: Served) -> None:
    good, bad = {"query": "question", "documents": DOCUMENTS}, {"query": "question", "documents": []}
    unread, long = {"query": 5, "documents": DOCUMENTS}, {**good, "documents": ["a word " * 9000], "truncate": False}
    response = await server.client.post("/batch_rerank", json={"pairs": [good, bad, unread, long]})
    assert ["error" in item for item in response.json()["results"]] == [False, True, True, True]


async def left(server: Served) -> None:
    server.engine.hold()
    connection = server.send_raw("question", DOCUMENTS)
    await until(lambda: server.model.engine.waiting)
    connection.close()
    await until(lambda: not len(server.in_flight))
    server.engine.release()
    await until(server.nothing_is_left)


async def too_late(server: Served) -> None:
    server.engine.hold()
    body = json.dumps({"query": "question", "documents": DOCUMENTS})
    headers = {"X-Request-Timeout-Ms": "50", "Content-Type": "application/json"}
    assert (await server.client.post("/rerank", content=body, headers=headers)).status_code == 504
    server.engine.release()
    await until(server.nothing_is_left)


ENDS = (answered, refused_as_too_large, refused_as_too_long, refused_in_a_batch, left, too_late)


@pytest.mark.promise("A10")
@pytest.mark.parametrize("end", ENDS)
async def test_a_call_leaves_nothing_for_the_garbage_collector(end: Callable[[Served], Awaitable[None]]) -> None:
    async with served() as server:
        await end(server)
        await asyncio.sleep(0.1)
        gc.collect()
        kept = heavy_objects()
        gc.disable()
        try:
            await end(server)
            # The last task of the call, and the answer's way through the client.
            await asyncio.sleep(0.1)
            found = heavy_objects()
        finally:
            gc.enable()
    assert found == kept, "more than before: something is part of a cycle"


def heavy_objects() -> Counter[str]:
    return Counter(type(found).__name__ for found in gc.get_objects() if type(found) in HEAVY)
