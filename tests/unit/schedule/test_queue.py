from __future__ import annotations

import time

import pytest
from tests.scheduling import make_work

from rerankd.errors import Overloaded, TooLarge
from rerankd.observe.metrics import Metrics
from rerankd.schedule.batcher import next_tickets
from rerankd.schedule.job import Job, Ticket
from rerankd.schedule.queue import Queue, QueueLimits
from rerankd.schedule.work import Work


def make_queue(tokens: int = 1000, requests: int = 10, share: float = 0.5) -> Queue:
    return Queue(QueueLimits(tokens, requests, share), Metrics())


def admit(queue: Queue, work: Work) -> Job:
    queue.check_room([work], retry_after=3.0)
    return queue.admit(work, {})


def take(queue: Queue, budget: int = 10**6) -> list[Ticket]:
    return next_tickets(queue, budget, time.monotonic())


def deliver(queue: Queue, tickets: list[Ticket]) -> None:
    for ticket in tickets:
        queue.forget(ticket)
        for job, index in ticket.waiters:
            job.deliver(index, 1.0, time.monotonic())


async def test_a_request_is_admitted_whole_or_not_at_all() -> None:
    queue = make_queue(tokens=100)
    admit(queue, make_work(2, length=20, prefix=10))
    with pytest.raises(Overloaded) as refused:
        admit(queue, make_work(3, length=20, prefix=10, seed=1))
    assert (refused.value.retry_after, refused.value.setting) == (3.0, "queue_tokens")
    assert queue.tokens == 50
    admit(queue, make_work(2, length=20, prefix=10, seed=1))


async def test_more_than_the_whole_queue_is_too_large_and_names_the_setting() -> None:
    with pytest.raises(TooLarge, match="110 tokens") as refused:
        admit(make_queue(tokens=100), make_work(5, length=20, prefix=10))
    assert refused.value.setting == "queue_tokens"


async def test_the_number_of_requests_is_bounded() -> None:
    queue = make_queue(requests=3)
    jobs = [admit(queue, make_work(seed=seed)) for seed in range(3)]
    with pytest.raises(Overloaded, match="requests") as refused:
        admit(queue, make_work(seed=3))
    assert refused.value.setting == "queue_requests"
    queue.leave(jobs[0])
    admit(queue, make_work(seed=3))


async def test_one_tenant_alone_may_fill_the_queue() -> None:
    queue = make_queue(requests=10)
    for seed in range(10):
        admit(queue, make_work(seed=seed, tenant="a"))
    assert len(queue.jobs) == 10


async def test_a_full_queue_of_one_tenant_does_not_lock_out_the_next() -> None:
    queue = make_queue(requests=10)
    for seed in range(10):
        admit(queue, make_work(seed=seed, tenant="a"))
    for seed in range(10, 15):
        admit(queue, make_work(seed=seed, tenant="b"))
    with pytest.raises(Overloaded):
        admit(queue, make_work(seed=15, tenant="b"))


async def test_a_tenant_keeps_to_its_share_while_others_wait() -> None:
    queue = make_queue(requests=10)
    admit(queue, make_work(seed=0, tenant="b"))
    for seed in range(1, 6):
        admit(queue, make_work(seed=seed, tenant="a"))
    with pytest.raises(Overloaded) as refused:
        admit(queue, make_work(seed=6, tenant="a"))
    assert refused.value.setting == "max_tenant_share"


async def test_a_tenant_with_nothing_waiting_may_exceed_its_share_once() -> None:
    queue = make_queue(tokens=1000)
    admit(queue, make_work(1, tenant="b"))
    admit(queue, make_work(40, length=20, seed=1, tenant="a"))
    with pytest.raises(Overloaded):
        admit(queue, make_work(1, seed=2, tenant="a"))


async def test_all_accounts_return_to_zero() -> None:
    metrics = Metrics()
    queue = Queue(QueueLimits(10**6, 100, 0.5), metrics)
    jobs = [admit(queue, make_work(5, seed=seed // 2, tenant=str(seed % 3))) for seed in range(12)]
    queue.leave(jobs[0])
    first = take(queue, 200)
    queue.leave(jobs[5])
    deliver(queue, first)
    while tickets := take(queue, 100):
        deliver(queue, tickets)
    for job in jobs:
        queue.leave(job)
    assert (queue.tokens, len(queue.jobs), len(queue._tenants), len(queue._in_flight)) == (0, 0, 0, 0)
    assert metrics.registry.get_sample_value("reranker_queue_tokens") == 0
    assert metrics.registry.get_sample_value("reranker_queue_requests") == 0


async def test_equal_pairs_are_one_ticket() -> None:
    queue = make_queue()
    one, two = admit(queue, make_work(2)), admit(queue, make_work(2))
    tickets = take(queue)
    assert len(tickets) == 2
    deliver(queue, tickets)
    assert one.done.done()
    assert two.done.done()


async def test_equal_pairs_of_one_request_are_one_ticket() -> None:
    queue = make_queue()
    work = make_work(1)
    assert work.keys is not None
    job = admit(queue, Work(work.prefix, work.tails * 3, work.keys * 3, work.deadline))
    deliver(queue, take(queue))
    assert job.result().outcomes == (1.0, 1.0, 1.0)


async def test_a_pair_in_a_running_batch_is_joined() -> None:
    queue = make_queue()
    admit(queue, make_work(2))
    running = take(queue)
    late = admit(queue, make_work(2))
    assert take(queue) == []
    deliver(queue, running)
    assert late.done.done()


async def test_a_shared_pair_goes_with_the_line_that_moves_first() -> None:
    queue = make_queue(tokens=10**6)
    long = make_work(500, tenant="flood")
    admit(queue, long)
    assert long.keys is not None
    last = Work(long.prefix, long.tails[-1:], long.keys[-1:], long.deadline, tenant="small")
    small = admit(queue, last)
    deliver(queue, take(queue, 200))
    assert small.done.done()


async def test_works_without_keys_share_nothing() -> None:
    queue = make_queue()
    admit(queue, make_work(2, shared=False))
    admit(queue, make_work(2, shared=False))
    assert len(take(queue)) == 4


async def test_leaving_drops_only_what_nobody_else_wants() -> None:
    queue = make_queue()
    one, two = admit(queue, make_work(2)), admit(queue, make_work(2))
    alone = admit(queue, make_work(3, seed=1))
    queue.leave(one)
    queue.leave(alone)
    tickets = take(queue)
    assert len(tickets) == 2
    deliver(queue, tickets)
    assert two.done.done()


async def test_a_low_priority_waits_longer_but_not_forever() -> None:
    queue = make_queue(tokens=10**6, requests=1000)
    low = admit(queue, make_work(1, seed=1000, priority=9))
    served = []
    for seed in range(30):
        admit(queue, make_work(1, seed=seed, priority=0))
        tickets = take(queue, budget=30)
        served.append(tickets[0].waiters[0][0])
        deliver(queue, tickets)
    assert served[0] is not low
    assert low in served


async def test_about_equal_jobs_are_ended_in_turn() -> None:
    queue = make_queue(tokens=10**6, requests=100)
    jobs = [admit(queue, make_work(10, length=20 - seed % 3, seed=seed)) for seed in range(20)]
    ended = []
    while tickets := take(queue, budget=300):
        deliver(queue, tickets)
        ended += [job for job in jobs if job.done.done() and job not in ended]
        assert sum(0 < job.missing < 10 for job in jobs) <= 2
    assert ended == jobs


async def test_tenants_get_equal_shares_however_much_they_ask_for() -> None:
    queue = make_queue(tokens=10**6, requests=1000)
    for seed in range(100):
        admit(queue, make_work(10, seed=seed, tenant="flood"))
    others = [admit(queue, make_work(10, seed=1000 + seed, tenant="other")) for seed in range(5)]
    for _ in range(10):
        deliver(queue, take(queue, budget=300))
    assert all(job.done.done() for job in others)


async def test_a_stream_of_small_jobs_does_not_starve_a_large_one() -> None:
    queue = make_queue(tokens=10**6, requests=1000)
    large = admit(queue, make_work(100, seed=10_000))
    for turn in range(200):
        for offset in range(20):
            admit(queue, make_work(1, seed=turn * 20 + offset))
        for job in [job for job in queue.jobs if job.done.done()]:
            queue.leave(job)
        deliver(queue, take(queue, budget=300))
        if large.done.done():
            break
    assert turn < 20


async def test_tokens_before_a_small_request_do_not_count_all_of_a_large_one() -> None:
    queue = make_queue(tokens=10**6)
    admit(queue, make_work(1000, length=20))
    assert queue.tokens_before(make_work(1, seed=1)) == 0
    assert queue.tokens_before(make_work(1, seed=1, tenant="other")) == 0
    assert queue.tokens_before(make_work(5000, seed=1)) == 2 * 20_010
