"""The bounded queue: admits a request whole or not at all, and says whose turn it is."""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter

from rerankd.errors import ScoringError, TooLarge
from rerankd.observe.metrics import Metrics
from rerankd.schedule.job import Job, Ticket
from rerankd.schedule.room import Room
from rerankd.schedule.work import Work

FAIR_SHARE = 0.5
"""Of each batch, for the fair order; the rest is for jobs that may overtake."""

OVERTAKING_SIZES = 2
"""Powers of two by which a job has to be shorter to overtake. Were less enough, then under overload half of
about equal requests would overtake the other half until those miss their deadlines."""


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """How much may wait, and how much of it for one tenant while others wait too."""

    tokens: int
    requests: int
    max_tenant_share: float


class Tenant:
    """What one caller has in the queue."""

    __slots__ = ("finish", "requests", "tokens")

    def __init__(self, finish: float) -> None:
        self.finish = finish
        """Virtual time at which its last job's fair share is served."""
        self.requests = 0
        self.tokens = 0


class Queue:
    """Jobs that wait for the engine, in two orders that the batcher mixes.

    ``by_finish`` is weighted fair queueing: the job first that would end first if the engine served all
    tenants at once, each at the same speed. A tenant that floods stands in its own way, jobs of one tenant go
    in turn, and whatever is begun is ended: sharing the engine between all jobs would let every one of them
    miss its deadline under overload. ``overtakers`` are far shorter jobs, so that a single document need not
    wait for the thousand of an earlier request.

    Priority p makes a job (1 + p) times as long in both orders: it comes later, but it comes.
    """

    def __init__(self, limits: QueueLimits, metrics: Metrics) -> None:
        self.tokens = 0
        """Tokens that wait, those in a batch not counted."""
        self.jobs: set[Job] = set()
        """Every request that waits or runs."""
        self._request_room = Room("requests", limits.requests, limits.max_tenant_share, "queue_requests")
        self._token_room = Room("tokens", limits.tokens, limits.max_tenant_share, "queue_tokens")
        self._metrics = metrics
        self._tenants: dict[str, Tenant] = {}
        self._in_flight: dict[bytes, Ticket] = {}
        self._line: list[tuple[float, int, Job]] = []
        """A heap by virtual finish; jobs that left or have nothing waiting are passed over when they come up."""
        self._arrival = itertools.count()
        self._clock = 0.0
        """Virtual time: the finish of the job that is served in the fair order."""

    def check_room(self, works: Sequence[Work], retry_after: float) -> None:
        """Whether all works of one caller may join now.

        Args:
            retry_after: seconds to name to a caller that is refused.

        Raises:
            TooLarge: they would not even fit into an empty queue.
            Overloaded: the queue, or the tenant's share of it, has no room now.
        """
        requests, tokens = len(works), sum(work.tokens for work in works)
        for what, asked, room in (("tokens", tokens, self._token_room), ("queries", requests, self._request_room)):
            if asked > room.limit:
                raise TooLarge(
                    f"the request has {asked} {what} to score, more than the whole queue holds ({room.limit})",
                    setting=room.setting,
                )
        own = self._tenants.get(works[0].tenant)
        others = [other for other in self._tenants.values() if other is not own]
        own_requests, own_tokens = (own.requests, own.tokens) if own else (0, 0)
        self._request_room.check(requests, own_requests, [other.requests for other in others], retry_after)
        self._token_room.check(tokens, own_tokens, [other.tokens for other in others], retry_after)

    def admit(self, work: Work, denied: dict[int, ScoringError]) -> Job:
        """Queue all pairs of a request that :meth:`check_room` has room for.

        Args:
            denied: outcomes that are known without the engine, by index.
        """
        tenant = self._tenants.get(work.tenant) or Tenant(self._clock)
        job = Job(work, denied)
        self.jobs.add(job)
        self._tenants[work.tenant] = tenant
        tenant.requests += 1
        self._metrics.queue_requests.inc()
        for index in range(len(work.tails)):
            if index not in denied:
                self._stand_in_line(job, index)
        if job.line:
            self._charge(job, tenant, len(work.prefix) + sum(len(work.tails[index]) for index in job.line))
            job.finish = self._finish(tenant, job.tokens, work.priority)
            tenant.finish = self._finish(tenant, job.tokens, 0)
            heapq.heappush(self._line, (job.finish, next(self._arrival), job))
        return job

    def leave(self, job: Job) -> None:
        """The request behind a job was answered or has gone; pairs that nobody else waits for are dropped."""
        if job not in self.jobs:
            return
        self.jobs.discard(job)
        dropped = 0
        for index, ticket in job.tickets.items():
            if job.outcomes[index] is None:
                ticket.waiters.remove((job, index))
                if ticket.waiters:
                    continue
                if ticket.taken:
                    ticket.heir = job, index
                else:
                    self.forget(ticket)
                    dropped += 1
        if dropped:
            reason = "deadline" if time.monotonic() >= job.work.deadline else "cancelled"
            self._metrics.dropped_pairs.labels(reason).inc(dropped)
        job.line.clear()
        tenant = self._tenants[job.work.tenant]
        self._charge(job, tenant, -job.tokens)
        tenant.requests -= 1
        self._metrics.queue_requests.dec()
        if not tenant.requests:
            del self._tenants[job.work.tenant]
        if not self.jobs:
            self._line.clear()

    def forget(self, ticket: Ticket) -> None:
        """A ticket has its outcome or is wanted no more: an equal pair from now on is a new one."""
        if ticket.key is not None and self._in_flight.get(ticket.key) is ticket:
            del self._in_flight[ticket.key]

    def by_finish(self) -> Iterator[Job]:
        """Jobs that wait, in the order of their fair shares; a job comes again until its last pair is taken."""
        while self._line:
            finish, _, job = self._line[0]
            if self.next_pair(job) is None:
                heapq.heappop(self._line)
                continue
            self._clock = max(self._clock, finish)
            yield job

    def overtakers(self) -> list[Job]:
        """Jobs far shorter than the one whose turn it is, the shortest first."""
        head = next(self.by_finish(), None)
        if head is None:
            return []
        limit = _size(head.tokens, head.work.priority) - OVERTAKING_SIZES
        short = [(_size(job.tokens, job.work.priority), job.finish, job) for job in self.jobs if job.tokens]
        return [job for _, _, job in sorted((row for row in short if row[0] <= limit), key=itemgetter(0, 1))]

    def next_pair(self, job: Job) -> int | None:
        """Index of the pair of a job that comes next; pairs that went with another job's turn are passed over."""
        while job.line and job.tickets[job.line[0]].taken:
            job.line.popleft()
        return job.line[0] if job.line else None

    def take(self, job: Job, index: int, now: float) -> Ticket:
        """Move a job's first pair out of the queue, for all that wait for it."""
        ticket = job.tickets[index]
        ticket.taken, ticket.prefix, ticket.tail = True, job.work.prefix, job.work.tails[index]
        for waiter, place in ticket.waiters:
            if waiter.started_at is None:
                waiter.started_at = now
                self._metrics.queue_seconds.observe(now - waiter.queued_at)
            tokens = len(waiter.work.tails[place])
            # The prefix is paid for once: the last pair to go takes its share along.
            is_last = waiter.tokens - tokens == len(waiter.work.prefix)
            self._charge(waiter, self._tenants[waiter.work.tenant], -waiter.tokens if is_last else -tokens)
        job.line.popleft()
        return ticket

    def tokens_before(self, work: Work) -> int:
        """Tokens that are served before ``work`` would be, if it joined now."""
        tokens = work.tokens
        tenant = self._tenants.get(work.tenant) or Tenant(self._clock)
        finish = self._finish(tenant, tokens, work.priority)
        longest = _size(tokens, work.priority) + OVERTAKING_SIZES
        ahead = (job for job in self.jobs if job.finish <= finish)
        return int(sum(job.tokens for job in ahead if _size(job.tokens, job.work.priority) < longest) / FAIR_SHARE)

    def _finish(self, tenant: Tenant, tokens: int, priority: int) -> float:
        return max(self._clock, tenant.finish) + tokens * (1 + priority)

    def _stand_in_line(self, job: Job, index: int) -> None:
        key = job.work.keys[index] if job.work.keys is not None else None
        ticket = self._in_flight.get(key) if key is not None else None
        if ticket is None:
            ticket = Ticket(key)
            if key is not None:
                self._in_flight[key] = ticket
        else:
            self._metrics.cache_shared.inc()
        ticket.waiters.append((job, index))
        job.tickets[index] = ticket
        if not ticket.taken:
            job.line.append(index)

    def _charge(self, job: Job, tenant: Tenant, tokens: int) -> None:
        job.tokens += tokens
        tenant.tokens += tokens
        self.tokens += tokens
        self._metrics.queue_tokens.inc(tokens)


def _size(tokens: int, priority: int) -> int:
    """A job's size as a power of two."""
    return (tokens * (1 + priority)).bit_length()
