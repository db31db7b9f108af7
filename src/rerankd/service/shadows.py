"""Shadow arms: what they would have said, found out when nobody waits.

A shadow's documents are scored a few at a time, and only while no call is at work. A call that comes ends the shadow
at once: it waits for no more than the forward pass of those few.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import structlog

from rerankd.errors import ServiceError
from rerankd.experiments.statistics import kendall_tau
from rerankd.experiments.store import Agreement
from rerankd.observe.metrics import Metrics
from rerankd.types import ArmKey, CallContext, RerankRequest, RerankResult

TENANT = "(shadow)"
"""Whose the shadows' work is in queues and rates; no key and no address has this name."""
MAX_DOCUMENTS = 100
"""Of an answer, the first so many are compared."""
_MAX_WAITING = 64
_MAX_AGE_SECONDS = 60.0
_QUIET_SECONDS = 0.05
"""Without any call before a shadow begins."""
_PORTION = 4
"""Documents of one forward pass: what a call that comes may have to wait for."""
_LAST = 999

Rank: TypeAlias = Callable[[Sequence[RerankRequest], CallContext], Awaitable[list[RerankResult | ServiceError]]]
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Shadow:
    """What an arm would have said to a request that another one answered."""

    arm: ArmKey
    live: str
    request: RerankRequest
    """As it is put to the shadow arm, with the documents that the live arm ranked first."""
    logits: tuple[float, ...]
    """The live arm's raw scores of these documents."""
    rank: Rank
    added: float

    @classmethod
    def of(cls, arm: ArmKey, live: str, request: RerankRequest, answer: RerankResult, rank: Rank) -> Shadow:
        """The shadow of an answer, for its first documents.

        Args:
            request: as it is put to the shadow arm.
        """
        places = sorted(
            (place for place in answer.scores if place.logit is not None), key=lambda one: -(one.logit or 0)
        )
        kept = places[:MAX_DOCUMENTS]
        request = replace(
            request,
            documents=tuple(request.documents[place.index] for place in kept),
            top_n=None,
            priority=_LAST,
            relevant_spans=None,
            first_stage_scores=None,
            fusion="none",
        )
        logits = tuple(place.logit for place in kept if place.logit is not None)
        return cls(arm, live, request, logits, rank, time.monotonic())


class Shadows:
    """Shadows that wait for spare time, and the task that has it."""

    def __init__(self, metrics: Metrics, keep: Callable[[Agreement], None]) -> None:
        self._metrics = metrics
        self._keep = keep
        self._waiting: deque[Shadow] = deque()
        self._calls = 0
        self._may_run = asyncio.Event()
        self._running: asyncio.Task[None] | None = None
        self._task: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def call(self) -> Iterator[None]:
        """For the time of a call that somebody waits for: no shadow runs beside it."""
        self._calls += 1
        self._may_run.clear()
        if self._running is not None:
            self._running.cancel()
        try:
            yield
        finally:
            self._calls -= 1
            self._look()

    def add(self, shadow: Shadow) -> None:
        """Have it scored when there is time; the oldest gives way where too many wait."""
        if self._task is None:
            self._task = asyncio.create_task(self._work())
        if len(self._waiting) == _MAX_WAITING:
            self._count(self._waiting.popleft(), "dropped")
        self._waiting.append(shadow)
        self._look()

    async def close(self) -> None:
        for task in (self._task, self._running):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    def _look(self) -> None:
        if self._waiting and not self._calls:
            self._may_run.set()

    async def _work(self) -> None:
        while True:
            await self._may_run.wait()
            await asyncio.sleep(_QUIET_SECONDS)
            if not self._may_run.is_set():
                continue
            shadow = self._waiting.popleft()
            self._running = asyncio.create_task(self._score(shadow))
            try:
                await asyncio.wait([self._running])
            finally:
                self._running = None
            if not self._waiting:
                self._may_run.clear()

    async def _score(self, shadow: Shadow) -> None:
        outcome = "dropped"
        try:
            if time.monotonic() - shadow.added < _MAX_AGE_SECONDS:
                outcome = "scored" if await self._compare(shadow) else "failed"
        except ServiceError:
            outcome = "failed"
        except Exception as error:
            outcome = "failed"
            _log.error("a shadow failed", exc_info=error)
        finally:
            self._count(shadow, outcome)

    async def _compare(self, shadow: Shadow) -> bool:
        context = CallContext("shadow", time.monotonic() + _MAX_AGE_SECONDS, TENANT)
        found: list[float] = []
        for begin in range(0, len(shadow.logits), _PORTION):
            documents = shadow.request.documents[begin : begin + _PORTION]
            (result,) = await shadow.rank([replace(shadow.request, documents=documents)], context)
            if isinstance(result, ServiceError) or result.errors:
                return False
            found += [place.logit for place in result.scores if place.logit is not None]
        live, own = np.array(shadow.logits), np.array(found)
        same_first = not len(own) or int(own.argmax()) == int(live.argmax())
        agreement = Agreement(*shadow.arm, shadow.live, kendall_tau(live, own), same_first)
        self._metrics.shadow_tau.labels(*shadow.arm).observe(agreement.tau)
        if not same_first:
            self._metrics.shadow_first_changed.labels(*shadow.arm).inc()
        self._keep(agreement)
        return True

    def _count(self, shadow: Shadow, outcome: str) -> None:
        self._metrics.shadow_requests.labels(*shadow.arm, outcome).inc()
