"""Makes score requests, cores and engine threads for tests, with the fake engine."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rerankd.core.engine_core import CoreOptions, EngineCore, load_engine
from rerankd.core.engine_thread import EngineThread
from rerankd.core.request import Output, ScoreRequest, computed_tokens
from rerankd.engine.base import EngineOptions, HeadSpec
from rerankd.engine.fake import FakeEngine, FakeScript, fake_logit
from rerankd.errors import DeadlineExceeded
from rerankd.observe.metrics import EngineMetrics, Metrics
from rerankd.prompt.fair_semaphore import FairSemaphore
from rerankd.service.admission import Admission
from rerankd.settings import Settings
from rerankd.types import IdArray, Outcome, PairPrompt

POISON = (666, 667)
"""Ids that the scripts of tests use as a marker; no random id is as large."""
MODEL = "fake"
"""Name of the model in metrics."""


def ids(*values: int) -> IdArray:
    return np.array(values, dtype=np.int32)


def make_request(
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
) -> ScoreRequest:
    """Random pairs; the same seed makes the same pairs, however many. Those in ``marked`` carry the marker."""
    random = np.random.default_rng(seed)
    start = random.integers(0, 600, prefix, dtype=np.int32)
    tails = [random.integers(0, 600, length, dtype=np.int32) for _ in range(documents)]
    for index in marked:
        tails[index][-len(marker) :] = marker
    pairs = tuple(PairPrompt(start, tail) for tail in tails)
    return ScoreRequest(
        pairs=pairs,
        keys=tuple(pair.ids.tobytes() for pair in pairs) if shared else None,
        deadline=time.monotonic() + seconds,
        tenant=tenant,
        priority=priority,
    )


def right_scores(request: ScoreRequest) -> list[float]:
    return [fake_logit(pair.ids) for pair in request.pairs]


def is_right(request: ScoreRequest, outcomes: Sequence[Outcome]) -> bool:
    return list(outcomes) == right_scores(request)


def errors_of(outcomes: Sequence[Outcome]) -> dict[int, type[Outcome]]:
    return {index: type(outcome) for index, outcome in enumerate(outcomes) if not isinstance(outcome, float)}


def fake_engine(
    script: FakeScript | None = None, *, max_batch_tokens: int = 16_384, prefix_cache_tokens: int = 0
) -> FakeEngine:
    options = EngineOptions(
        folder=Path(),
        head=HeadSpec("words", 0, 1),
        max_batch_tokens=max_batch_tokens,
        prefix_cache_tokens=prefix_cache_tokens,
    )
    return FakeEngine(options, script)


def metric_of(metrics: Metrics, name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(name, {"model": MODEL, **labels}) or 0.0


@dataclass
class CoreBench:
    """A core that a test drives by itself."""

    engine: FakeEngine
    core: EngineCore
    metrics: Metrics = field(default_factory=Metrics)

    @classmethod
    def make(cls, script: FakeScript | None = None, engine: FakeEngine | None = None, **options: Any) -> CoreBench:
        """``max_batch_tokens`` and ``prefix_cache_tokens`` are the engine's, all other options the core's."""
        sizes = {name: options.pop(name) for name in ("max_batch_tokens", "prefix_cache_tokens") if name in options}
        engine = engine or fake_engine(script, **sizes)
        load_engine(engine)
        engine.reset()
        metrics = Metrics()
        return cls(engine, EngineCore(engine, EngineMetrics(metrics, MODEL), CoreOptions(**options)), metrics)

    def score(self, *requests: ScoreRequest) -> list[list[Outcome]]:
        """Every request's outcomes, after as many steps as it takes."""
        for request in requests:
            self.core.add(request)
        return self.finish(*requests)

    def finish(self, *requests: ScoreRequest) -> list[list[Outcome]]:
        """The outcomes of requests that the core has already."""
        found: dict[ScoreRequest, dict[int, Outcome]] = {request: {} for request in requests}
        while self.core.has_work:
            for output in self.core.step():
                found.setdefault(output.request, {}).update(output.outcomes)
        return [[found[request][index] for index in sorted(found[request])] for request in requests]

    def metric(self, name: str, **labels: str) -> float:
        return metric_of(self.metrics, name, **labels)


@dataclass
class Bench:
    """A started engine thread with the room before it, its engine, its metrics, and what it told."""

    engine: FakeEngine
    thread: EngineThread
    admission: Admission
    metrics: Metrics
    deaths: list[str]
    outputs: list[Output]

    async def score(self, request: ScoreRequest) -> list[Outcome]:
        """The way of a request through admission and engine, as the service goes it."""
        with contextlib.ExitStack() as room:
            self.thread.check_accepting()
            ticket = room.enter_context(contextlib.closing(self.admission.enter(request.tenant, request.deadline)))
            ticket.take_texts(1, 0)
            size = computed_tokens(request.pairs, shares_prefix=self.thread.info.shares_prefix)
            ticket.take_tokens({request: size}, self.thread.status)
            scores = room.enter_context(self.thread.submit(request))
            try:
                async with asyncio.timeout(request.deadline - time.monotonic()):
                    await scores.done
                    return [outcome for outcome in scores.outcomes if outcome is not None]
            except TimeoutError:
                raise DeadlineExceeded("too late") from None

    def metric(self, name: str, **labels: str) -> float:
        return metric_of(self.metrics, name, **labels)

    def nothing_is_left(self) -> bool:
        """No request and no token."""
        held = self.admission.requests.held or self.admission.tokens.held or self.metric("reranker_queue_tokens")
        return not (held or self.thread.waiting or self.thread.has_work)


@contextlib.asynccontextmanager
async def running(
    script: FakeScript | None = None,
    *,
    max_batch_tokens: int = 16_384,
    queue_tokens: int = 1_000_000,
    queue_requests: int = 512,
    **options: float,
) -> AsyncIterator[Bench]:
    """A started engine thread over a fake engine; stopped at the end."""
    engine = fake_engine(script, max_batch_tokens=max_batch_tokens, prefix_cache_tokens=64)
    metrics = Metrics()
    deaths: list[str] = []
    outputs: list[Output] = []
    own = EngineMetrics(metrics, MODEL)
    settings = Settings(queue_tokens=queue_tokens, queue_requests=queue_requests)
    admission = Admission(settings, FairSemaphore(1, 1000), own)

    def take_out(output: Output) -> None:
        admission.served(output)
        outputs.append(output)

    thread = EngineThread(engine, own, CoreOptions(**options), take_out, deaths.append)
    await thread.start()
    engine.reset()
    try:
        yield Bench(engine, thread, admission, metrics, deaths, outputs)
    finally:
        engine.release()
        await thread.stop()
