"""Several engines behind one listener (``replicas``): one dies, comes back, and nobody else notices."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.figures import Measured
from tests.live import LiveServer
from tests.served import POISON_WORD, poison_script, until

from rerankd.core.engine_replicas import EngineReplicas
from rerankd.engine.process.engine import ProcessEngine
from rerankd.errors import EngineDead
from rerankd.service.lifecycle import State
from rerankd.service.runtime import RerankService
from rerankd.settings import Settings
from rerankd.types import CallContext, RerankRequest

DOCUMENTS = tuple(f"document number {number}" for number in range(12))


async def started(**settings: Any) -> RerankService:
    service = RerankService(Settings(engine="fake", cache="off", replicas=2, **settings))
    await service.start()
    return service


def engines_of(service: RerankService) -> EngineReplicas:
    assert service.models is not None
    engines = service.models.default.loaded.engine
    assert isinstance(engines, EngineReplicas)
    return engines


def pid_of(service: RerankService, index: int) -> int:
    engine = engines_of(service).replicas[index].thread.engine
    assert isinstance(engine, ProcessEngine)
    return engine.pid


def context(seconds: float = 30.0) -> CallContext:
    return CallContext("id", asyncio.get_running_loop().time() + seconds)


async def scores(service: RerankService, query: str, documents: tuple[str, ...] = DOCUMENTS) -> list[float | None]:
    (result,) = await service.rerank([RerankRequest(query, documents)], context())
    assert not isinstance(result, Exception)
    return [score.logit for score in result.scores]


def children_of(pid: int) -> list[int]:
    return [int(child) for task in Path(f"/proc/{pid}/task").glob("*/children") for child in task.read_text().split()]


def died(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    return state == "Z"


async def test_several_engines_give_the_scores_of_one_in_parts_and_whole() -> None:
    alone = RerankService(Settings(engine="fake", cache="off"))
    await alone.start()
    # Budgets so small that a request goes to both engines in parts.
    service = await started(max_batch_tokens=600)
    try:
        for query in ("a", "b", "c"):
            assert await scores(service, query) == await scores(alone, query)
        value = service.metrics.registry.get_sample_value
        assert value("reranker_batch_pairs_sum", {"model": "tiny"}) == 3 * len(DOCUMENTS)
        assert value("reranker_queue_requests", {"model": "tiny"}) == 0
        assert value("reranker_queue_tokens", {"model": "tiny"}) == 0
        assert all(replica.tokens == 0 for replica in engines_of(service).replicas)
    finally:
        await service.stop()
        await alone.stop()


@pytest.mark.promise("C-01")
async def test_a_poison_is_alone_in_a_process_too() -> None:
    service = await started(fake_script=poison_script("fail_on"))
    try:
        found = await scores(service, "q", (*DOCUMENTS[:5], "x" + POISON_WORD, *DOCUMENTS[5:]))
    finally:
        await service.stop()
    assert [place for place, score in enumerate(found) if score is None] == [5]


@pytest.mark.promise("D-08")
async def test_a_killed_engine_loses_only_its_requests_and_comes_back(measured: Measured) -> None:
    service = await started(fake_script="seconds_per_batch=0.2")
    engines = engines_of(service)
    try:
        work = [asyncio.create_task(scores(service, f"q{number}", ("a", "b"))) for number in range(8)]
        await until(lambda: all(replica.tokens for replica in engines.replicas))
        victim = engines.replicas[0]
        had = sum(1 for waiting in engines._waiting.values() if waiting.parts[0][0] is victim)
        pid = pid_of(service, 0)
        os.kill(pid, signal.SIGKILL)
        # Before the rest is done: on a quick machine the next engine is there by then.
        await until(lambda: service.lifecycle.state is State.DEGRADED)
        assert "1 of 2 engines" in service.lifecycle.reason
        done = await asyncio.gather(*work, return_exceptions=True)
        lost = [error for error in done if isinstance(error, EngineDead)]
        assert len(lost) <= had
        assert len(done) - len(lost) == sum(isinstance(found, list) for found in done)
        assert await scores(service, "while it is away")
        await until(lambda: service.lifecycle.state is State.READY, seconds=60)
        assert pid_of(service, 0) != pid
        assert await scores(service, "again")
        measured("D-08", "one of two engines killed", f"<= {had} lost, back", f"{len(lost)} lost, back")
    finally:
        await service.stop()


async def test_an_idle_engines_end_costs_no_request() -> None:
    service = await started()
    try:
        pid = pid_of(service, 0)
        os.kill(pid, signal.SIGKILL)
        await until(lambda: service.lifecycle.state is State.DEGRADED)
        for number in range(6):
            assert await scores(service, f"q{number}")
        await until(lambda: service.lifecycle.state is State.READY, seconds=60)
        assert pid_of(service, 0) != pid
    finally:
        await service.stop()


async def test_the_last_engines_death_is_the_servers() -> None:
    service = await started()
    try:
        os.kill(pid_of(service, 0), signal.SIGKILL)
        os.kill(pid_of(service, 1), signal.SIGKILL)
        with pytest.raises(EngineDead):
            await asyncio.gather(*(scores(service, f"q{number}") for number in range(4)))
        await until(lambda: service.lifecycle.state is State.DEAD)
    finally:
        await service.stop()


@pytest.mark.promise("D-08")
async def test_engines_end_with_their_server(tmp_path: Path) -> None:
    server = LiveServer("--engine", "fake", "--replicas", "2", log=tmp_path / "log").wait_ready()
    children = children_of(server.process.pid)
    assert len(children) == 2
    server.process.kill()
    server.process.wait()
    await until(lambda: all(map(died, children)))


def test_a_wrong_model_is_said_in_one_line_not_by_each_engine(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    server = LiveServer("--model", str(tmp_path / "model"), "--replicas", "2", log=tmp_path / "log")
    assert server.process.wait(timeout=60) == 2
    assert Counter(line.startswith("rerankd: ") for line in server.log.read_text().splitlines())[True] == 1
