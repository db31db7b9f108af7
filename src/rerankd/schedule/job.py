"""A request's progress through the queue, and the pairs that requests share."""

from __future__ import annotations

import asyncio
import time
from collections import deque

from rerankd.errors import DeadlineExceeded, ScoringError, ServiceError
from rerankd.schedule.work import ScoredWork, Work
from rerankd.types import IdArray, Outcome


class Ticket:
    """One pair on its way to the engine, for every job that waits for it.

    A ticket stands in the line of each of its jobs; whichever line moves first takes it along, so that a
    shared pair is scored once and never later than any of its jobs would have had it alone.
    """

    __slots__ = ("failures", "heir", "key", "prefix", "tail", "taken", "waiters")

    def __init__(self, key: bytes | None) -> None:
        self.key = key
        self.waiters: list[tuple[Job, int]] = []
        self.heir: tuple[Job, int] | None = None
        """The last waiter to leave while the pair was with the engine: its work keeps the score."""
        self.taken = False
        self.failures = 0
        """Failed passes that it was part of."""
        self.prefix: IdArray
        self.tail: IdArray

    @property
    def is_wanted(self) -> bool:
        return bool(self.waiters)


class Job:
    """One :class:`Work` between admission and its last outcome. Lives on the event loop alone."""

    __slots__ = (
        "done",
        "finish",
        "line",
        "missing",
        "outcomes",
        "queued_at",
        "started_at",
        "tickets",
        "tokens",
        "work",
    )

    def __init__(self, work: Work, denied: dict[int, ScoringError]) -> None:
        self.work = work
        self.tickets: dict[int, Ticket] = {}
        self.line: deque[int] = deque()
        """Pairs that may still wait; those that another job's turn took along are skipped when met."""
        self.tokens = 0
        """Tokens of this job that wait; kept by the queue."""
        self.finish = 0.0
        """Virtual time at which its fair share is served; set by the queue."""
        self.outcomes: list[Outcome | None] = [denied.get(index) for index in range(len(work.tails))]
        self.missing = len(work.tails) - len(denied)
        self.queued_at = time.monotonic()
        self.started_at: float | None = None
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if not self.missing:
            self.done.set_result(None)

    def deliver(self, index: int, outcome: Outcome, now: float) -> None:
        self.outcomes[index] = outcome
        self.missing -= 1
        if self.missing:
            return
        if now > self.work.deadline:
            self.expire()
        elif not self.done.done():
            self.done.set_result(None)

    def fail(self, error: ServiceError) -> None:
        """Answer the waiting request with an error; one that is answered already keeps its answer."""
        if not self.done.done():
            self.done.set_exception(error)

    def expire(self) -> None:
        self.fail(DeadlineExceeded("the deadline passed before the scores were there"))

    def keep_scores(self) -> None:
        """The request ends without its scores: those that are there already are not lost."""
        if scores := {index: outcome for index, outcome in enumerate(self.outcomes) if isinstance(outcome, float)}:
            self.work.keep(scores)

    def result(self) -> ScoredWork:
        started = self.started_at or self.queued_at
        return ScoredWork(
            outcomes=tuple(outcome for outcome in self.outcomes if outcome is not None),
            queue_seconds=started - self.queued_at,
            engine_seconds=time.monotonic() - started,
        )
