"""Section C: poison, memory, numbers that are none, and the engine's death."""

from __future__ import annotations

import asyncio
import time

import pytest
from tests.figures import Measured
from tests.scheduling import POISON, errors_of, make_request, right_scores, running

from rerankd.engine.fake import FakeScript
from rerankd.errors import EngineDead, NonFiniteScore, ScoringError


@pytest.mark.promise("C-01")
async def test_a_poison_document_does_not_fail_its_neighbours(measured: Measured) -> None:
    async with running(FakeScript(fail_on=POISON)) as bench:
        work = make_request(64, marked=[37])
        outcomes = await bench.score(work)
        assert errors_of(outcomes) == {37: ScoringError}
        right = sum(got == want for got, want in zip(outcomes, right_scores(work), strict=True))
        extra = bench.engine.passes - 1
        assert bench.metric("reranker_failed_pairs_total", code="engine_error") == 1
    measured(
        "C-01", "64 pairs, one raises", "63/63 right, <= 12 extra passes", f"{right}/63 right, {extra} extra passes"
    )
    assert (right, extra <= 12) == (63, True)


@pytest.mark.promise("C-02")
async def test_two_poisons_in_two_requests_cost_each_request_its_own(measured: Measured) -> None:
    async with running(FakeScript(fail_on=POISON)) as bench:
        works = [make_request(16, seed=seed, marked=marked) for seed, marked in enumerate([[3], [], [9], []])]
        scored = await asyncio.gather(*(bench.score(work) for work in works))
        errors = [errors_of(one) for one in scored]
    measured(
        "C-02",
        "two poisons in two of four requests",
        "each loses only its own",
        f"lost {[list(one) for one in errors]}",
    )
    assert errors == [{3: ScoringError}, {}, {9: ScoringError}, {}]


async def test_a_poison_pair_is_not_tried_a_third_time() -> None:
    async with running(FakeScript(fail_on=POISON)) as bench:
        for _ in range(2):
            await bench.score(make_request(1, marked=[0]))
        scored = await bench.score(make_request(1, marked=[0]))
        assert bench.engine.passes == 2
        assert errors_of(scored) == {0: ScoringError}
        scored = await bench.score(make_request(4, marked=[0]))
        assert errors_of(scored) == {0: ScoringError}
        assert bench.engine.passes == 3


@pytest.mark.promise("C-03")
async def test_a_wrong_number_of_scores_fails_its_batch_alone(measured: Measured) -> None:
    async with running(FakeScript(missing_scores=1)) as bench:
        outcomes = await bench.score(make_request(8))
        count = bench.metric("reranker_engine_failures_total", kind="wrong_length")
        bench.engine.script = FakeScript()
        work = make_request(8)
        after = list(await bench.score(work)) == right_scores(work)
        assert len(errors_of(outcomes)) == 8
        assert bench.engine.passes == 2
    measured(
        "C-03",
        "the engine returns n - 1 scores",
        "500 for the batch, counter +1",
        f"8/8 errors, counter +{count:.0f}, next batch right: {after}",
    )
    assert (count, after) == (1, True)


@pytest.mark.promise("C-04")
async def test_out_of_memory_splits_and_recovers(measured: Measured) -> None:
    async with running(FakeScript(oom_above_tokens=4096), max_batch_tokens=16_384) as bench:
        works = [make_request(50, length=90, prefix=10, seed=seed) for seed in range(4)]
        scored = await asyncio.gather(*(bench.score(work) for work in works))
        assert all(errors_of(one) == {} for one in scored)
        before = bench.metric("reranker_engine_failures_total", kind="out_of_memory")
        later = [make_request(5, length=90, seed=seed) for seed in range(100, 200)]
        assert all(errors_of(one) == {} for one in await asyncio.gather(*map(bench.score, later)))
        again = bench.metric("reranker_engine_failures_total", kind="out_of_memory") - before
        budget = bench.thread.status.budget
    measured(
        "C-04",
        "memory for 4,096 tokens, batches of 16,384",
        "all scored, next 100 without OOM",
        f"all scored, {before:.0f} OOM, budget {budget}, then {again:.0f}",
    )
    assert (before >= 1, again, budget <= 4096) == (True, 0, True)


@pytest.mark.promise("C-06")
async def test_a_single_pair_too_big_fails_alone(measured: Measured) -> None:
    async with running(FakeScript(oom_above_tokens=1000)) as bench:
        big = make_request(1, length=2000, seed=1)
        works = [make_request(5), big, make_request(5, seed=2)]
        scored = await asyncio.gather(*(bench.score(work) for work in works))
        errors = [errors_of(one) for one in scored]
        ready = bench.thread.state == "ready"
    measured(
        "C-06",
        "one pair does not fit, alone",
        "500 for it only, server ready",
        f"errors {[len(one) for one in errors]}, ready: {ready}",
    )
    assert (errors, ready) == ([{}, {0: ScoringError}, {}], True)


@pytest.mark.promise("C-07")
async def test_a_score_that_is_not_a_number_is_reported_for_that_document(measured: Measured) -> None:
    async with running(FakeScript(nan_on=POISON)) as bench:
        work = make_request(10, marked=[3])
        outcomes = await bench.score(work)
        right = sum(got == want for got, want in zip(outcomes, right_scores(work), strict=True))
        assert errors_of(outcomes) == {3: NonFiniteScore}
        assert bench.engine.passes == 1
        assert bench.metric("reranker_failed_pairs_total", code="non_finite_score") == 1
    measured("C-07", "NaN at index 3 of 10", "9 right, that one an error", f"{right} right, error at 3")
    assert right == 9


@pytest.mark.promise("C-08")
async def test_an_infinite_logit_is_an_error_not_a_number(measured: Measured) -> None:
    async with running(FakeScript(inf_on=POISON)) as bench:
        outcomes = await bench.score(make_request(4, marked=[1, 2]))
    measured("C-08", "infinite logits", "defined result or error", f"errors at {list(errors_of(outcomes))}")
    assert errors_of(outcomes) == {1: NonFiniteScore, 2: NonFiniteScore}


@pytest.mark.promise("C-09")
async def test_a_sticky_fault_answers_every_waiter_and_is_told_once(measured: Measured) -> None:
    async with running(FakeScript(seconds_per_batch=0.01, die_on=POISON), max_batch_tokens=500) as bench:
        started = time.monotonic()
        works = [make_request(10, seed=seed, marked=[5] if seed == 3 else []) for seed in range(50)]
        results = await asyncio.gather(*(bench.score(work) for work in works), return_exceptions=True)
        seconds = time.monotonic() - started
        dead = sum(isinstance(result, EngineDead) for result in results)
        passes = bench.engine.passes
        with pytest.raises(EngineDead):
            await bench.score(make_request())
        assert bench.engine.passes == passes
        assert len(bench.deaths) == 1
    measured(
        "C-09",
        "sticky fault",
        "all waiters 503 within 1 s",
        f"{dead} of 50 waiters 503 in {seconds:.2f} s, no pass after",
    )
    assert dead >= 40
    assert seconds < 1


async def test_an_engine_that_dies_is_not_asked_again() -> None:
    async with running(FakeScript(die_after=2)) as bench:
        for seed in range(2):
            await bench.score(make_request(seed=seed))
        with pytest.raises(EngineDead):
            await bench.score(make_request(64, seed=5))
        assert bench.engine.passes == 3
