"""Thousands of clients that leave at random moments leave nothing behind."""

from __future__ import annotations

import asyncio
import gc
import os
import random

import pytest
from tests.figures import Measured
from tests.served import Served, served, until
from tests.traffic import open_files, rss_mb

ABORTS = 5000


async def abort_one(server: Served, number: int, chance: random.Random) -> None:
    documents = [f"document {number % 50} {index}" for index in range(chance.randrange(1, 12))]
    if chance.random() < 0.1:
        connection = server.connect()
        connection.sendall(
            b"POST /rerank HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{"[: chance.randrange(1, 60)]
        )
    else:
        connection = server.send_raw(f"question {number % 50}", documents)
    await asyncio.sleep(chance.random() * 0.03)
    connection.close()


@pytest.mark.promise("K-02")
@pytest.mark.load
@pytest.mark.timeout(300)
async def test_aborts_at_random_points_leave_nothing_behind(measured: Measured) -> None:
    chance = random.Random(3)
    async with served(fake_script="seconds_per_batch=0.003", max_batch_tokens=400) as server:
        for number in range(200):
            await abort_one(server, number, chance)
        await until(server.nothing_is_left, 30)
        gc.collect()
        base = len(asyncio.all_tasks()), open_files(os.getpid()), rss_mb(os.getpid())
        for start in range(0, ABORTS, 20):
            await asyncio.gather(*(abort_one(server, start + offset, chance) for offset in range(20)))
        await until(server.nothing_is_left, 30)
        await asyncio.sleep(0.5)
        gc.collect()
        after = len(asyncio.all_tasks()), open_files(os.getpid()), rss_mb(os.getpid())
        response = await server.rerank("still there", ["a document"])
    measured(
        "K-02",
        f"{ABORTS} aborts at random points",
        "tasks, permits, memory back to base",
        f"tasks {base[0]} -> {after[0]}, files {base[1]} -> {after[1]}, RSS {after[2] - base[2]:+.1f} MB",
    )
    assert response.status_code == 200
    assert after[0] <= base[0] + 1
    assert after[1] <= base[1] + 2
    assert after[2] - base[2] < 30
