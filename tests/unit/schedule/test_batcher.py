from __future__ import annotations

import time

import numpy as np
import pytest
from tests.scheduling import make_work

from rerankd.errors import DeadlineExceeded
from rerankd.observe.metrics import Metrics
from rerankd.schedule.batcher import cost_of, lay_out, next_tickets
from rerankd.schedule.job import Job, Ticket
from rerankd.schedule.queue import Queue, QueueLimits
from rerankd.schedule.work import Work


def queue_of(*works: Work) -> tuple[Queue, list[Job]]:
    queue = Queue(QueueLimits(10**6, 1000, 0.5), Metrics())
    return queue, [queue.admit(work, {}) for work in works]


def take(queue: Queue, budget: int) -> list[Ticket]:
    return next_tickets(queue, budget, time.monotonic())


def jobs_of(tickets: list[Ticket]) -> list[Job]:
    return [ticket.waiters[0][0] for ticket in tickets]


async def test_a_batch_pays_each_prefix_once() -> None:
    queue, _ = queue_of(make_work(3, length=20, prefix=10), make_work(3, length=20, prefix=10, seed=1))
    tickets = take(queue, 140)
    assert len(tickets) == 6
    assert cost_of(tickets) == 140
    batch = lay_out(tickets)
    assert (batch.groups, batch.pairs, batch.tokens) == (2, 6, 140)


async def test_a_batch_never_exceeds_its_budget() -> None:
    queue, _ = queue_of(*(make_work(7, length=9 + seed, prefix=seed, seed=seed) for seed in range(20)))
    taken = 0
    while tickets := take(queue, 128):
        assert cost_of(tickets) <= 128
        taken += len(tickets)
    assert taken == 140
    assert queue.tokens == 0


async def test_a_pair_above_the_budget_goes_alone() -> None:
    queue, _ = queue_of(make_work(2, length=500), make_work(1, length=5, seed=1))
    sizes = [len(take(queue, 100)) for _ in range(3)]
    assert sorted(sizes) == [1, 1, 1]


async def test_a_small_job_shares_the_next_batch_with_a_large_one() -> None:
    queue, (large, small) = queue_of(make_work(1000), make_work(1, seed=1))
    first = jobs_of(take(queue, 800))
    assert small in first
    assert large in first


async def test_pairs_of_one_job_stand_side_by_side() -> None:
    queue, _ = queue_of(make_work(50, prefix=40), make_work(50, prefix=40, seed=1))
    tickets = take(queue, 2000)
    assert lay_out(tickets).groups == 2


async def test_the_layout_keeps_every_pairs_ids() -> None:
    works = [make_work(3, seed=seed, length=4 + seed) for seed in range(3)]
    queue, _ = queue_of(*works)
    prompts = lay_out(take(queue, 10_000)).prompts()
    expected = [np.concatenate([work.prefix, tail]).tolist() for work in works for tail in work.tails]
    assert [ids.tolist() for ids in prompts] == expected


async def test_a_job_past_its_deadline_gets_no_place_in_a_batch() -> None:
    queue, (late, other) = queue_of(make_work(2, seconds=-1), make_work(2, seed=1))
    assert set(jobs_of(take(queue, 1000))) == {other}
    with pytest.raises(DeadlineExceeded):
        await late.done
    assert late not in queue.jobs
