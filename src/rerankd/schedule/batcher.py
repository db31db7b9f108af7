"""The next batch: turns are taken in the queue's fair order until the token budget is used up."""

from __future__ import annotations

from rerankd.engine.base import Batch, Group
from rerankd.schedule.job import Job, Ticket
from rerankd.schedule.queue import Queue


def next_tickets(queue: Queue, budget: int, now: float) -> list[Ticket]:
    """Tickets for one forward pass, those of one job side by side; empty when nothing waits.

    A pair costs its tail, and its prefix when no other pair of its job is in the batch. A pair dearer than
    the whole budget goes alone: nobody but the engine can say whether it fits.
    """
    groups: dict[Job, list[Ticket]] = {}
    room = budget
    while (job := queue.next_job()) is not None:
        if job.work.deadline <= now:
            job.expire()
            queue.leave(job)
            continue
        used = _take_turn(queue, job, groups, room, now)
        if not used:
            break
        room -= used
        queue.turn_over(job, used)
    return [ticket for group in groups.values() for ticket in group]


def _take_turn(queue: Queue, job: Job, groups: dict[Job, list[Ticket]], room: int, now: float) -> int:
    """Move pairs of one job into the batch, at most a quantum and no more than fits; the tokens used."""
    used = 0
    while used < queue.quantum and (index := queue.next_pair(job)) is not None:
        cost = len(job.work.tails[index]) + (0 if job in groups else len(job.work.prefix))
        if groups and used + cost > room:
            break
        groups.setdefault(job, []).append(queue.take(job, index, now))
        used += cost
    return used


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
