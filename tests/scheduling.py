"""Makes works and schedulers for tests, with the fake engine."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from rerankd.engine.base import EngineOptions, HeadSpec
from rerankd.engine.fake import FakeEngine, FakeScript, fake_logit
from rerankd.observe.metrics import Metrics
from rerankd.schedule.scheduler import ScheduleOptions, Scheduler
from rerankd.schedule.work import ScoredWork, Work
from rerankd.types import IdArray, Outcome

POISON = (666, 667)
"""Ids that the scripts of tests use as a marker; no random id is as large."""


def ids(*values: int) -> IdArray:
    return np.array(values, dtype=np.int32)


def make_work(
    documents: int = 1,
    *,
    length: int = 20,
    prefix: int = 10,
    seed: int = 0,
    seconds: float = 30.0,
    tenant: str = "",
    priority: int = 0,
    marked: Sequence[int] = (),
    marker: tuple[int, ...] = POISON,
    shared: bool = True,
) -> Work:
    """Random pairs; the same seed makes the same pairs, however many. Those in ``marked`` carry the marker."""
    random = np.random.default_rng(seed)
    start = random.integers(0, 600, prefix, dtype=np.int32)
    tails = [random.integers(0, 600, length, dtype=np.int32) for _ in range(documents)]
    for index in marked:
        tails[index][-len(marker) :] = marker
    return Work(
        prefix=start,
        tails=tuple(tails),
        keys=tuple(np.concatenate([start, tail]).tobytes() for tail in tails) if shared else None,
        deadline=time.monotonic() + seconds,
        tenant=tenant,
        priority=priority,
    )


def right_scores(work: Work) -> list[float]:
    return [fake_logit(np.concatenate([work.prefix, tail])) for tail in work.tails]


def is_right(work: Work, scored: ScoredWork) -> bool:
    return list(scored.outcomes) == right_scores(work)


def errors_of(outcomes: Sequence[Outcome]) -> dict[int, type[Outcome]]:
    return {index: type(outcome) for index, outcome in enumerate(outcomes) if not isinstance(outcome, float)}


@dataclass
class Bench:
    """A started scheduler, its engine, its metrics, and the reasons of death it was told."""

    engine: FakeEngine
    scheduler: Scheduler
    metrics: Metrics
    deaths: list[str] = field(default_factory=list)

    def metric(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


def fake_engine(script: FakeScript | None = None, *, max_batch_tokens: int = 16_384) -> FakeEngine:
    options = EngineOptions(folder=Path(), head=HeadSpec("words", 0, 1), max_batch_tokens=max_batch_tokens)
    return FakeEngine(options, script)


@contextlib.asynccontextmanager
async def running(
    script: FakeScript | None = None,
    *,
    max_batch_tokens: int = 16_384,
    queue_tokens: int = 1_000_000,
    **options: float,
) -> AsyncIterator[Bench]:
    """A started scheduler over a fake engine; stopped at the end."""
    engine = fake_engine(script, max_batch_tokens=max_batch_tokens)
    metrics = Metrics()
    deaths: list[str] = []
    limits = ScheduleOptions(queue_tokens=queue_tokens, **options)  # type: ignore[arg-type]
    scheduler = Scheduler(engine, limits, metrics, deaths.append)
    await scheduler.start()
    try:
        yield Bench(engine, scheduler, metrics, deaths)
    finally:
        engine.release()
        await scheduler.stop()
