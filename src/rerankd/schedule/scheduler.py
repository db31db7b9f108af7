"""Many requests in, good batches to the engine, every request its own outcomes."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

import structlog

from rerankd.engine.base import Engine, EngineInfo
from rerankd.errors import Draining, EngineDead, NotReady, Overloaded, ServiceError
from rerankd.observe.metrics import Metrics
from rerankd.schedule.dispatcher import Dispatcher, EngineGone
from rerankd.schedule.engine_thread import EngineThread
from rerankd.schedule.job import Job
from rerankd.schedule.options import ScheduleOptions
from rerankd.schedule.queue import Queue, QueueLimits
from rerankd.schedule.work import ScoredWork, Work

__all__ = ["ScheduleOptions", "Scheduler"]

_log = structlog.get_logger(__name__)
_CLOSE_SECONDS = 2.0
_CAUTION = 1.25
"""A request that just fits by the average speed would miss its deadline half of the time, and its work be wasted."""

SchedulerState = Literal["starting", "ready", "draining", "dead", "stopped"]


class Scheduler:
    """Owns one engine on a thread of its own; everything else happens on the event loop.

    Args:
        on_death: called once, on the event loop, with the reason when the engine is gone for good.
    """

    def __init__(
        self, engine: Engine, options: ScheduleOptions, metrics: Metrics, on_death: Callable[[str], None]
    ) -> None:
        self.state: SchedulerState = "starting"
        self._engine = engine
        self._options = options
        self._metrics = metrics
        self._on_death = on_death
        self._thread = EngineThread()
        self._queue = Queue(
            QueueLimits(options.queue_tokens, options.queue_requests, options.max_tenant_share), metrics
        )
        self._dispatcher: Dispatcher
        self._loop_task: asyncio.Task[None]
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def info(self) -> EngineInfo:
        """What the engine says of itself; known once started."""
        return self._engine.info

    async def start(self) -> None:
        """Load and warm the engine, then take work.

        Raises:
            Exception: whatever the engine raised; the scheduler is stopped then.
        """
        try:
            await self._thread.call(self._engine.load)
            await self._thread.call(self._engine.warm_up)
        except BaseException:
            self.state = "stopped"
            self._thread.end()
            raise
        self._dispatcher = Dispatcher(self._engine, self._thread, self._queue, self._options, self._metrics)
        # In a context of its own: after a reload its log lines would carry the request id of the reload for ever.
        self._loop_task = asyncio.create_task(
            self._dispatcher.run(), name="rerankd-dispatcher", context=contextvars.Context()
        )
        self._loop_task.add_done_callback(self._dispatcher_ended)
        self.state = "ready"

    async def score(self, work: Work) -> ScoredWork:
        """:meth:`admit` one work and :meth:`wait` for it."""
        (job,) = self.admit([work])
        return await self.wait(job)

    def admit(self, works: Sequence[Work]) -> list[Job]:
        """Queue all works of one call, or none; each job has to be waited for, or left.

        Raises:
            TooLarge: more than the whole queue may hold.
            Overloaded: no room in the queue or in the tenant's share of it, or no hope to meet the deadline.
            NotReady, Draining, EngineDead: the scheduler takes no work.
        """
        self._check_state()
        now = time.monotonic()
        self._refuse_hopeless(works, now)
        self._queue.check_room(works, self._retry_after())
        jobs = [self._queue.admit(work, self._dispatcher.denied.denied(work, now)) for work in works]
        self._empty.clear()
        self._dispatcher.wake()
        return jobs

    async def wait(self, job: Job) -> ScoredWork:
        """One outcome a pair. Cancelling the caller drops the pairs that nobody else waits for and no batch has yet.

        Raises:
            DeadlineExceeded: the deadline passed; pairs that were not yet in a batch are not scored.
            Draining, EngineDead: the scheduler ended before the scores were there.
        """
        left = job.work.deadline - time.monotonic()
        timer = asyncio.get_running_loop().call_later(left, job.expire)
        try:
            await job.done
            return job.result()
        except BaseException:
            job.keep_scores()
            raise
        finally:
            timer.cancel()
            self.leave(job)

    def leave(self, job: Job) -> None:
        """Nobody waits for a job any more; one that was waited for to its end has left already."""
        self._queue.leave(job)
        if not self._queue.jobs:
            self._empty.set()

    def estimated_wait(self, work: Work) -> float:
        """Seconds until ``work`` would have its scores, as far as is known; 0 before the first full batch."""
        return self._seconds_for(self._queue.tokens_before(work) + work.tokens)

    def snapshot(self) -> dict[str, Any]:
        """What ``/info`` shows of the queue."""
        return {
            "state": self.state,
            "waiting_requests": len(self._queue.jobs),
            "waiting_tokens": self._queue.tokens,
            "queue_tokens": self._options.queue_tokens,
            "batch_tokens": self._dispatcher.budget.at(time.monotonic()) if self.state != "starting" else 0,
            "tokens_per_second": self._dispatcher.speed.tokens_per_second if self.state != "starting" else None,
        }

    async def drain(self) -> None:
        """Take no new work and return when the last request has its answer; the caller limits the time."""
        if self.state == "ready":
            self.state = "draining"
        await self._empty.wait()

    async def stop(self) -> None:
        """Answer whoever still waits with an error and give the engine back."""
        if self.state == "stopped":
            return
        was_started = self.state != "starting"
        was_dead = self.state == "dead"
        self.state = "stopped"
        self._fail_all(_draining)
        if was_started:
            self._loop_task.cancel()
            await asyncio.wait([self._loop_task])
        if not was_dead:
            with contextlib.suppress(TimeoutError):  # a pass under way cannot be broken off
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await self._thread.call(self._engine.close)
        self._thread.end()

    def _check_state(self) -> None:
        match self.state:
            case "starting":
                raise NotReady("the model is still loading", retry_after=2)
            case "draining" | "stopped":
                raise _draining()
            case "dead":
                raise _dead()
            case "ready":
                return

    def _refuse_hopeless(self, works: Sequence[Work], now: float) -> None:
        left = works[0].deadline - now
        if not (self._queue.tokens or self._dispatcher.running_tokens):
            # An idle engine refuses nothing: were the measured speed too low, nothing would ever correct it.
            return
        # Everything that waits, in any order, is the cheap upper bound; most of the time it is enough.
        if self._seconds_for(self._queue.tokens + sum(work.tokens for work in works)) <= left:
            return
        whole = works[0] if len(works) == 1 else replace(works[0], tails=sum((work.tails for work in works), ()))
        if (wait := self.estimated_wait(whole)) > left:
            raise Overloaded(
                f"the scores would take about {wait:.1f} s and the deadline is in {max(left, 0):.1f} s",
                retry_after=self._retry_after(),
            )

    def _seconds_for(self, tokens: int) -> float:
        """Time for the batch that runs and for ``tokens`` behind it, in whole batches where one is not enough."""
        budget = self._dispatcher.budget.at(time.monotonic())
        behind = tokens if tokens <= budget else math.ceil(tokens / budget) * budget
        return _CAUTION * self._dispatcher.speed.seconds_for(self._dispatcher.running_tokens + behind)

    def _retry_after(self) -> float:
        return min(60.0, max(1.0, self._dispatcher.speed.seconds_for(self._queue.tokens)))

    def _fail_all(self, error: Callable[[], ServiceError]) -> None:
        for job in self._queue.jobs:
            job.fail(error())

    def _dispatcher_ended(self, task: asyncio.Task[None]) -> None:
        """The loop ends on purpose in :meth:`stop` alone; any other end is the engine's death."""
        if self.state == "stopped":
            return
        error = None if task.cancelled() else task.exception()
        reason = str(error) or type(error).__name__ if error else "the dispatcher ended"
        self.state = "dead"
        _log.critical("the engine is dead", reason=reason, exc_info=None if isinstance(error, EngineGone) else error)
        self._fail_all(_dead)
        self._on_death(reason)


def _draining() -> Draining:
    return Draining("the server is shutting down", retry_after=1)


def _dead() -> EngineDead:
    return EngineDead("the engine is gone and the server is about to restart", retry_after=5)
