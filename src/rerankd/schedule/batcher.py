"""The next batch: half by fair share, half for far shorter requests, until the token budget is used up."""

from __future__ import annotations

from collections.abc import Iterable

from rerankd.engine.base import Batch, Group
from rerankd.schedule.job import Job, Ticket
from rerankd.schedule.queue import FAIR_SHARE, Queue


class _Draft:
    """A batch that is being filled."""

    def __init__(self, queue: Queue, now: float) -> None:
        self.groups: dict[Job, list[Ticket]] = {}
        self._queue = queue
        self._now = now
        self._tokens = 0

    def fill(self, jobs: Iterable[Job], budget: int) -> None:
        """Take pairs of the jobs in turn until one does not fit any more."""
        for job in jobs:
            if job.work.deadline <= self._now:
                job.expire()
                self._queue.leave(job)
            elif not self._take(job, budget):
                break

    def _take(self, job: Job, budget: int) -> bool:
        """All pairs of a job, or those that fit; whether all did.

        A pair dearer than the whole budget goes alone: nobody but the engine can say whether it fits.
        """
        while (index := self._queue.next_pair(job)) is not None:
            cost = len(job.work.tails[index]) + (0 if job in self.groups else len(job.work.prefix))
            if self.groups and self._tokens + cost > budget:
                return False
            self.groups.setdefault(job, []).append(self._queue.take(job, index, self._now))
            self._tokens += cost
        return True


def next_tickets(queue: Queue, budget: int, now: float) -> list[Ticket]:
    """Tickets for one forward pass of ``budget`` tokens, those of one job side by side; none if nothing waits."""
    draft = _Draft(queue, now)
    draft.fill(queue.by_finish(), int(budget * FAIR_SHARE))
    draft.fill(queue.overtakers(), budget)
    draft.fill(queue.by_finish(), budget)
    return [ticket for group in draft.groups.values() for ticket in group]


def lay_out(tickets: list[Ticket]) -> Batch:
    """The flat batch of tickets in their order; neighbours with the same prefix form a group."""
    groups: list[tuple[Ticket, list[Ticket]]] = []
    for ticket in tickets:
        if not groups or groups[-1][0].prefix is not ticket.prefix:
            groups.append((ticket, []))
        groups[-1][1].append(ticket)
    return Batch.of([Group(first.prefix, tuple(ticket.tail for ticket in group)) for first, group in groups])


def cost_of(tickets: list[Ticket]) -> int:
    """Tokens that a forward pass over these tickets computes."""
    prefixes = {id(ticket.prefix): len(ticket.prefix) for ticket in tickets}
    return sum(prefixes.values()) + sum(len(ticket.tail) for ticket in tickets)
