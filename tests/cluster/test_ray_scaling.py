"""A cluster follows its load: a second replica comes, and goes, and nobody notices."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path

import pytest
from tests.cluster.served_ray import engine_pids, post, start
from tests.figures import Measured
from tests.served import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.filterwarnings("ignore")]


@pytest.mark.promise("L-03", "L-05")
async def test_a_load_step_brings_a_replica_and_its_end_takes_it_away(
    ray_cluster: str, tmp_path: Path, measured: Measured
) -> None:
    cluster = start(
        ray_cluster,
        tmp_path,
        *("--fake-script", "seconds_per_batch=0.2", "--cache", "off", "--ray-min-replicas", "1"),
        *("--ray-max-replicas", "2", "--ray-target-queue-tokens", "20", "--ray-upscale-seconds", "2"),
        *("--ray-downscale-seconds", "5"),
    )
    try:
        assert len(engine_pids()) == 1
        statuses: Counter[int] = Counter()
        stop = asyncio.Event()

        async def one(number: int) -> None:
            statuses[(await post(cluster.url, f"step {number}")).status_code] += 1

        async def load(pause: float) -> None:
            async with asyncio.TaskGroup() as group:
                number = 0
                while not stop.is_set():
                    group.create_task(one(number))
                    number += 1
                    await asyncio.sleep(pause)

        started = time.monotonic()
        step = asyncio.create_task(load(0.03))
        await until(lambda: len(engine_pids()) == 2, seconds=120)
        up = time.monotonic() - started
        stop.set()
        await step
        stop.clear()
        trickle = asyncio.create_task(load(1.0))
        ended = time.monotonic()
        await until(lambda: len(engine_pids()) == 1, seconds=120)
        down = time.monotonic() - ended
        stop.set()
        await trickle
    finally:
        cluster.server.stop()
    measured("L-05", "load step and its end", "second replica comes and goes", f"{up:.0f} s up, {down:.0f} s down")
    measured("L-03", "requests while it came and went", "0 failed", str(dict(statuses)))
    assert set(statuses) == {200}


@pytest.mark.promise("L-03")
async def test_a_cluster_that_is_told_to_end_answers_what_it_has(
    ray_cluster: str, tmp_path: Path, measured: Measured
) -> None:
    cluster = start(ray_cluster, tmp_path, "--fake-script", "seconds_per_batch=1.5", "--cache", "off")
    asking = [asyncio.create_task(post(cluster.url, f"end {number}")) for number in range(3)]
    await asyncio.sleep(0.7)
    code = await asyncio.to_thread(cluster.server.stop)
    statuses = Counter(answer.status_code for answer in await asyncio.gather(*asking))
    measured("L-03", "3 requests in flight at SIGTERM, on Ray", "3 x 200, exit 0", f"{dict(statuses)}, exit {code}")
    assert (statuses, code) == ({200: 3}, 0)
