"""The fault suite through Ray: isolation, refusals, deadlines, cancellation, drain, scaling, and a killed replica."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.cluster.served_ray import Cluster, call_of, engine_pids, post, start
from tests.figures import Measured
from tests.redis_fixtures import RedisServer
from tests.served import POISON_WORD, poison_script, until

from rerankd.cluster.messages import Ask
from rerankd.types import RerankResult

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.filterwarnings("ignore")]

QUEUE = 8
SECONDS = 0.25
"""Of a forward pass."""
DOCUMENTS = tuple(f"document number {number}" for number in range(64))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ray")


@pytest.fixture(scope="module")
def redis(folder: Path) -> Iterator[RedisServer]:
    server = RedisServer(folder)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def cluster(ray_cluster: str, folder: Path, redis: RedisServer) -> Iterator[Cluster]:
    """Two replicas, a slow engine with a poison, a short queue, scores in Redis, and a second model."""
    (folder / "rerankd.toml").write_text('[models.other]\nmodel = "tiny"\ndtype = "bfloat16"\n')
    script = f"seconds_per_batch={SECONDS},{poison_script('fail_on')}"
    cluster = start(
        ray_cluster,
        folder,
        *("--config", str(folder / "rerankd.toml"), "--fake-script", script, "--cache", redis.url),
        *("--queue-requests", str(QUEUE), "--ray-min-replicas", "2", "--ray-max-replicas", "2"),
        *("--ray-model-idle-seconds", "3", "--max-tenant-share", "1"),
    )
    yield cluster
    cluster.server.stop()


@pytest.mark.promise("L-04", "C-01")
async def test_a_poison_costs_its_own_score_alone_through_ray(cluster: Cluster, measured: Measured) -> None:
    poisoned = (*DOCUMENTS[:9], "x" + POISON_WORD, *DOCUMENTS[10:])
    clean, response = await asyncio.gather(
        post(cluster.url, "poison", DOCUMENTS), post(cluster.url, "poison", poisoned)
    )
    scores, right = response.json()["scores"], clean.json()["scores"]
    lost = [place for place, score in enumerate(scores) if score is None]
    measured("L-04", "64 pairs, 1 raises, through Ray", "63 right, 1 error", f"{64 - len(lost)} right, lost {lost}")
    assert lost == [9]
    assert [s for place, s in enumerate(scores) if place != 9] == [s for place, s in enumerate(right) if place != 9]


@pytest.mark.promise("L-02")
async def test_a_full_cluster_refuses_with_a_time_to_come_back(cluster: Cluster, measured: Measured) -> None:
    answers = await asyncio.gather(*(post(cluster.url, f"full {number}") for number in range(60)))
    statuses = Counter(answer.status_code for answer in answers)
    measured("L-02", "60 requests, room for 2 x 8", "429 with Retry-After, rest 200", str(dict(statuses)))
    assert set(statuses) == {200, 429}
    assert statuses[200] >= 2 * QUEUE
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers if answer.status_code == 429)
    assert (await post(cluster.url, "after")).status_code == 200


async def scored(cluster: Cluster) -> float:
    """Pairs that any engine was given, as ``/metrics`` counts them."""
    async with httpx.AsyncClient(timeout=30) as client:
        lines = (await client.get(f"{cluster.url}/metrics")).text.splitlines()
    found = [line for line in lines if line.startswith("reranker_batch_pairs_sum")]
    assert len({line.split('replica="')[1].split('"')[0] for line in found}) == 2
    return sum(float(line.rsplit(" ", 1)[1]) for line in found)


@pytest.mark.promise("B-08")
async def test_a_deadline_ends_a_request_that_waits_on_its_replica(cluster: Cluster, measured: Measured) -> None:
    before = await scored(cluster)
    # More than one replica takes before the next is asked: both are in a pass when the late one comes.
    busy = [asyncio.create_task(post(cluster.url, "busy", (f"d{number}",))) for number in range(2 * QUEUE)]
    await asyncio.sleep(0.05)
    started = time.monotonic()
    late = await post(cluster.url, "busy", ("late",), headers={"X-Request-Timeout-Ms": "60"})
    seconds = time.monotonic() - started
    done = Counter(answer.status_code for answer in await asyncio.gather(*busy))
    await asyncio.sleep(2 * SECONDS)
    pairs = await scored(cluster) - before
    measured(
        "B-08", "60 ms to live behind a pass of 250", "504 or 429, not scored", f"{late.status_code}, {pairs:.0f}"
    )
    assert late.status_code in (504, 429)
    assert seconds < 5
    assert done[200] >= 1
    assert pairs <= done[200]


async def test_clients_that_leave_take_their_work_along(cluster: Cluster) -> None:
    before = await scored(cluster)
    leaving = [
        asyncio.create_task(post(cluster.url, "leave", tuple(f"{number} {i}" for i in range(50)), timeout=0.2))
        for number in range(8)
    ]
    done = await asyncio.gather(*leaving, return_exceptions=True)
    assert sum(isinstance(error, httpx.TimeoutException) for error in done) >= 4
    await asyncio.sleep(2 * SECONDS)
    started = time.monotonic()
    assert (await post(cluster.url, "leave", ("after",))).status_code == 200
    assert time.monotonic() - started < 5
    assert await scored(cluster) - before < 8 * 50


@pytest.mark.promise("shared cache")
async def test_the_second_replica_answers_from_redis(cluster: Cluster, measured: Measured) -> None:
    first = await cluster.send(call_of("shared", *DOCUMENTS))
    await asyncio.sleep(0.5)  # a score is written behind its answer
    pairs = await scored(cluster)
    second = await cluster.send(call_of("shared", *DOCUMENTS, avoid={first.replica}))
    assert second.replica != first.replica
    (known,), (fresh,) = second.results, first.results
    assert isinstance(known, RerankResult)
    assert isinstance(fresh, RerankResult)
    assert (known.cached_documents, known.scores) == (len(DOCUMENTS), fresh.scores)
    more = await scored(cluster) - pairs
    measured("shared cache", "64 pairs that the other replica scored", "0 scored again", f"{more:.0f} scored again")
    assert more == 0


async def test_calls_of_one_query_meet_on_one_replica_and_queries_spread(cluster: Cluster) -> None:
    same = [(await cluster.send(call_of("same", str(number)))).replica for number in range(6)]
    spread = {(await cluster.send(call_of(f"spread {number}"))).replica for number in range(12)}
    assert len(set(same)) == 1
    assert len(spread) == 2


async def test_a_model_is_loaded_when_asked_and_let_go_when_idle(cluster: Cluster) -> None:
    async def loaded() -> list[list[str]]:
        found = [await cluster.handle.status.remote(Ask()) for _ in range(8)]
        return [list(status.models) for status in found]

    assert all(models == ["tiny"] for models in await loaded())
    async with httpx.AsyncClient(timeout=60) as client:
        response = await client.post(
            f"{cluster.url}/rerank", json={"query": "q", "documents": ["a"], "model": "other"}
        )
        names = (await client.get(f"{cluster.url}/v1/models")).json()["data"]
    assert (response.status_code, response.json()["model"]) == (200, "other")
    assert {model["id"] for model in names} == {"tiny", "other"}
    assert ["tiny", "other"] in await loaded()
    until_time = time.monotonic() + 30
    while any("other" in models for models in await loaded()):
        assert time.monotonic() < until_time
        await asyncio.sleep(0.5)


@pytest.mark.promise("L-01")
async def test_a_killed_replica_loses_only_what_it_had(cluster: Cluster, measured: Measured) -> None:
    before = engine_pids()
    assert len(before) == 2
    statuses: Counter[int] = Counter()
    stop = asyncio.Event()
    in_flight = 0
    at_kill = 0

    async def one(number: int) -> None:
        nonlocal in_flight
        in_flight += 1
        statuses[(await post(cluster.url, f"kill {number}")).status_code] += 1
        in_flight -= 1

    async def load() -> None:
        async with asyncio.TaskGroup() as group:
            number = 0
            while not stop.is_set():
                group.create_task(one(number))
                number += 1
                await asyncio.sleep(0.15)

    traffic = asyncio.create_task(load())
    await asyncio.sleep(2)
    at_kill = in_flight
    os.kill(before[0], signal.SIGKILL)
    killed = time.monotonic()
    await until(lambda: len([pid for pid in engine_pids() if pid not in before]) == 1, seconds=120)
    back = time.monotonic() - killed
    await asyncio.sleep(5)
    stop.set()
    await traffic
    lost = statuses.total() - statuses[200]
    measured(
        "L-01", "1 of 2 replicas killed under load", f"lost <= {at_kill} in flight, back", f"{lost}, {back:.0f} s"
    )
    assert lost <= max(at_kill, 1)
    assert statuses[200] > 10
