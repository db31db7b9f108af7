"""Sections A and B through real sockets: queue bounds, clients that leave, deadlines."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter

import httpx
import pytest
from tests.figures import Measured
from tests.served import Served, served, until


async def hold_one(server: Served) -> asyncio.Task[httpx.Response]:
    """The engine is busy with a request of its own."""
    server.engine.hold()
    passes = server.engine.passes
    task = asyncio.create_task(server.rerank("held", ["held"]))
    await until(lambda: server.engine.passes == passes + 1)
    return task


@pytest.mark.promise("A-01", "A-06")
async def test_each_rejection_is_counted_by_its_reason(measured: Measured) -> None:
    async with served(queue_requests=8) as server:
        server.engine.hold()
        tasks = [asyncio.create_task(server.rerank(f"q{n}", ["a", "b"])) for n in range(10)]
        await until(lambda: sum(task.done() for task in tasks) == 2)
        refused = [task.result() for task in tasks if task.done()]
        server.engine.release()
        statuses = Counter(response.status_code for response in await asyncio.gather(*tasks))
        counted = server.metric("reranker_rejections_total", code="overloaded")
        assert all(int(response.headers["retry-after"]) >= 1 for response in refused)
    measured(
        "A-06",
        "rejections by reason after A-01, over HTTP",
        "counter +2",
        f"{dict(statuses)}, counter +{counted:.0f}",
    )
    assert (statuses, counted) == ({200: 8, 429: 2}, 2)


@pytest.mark.promise("A-03")
async def test_a_call_of_several_queries_is_admitted_whole_or_not_at_all(measured: Measured) -> None:
    async with served(queue_requests=4) as server:
        held = await hold_one(server)
        pairs = [{"query": f"q{number}", "documents": ["a", "b"]} for number in range(4)]
        refused = await server.client.post("/batch_rerank", json={"pairs": pairs})
        server.engine.release()
        await held
        await server.rerank("next", ["c"])
        seen = server.engine.pairs
        fits = await server.client.post("/batch_rerank", json={"pairs": pairs})
        too_many = await server.client.post("/batch_rerank", json={"pairs": [*pairs, pairs[0]]})
        assert server.nothing_is_left()
    measured(
        "A-03", "4 queries, room for 3", "429, 0 pairs scored", f"{refused.status_code}, {seen - 2} pairs scored"
    )
    assert (refused.status_code, seen) == (429, 2)
    assert [len(item["scores"]) for item in fits.json()["results"]] == [2] * 4
    assert too_many.status_code == 413
    assert "queue_requests" in too_many.text


@pytest.mark.promise("B-01")
async def test_a_disconnected_request_never_reaches_the_engine(measured: Measured) -> None:
    async with served() as server:
        held = await hold_one(server)
        connection = server.send_raw("gone", ["a", "b", "c"])
        await until(lambda: len(server.in_flight) == 2)
        await until(lambda: server.model.engine.waiting == 2)
        connection.close()
        await until(lambda: len(server.in_flight) == 1)
        server.engine.release()
        assert (await held).status_code == 200
        await server.rerank("next", ["d"])
        pairs = server.engine.pairs
        counted = server.metric("reranker_requests_total", method="POST", endpoint="/rerank", status="499")
        assert server.nothing_is_left()
    measured(
        "B-01",
        "engine held, send, close the socket",
        "0 pairs for it, client_closed +1",
        f"{pairs - 2} pairs, +{counted:.0f}",
    )
    assert (pairs, counted) == (2, 1)


@pytest.mark.promise("B-02")
@pytest.mark.slow  # judged by the clock: the machine must be quiet
async def test_after_a_flood_that_left_the_next_request_is_answered_soon(measured: Measured) -> None:
    async with served(fake_script="seconds_per_batch=0.6", max_batch_tokens=400) as server:
        connections = [server.send_raw(f"q{number}", [f"a b {n}" for n in range(5)]) for number in range(200)]
        await asyncio.sleep(0.5)
        unanswered = 0
        for connection in connections:
            connection.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                unanswered -= len(connection.recv(1))
            unanswered += 1
            connection.close()
        started = time.monotonic()
        last = await server.rerank("last", ["one"])
        seconds = time.monotonic() - started
        await until(server.nothing_is_left)
    measured(
        "B-02",
        "200 clients leave after 0.5 s, then one",
        "that one < 1 s",
        f"{unanswered} unanswered, the one {seconds:.2f} s",
    )
    assert last.status_code == 200
    assert unanswered == 200
    assert seconds < 1


@pytest.mark.promise("B-04")
@pytest.mark.parametrize("stage", ["header", "body", "tokenise", "queue", "batch"])
async def test_a_client_that_leaves_at_any_stage_leaves_nothing_behind(
    stage: str, monkeypatch: pytest.MonkeyPatch, measured: Measured
) -> None:
    async with served(receive_timeout_seconds=5.0) as server:
        tasks = len(asyncio.all_tasks())
        held = await hold_one(server) if stage in ("queue", "batch") else None
        if stage in ("header", "body"):
            connection = server.connect()
            connection.sendall(b"POST /rerank HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n")
            connection.sendall(b"" if stage == "header" else b"\r\n{")
        elif stage == "tokenise":
            assert server.service.models is not None
            prompts, pause = server.service.models.default.loaded.prompts, asyncio.Event()
            monkeypatch.setattr(prompts, "build", lambda *rest: pause.wait())
            connection = server.send_raw("q", ["a"])
        else:
            connection = server.send_raw("held" if stage == "batch" else "q", ["held"])
        await asyncio.sleep(0.05)
        connection.close()
        server.engine.release()
        if held is not None:
            assert (await held).status_code == 200
        monkeypatch.undo()
        assert (await server.rerank("after", ["x"])).status_code == 200
        await until(server.nothing_is_left)
        await until(lambda: len(asyncio.all_tasks()) <= tasks + 2)
    measured("B-04", f"leave while in: {stage}", "queue, permits, tasks back to 0", "all back to 0")


@pytest.mark.promise("B-05")
async def test_leaving_after_the_answer_is_not_counted_as_leaving(measured: Measured) -> None:
    async with served() as server:
        for number in range(5):
            async with httpx.AsyncClient() as client:
                await client.post(f"{server.url}/rerank", json={"query": f"q{number}", "documents": ["d"]})
        await asyncio.sleep(0.05)
        left = server.metric("reranker_requests_total", method="POST", endpoint="/rerank", status="499")
        assert server.metric("reranker_requests_total", method="POST", endpoint="/rerank", status="200") == 5
    measured("B-05", "leave after the answer, 5 times", "counter unchanged", f"client_closed +{left:.0f}")
    assert left == 0


async def test_a_deadline_in_the_queue_is_a_504_in_time() -> None:
    async with served() as server:
        held = await hold_one(server)
        started = time.monotonic()
        response = await server.client.post(
            "/rerank", json={"query": "q", "documents": ["a"]}, headers={"X-Request-Timeout-Ms": "100"}
        )
        seconds = time.monotonic() - started
        server.engine.release()
        await held
        assert response.status_code == 504
        assert 0.1 <= seconds <= 0.2
        assert server.engine.pairs == 1


async def test_a_request_larger_than_the_queue_is_a_413_that_names_the_setting() -> None:
    async with served(queue_tokens=50) as server:
        response = await server.rerank("q", [f"some words of a document {number}" for number in range(100)])
        assert response.status_code == 413
        assert "queue" in response.text
        assert server.engine.pairs == 0


async def test_a_shared_pair_over_two_connections_survives_one_that_leaves() -> None:
    async with served() as server:
        held = await hold_one(server)
        leaves = server.send_raw("same", ["pair"])
        await until(lambda: len(server.in_flight) == 2)
        stays = asyncio.create_task(server.rerank("same", ["pair"]))
        await until(lambda: server.model.engine.waiting == 3)
        leaves.close()
        await until(lambda: len(server.in_flight) == 2)
        server.engine.release()
        await held
        assert (await stays).status_code == 200
        assert server.engine.pairs == 2


@pytest.mark.promise("B-04")
async def test_what_was_in_a_batch_when_its_client_left_is_cached(measured: Measured) -> None:
    async with served(cache="memory") as server:
        server.engine.hold()
        connection = server.send_raw("gone", ["a", "b", "c"])
        await until(lambda: server.engine.passes == 1)
        connection.close()
        await until(lambda: len(server.in_flight) == 0)
        server.engine.release()
        await until(server.nothing_is_left)
        again = (await server.rerank("gone", ["a", "b", "c"])).json()
        cached, pairs = again["meta"]["cached_documents"], server.engine.pairs
    measured("B-04", "leave in a batch, ask again", "3 of 3 cached", f"{cached} of 3 cached, {pairs} pairs scored")
    assert (cached, pairs) == (3, 3)


async def test_a_request_that_missed_its_deadline_costs_only_the_rest_when_it_comes_again() -> None:
    documents = [f"document {number} of many words about nothing in particular" for number in range(40)]
    async with served(cache="memory", max_batch_tokens=80) as server:
        server.engine.hold()
        first = await server.client.post(
            "/rerank", json={"query": "q", "documents": documents}, headers={"X-Request-Timeout-Ms": "500"}
        )
        assert first.status_code == 504
        server.engine.release()
        await until(server.nothing_is_left)
        scored = server.engine.pairs
        assert 0 < scored < 40
        second = await server.rerank("q", documents)
        assert second.status_code == 200
        assert second.json()["meta"]["cached_documents"] == scored
        assert server.engine.pairs == 40
