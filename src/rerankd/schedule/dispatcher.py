"""The loop: take a batch, run it, deliver. Whatever ends it ends the scheduler, never silently."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import structlog

from rerankd.engine.base import Engine, EngineFault
from rerankd.errors import NonFiniteScore, ScoringError
from rerankd.observe.metrics import Metrics
from rerankd.schedule.batcher import cost_of, next_tickets
from rerankd.schedule.budget import Speed, TokenBudget
from rerankd.schedule.engine_thread import EngineThread
from rerankd.schedule.job import Job, Ticket
from rerankd.schedule.options import ScheduleOptions
from rerankd.schedule.queue import Queue
from rerankd.schedule.recovery import DenyList, Failure, FailureKind, attempt, pieces
from rerankd.types import Outcome

T = TypeVar("T")

_log = structlog.get_logger(__name__)
_FAILED_CHECKS = 3


class EngineGone(Exception):
    """The engine cannot score any more; the message says why."""


class Dispatcher:
    """Feeds the engine one batch at a time.

    The next batch is formed when the engine is free and not before: forming takes some microseconds a pair,
    and a pair that is not yet in a batch can still be overtaken, shared or dropped.
    """

    def __init__(
        self, engine: Engine, thread: EngineThread, queue: Queue, options: ScheduleOptions, metrics: Metrics
    ) -> None:
        self.budget = TokenBudget(engine.info.max_batch_tokens, options.calm_seconds)
        self.speed = Speed()
        self.denied = DenyList(options.deny_seconds)
        self.running_tokens = 0
        self._engine = engine
        self._thread = thread
        self._queue = queue
        self._options = options
        self._metrics = metrics
        self._longest_pass = 0.0
        self._busy_since: float | None = None
        self._failed_checks = 0
        self._retries: list[list[Ticket]] = []
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """There is something new in the queue."""
        self._wake.set()

    async def run(self) -> None:
        """Score until cancelled.

        Raises:
            EngineGone: the engine died, hangs, or failed its idle check several times in a row.
        """
        while True:
            self._wake.clear()
            if tickets := self._next():
                await self._score(tickets)
            else:
                await self._idle()

    def _next(self) -> list[Ticket]:
        while self._retries:
            piece = self._retries.pop()
            if wanted := self._still_wanted(piece):
                return wanted
        now = time.monotonic()
        return next_tickets(self._queue, self.budget.at(now), now)

    def _still_wanted(self, tickets: list[Ticket]) -> list[Ticket]:
        for ticket in tickets:
            if not ticket.waiters:
                self._queue.forget(ticket)
        return [ticket for ticket in tickets if ticket.waiters]

    async def _score(self, tickets: list[Ticket]) -> None:
        """One forward pass, and what follows from it."""
        self.running_tokens = tokens = cost_of(tickets)
        started = time.monotonic()
        result = await self._on_thread(tokens, attempt, self._engine, tickets)
        ended = time.monotonic()
        seconds = ended - started
        # Whatever keeps this loop from the engine between two passes makes the waiting longer too.
        busy_since, self._busy_since = self._busy_since or started, ended
        self.running_tokens = 0
        self._metrics.batch_pairs.observe(len(tickets))
        self._metrics.batch_tokens.observe(tokens)
        self._metrics.engine_seconds.observe(seconds)
        if isinstance(result, Failure):
            self._recover(tickets, tokens, result)
            return
        self._longest_pass = max(self._longest_pass, seconds / self._passes(tokens))
        self.speed.observe(tokens, ended - busy_since, self.budget.at(started))
        self._deliver(zip(tickets, map(_outcome, result.tolist()), strict=True))

    def _passes(self, tokens: int) -> float:
        """A pair alone may have more tokens than the budget: as how many full passes it then counts."""
        return max(1.0, tokens / self.budget.full)

    async def _on_thread(self, tokens: int, function: Callable[..., T], *args: Any) -> T:
        limit = max(self._options.engine_timeout_seconds, 2 * self._longest_pass) * self._passes(tokens)
        try:
            async with asyncio.timeout(limit):
                return await self._thread.call(function, *args)
        except TimeoutError:
            self._metrics.engine_failures.labels("hang").inc()
            raise EngineGone(
                f"a forward pass of {tokens} tokens did not return within {limit:.3g} s"
                " (setting engine_timeout_seconds)"
            ) from None

    async def _idle(self) -> None:
        """Wait for work; ask an engine that is idle for long whether it is still able to score."""
        self._busy_since = None
        try:
            async with asyncio.timeout(self._options.check_seconds):
                await self._wake.wait()
        except TimeoutError:
            await self._check()

    async def _check(self) -> None:
        try:
            is_healthy = await self._on_thread(0, self._engine.health)
        except EngineFault as fault:
            raise EngineGone(str(fault)) from None
        except Exception:  # one that does not return too: a machine that swaps is no dead engine
            _log.exception("the engine's health check failed")
            is_healthy = False
        self._failed_checks = 0 if is_healthy else self._failed_checks + 1
        if self._failed_checks == _FAILED_CHECKS:
            raise EngineGone(f"the engine failed {_FAILED_CHECKS} health checks in a row")

    def _recover(self, tickets: list[Ticket], tokens: int, failure: Failure) -> None:
        self._metrics.engine_failures.labels(failure.kind).inc()
        _log.warning("a batch failed", kind=failure.kind, reason=failure.reason, pairs=len(tickets), tokens=tokens)
        if failure.kind is FailureKind.FAULT:
            raise EngineGone(failure.reason)
        now = time.monotonic()
        if failure.kind is FailureKind.OUT_OF_MEMORY:
            self.budget.lower(tokens, now)
        if failure.kind is FailureKind.POISON:
            for ticket in tickets:
                ticket.failures += 1
        if smaller := pieces(tickets, failure.kind):
            self._retries.extend(reversed(smaller))
            return
        if failure.kind is FailureKind.POISON:
            self.denied.record(tickets[0], now)
        error = ScoringError(_MESSAGES[failure.kind])
        self._deliver((ticket, error) for ticket in tickets)

    def _deliver(self, outcomes: Iterable[tuple[Ticket, Outcome]]) -> None:
        now = time.monotonic()
        late: dict[Job, dict[int, float]] = {}
        for ticket, outcome in outcomes:
            self._queue.forget(ticket)
            if isinstance(outcome, ScoringError):
                self._metrics.failed_pairs.labels(outcome.code).inc()
            elif not ticket.waiters and ticket.heir is not None:
                job, index = ticket.heir
                late.setdefault(job, {})[index] = outcome
            for job, index in ticket.waiters:
                job.deliver(index, outcome, now)
            ticket.waiters.clear()
        for job, scores in late.items():
            job.work.keep(scores)


def _outcome(logit: float) -> Outcome:
    if math.isfinite(logit):
        return logit
    return NonFiniteScore("the engine's score of this document is not a finite number")


_MESSAGES = {
    FailureKind.POISON: "the engine failed on this document",
    FailureKind.OUT_OF_MEMORY: "the engine's memory is too small for this document alone",
    FailureKind.WRONG_LENGTH: "the engine returned a wrong number of scores",
}
