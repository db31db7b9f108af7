from __future__ import annotations

import time

import numpy as np
import pytest
from tests.scheduling import POISON, CoreBench, errors_of, fake_engine, ids, is_right, make_request

from rerankd.core.engine_core import EngineGone, load_engine
from rerankd.core.request import ScoreRequest
from rerankd.engine.base import EngineOutOfMemory
from rerankd.engine.fake import FakeEngine, FakeScript
from rerankd.errors import ConfigurationError, NonFiniteScore, ScoringError
from rerankd.types import PairPrompt


def test_outcomes_come_in_the_order_of_the_pairs_and_requests_share_batches() -> None:
    bench = CoreBench.make()
    requests = [make_request(5, seed=seed) for seed in range(40)]
    assert all(map(is_right, requests, bench.score(*requests)))
    assert bench.engine.passes == 1
    assert not bench.core.has_work


def test_no_batch_is_over_the_budget_and_all_are_nearly_full() -> None:
    bench = CoreBench.make(max_batch_tokens=128, prefix_cache_tokens=50)
    batches = bench.engine.record()
    requests = [make_request(7, length=9 + seed, prefix=seed, seed=seed) for seed in range(20)]
    assert all(map(is_right, requests, bench.score(*requests)))
    assert max(batch.tokens for batch in batches) <= 128
    assert np.mean([batch.tokens for batch in batches[:-1]]) > 90


def test_a_pair_above_the_budget_goes_alone() -> None:
    bench = CoreBench.make(max_batch_tokens=100)
    batches = bench.engine.record()
    bench.score(make_request(2, length=500), make_request(1, length=5, seed=1))
    assert sorted(batch.pairs for batch in batches) == [1, 1, 1]


def requests_of_one_instruction(tokens: int = 70) -> list[ScoreRequest]:
    """Two requests of 20 documents; the prompts begin alike, and each has a query of its own behind that."""
    rng = np.random.default_rng(0)
    instruction = rng.integers(0, 600, tokens, dtype=np.int32)
    requests = []
    for first in (601, 602):
        prefix = np.concatenate([instruction, ids(first), rng.integers(0, 600, 9, dtype=np.int32)])
        tails = [np.concatenate([ids(700 + at), rng.integers(0, 600, 29, dtype=np.int32)]) for at in range(20)]
        requests.append(ScoreRequest(tuple(PairPrompt(prefix, tail) for tail in tails)))
    return requests


@pytest.mark.parametrize("cache", [0, 512])
def test_two_requests_of_one_instruction_compute_it_once(cache: int) -> None:
    bench = CoreBench.make(prefix_cache_tokens=cache)
    batches = bench.engine.record()
    requests = requests_of_one_instruction()
    assert all(map(is_right, requests, bench.score(*requests)))
    (batch,) = batches
    assert batch.tokens == 70 + 2 * 10 + 40 * 30
    bench.score(*requests_of_one_instruction())
    assert batches[1].tokens == batch.tokens - (90 if cache else 0)


def test_a_request_of_many_batches_computes_its_prefix_once() -> None:
    bench = CoreBench.make(max_batch_tokens=300, prefix_cache_tokens=100)
    batches = bench.engine.record()
    request = make_request(50, prefix=80, length=20)
    assert is_right(request, *bench.score(request))
    assert len(batches) > 3
    assert sum(batch.tokens for batch in batches) == 80 + 50 * 20


def test_a_long_path_of_shared_prefixes_keeps_every_score_right() -> None:
    bench = CoreBench.make(max_batch_tokens=200, prefix_cache_tokens=64)
    rng = np.random.default_rng(3)
    for _ in range(30):
        requests = [
            ScoreRequest(
                tuple(
                    PairPrompt(prefix, rng.integers(0, 3, int(rng.integers(1, 30)), dtype=np.int32)) for _ in range(5)
                )
            )
            for prefix in (rng.integers(0, 2, int(rng.integers(0, 60)), dtype=np.int32) for _ in range(4))
        ]
        assert all(map(is_right, requests, bench.score(*requests)))


class Unsharing(FakeEngine):
    shares_prefix = False


@pytest.mark.promise("F10")
def test_an_engine_that_cannot_share_is_charged_whole_prompts() -> None:
    options = fake_engine(max_batch_tokens=320)._options
    bench = CoreBench.make(engine=Unsharing(options))
    batches = bench.engine.record()
    request = make_request(16, prefix=60, length=20)
    assert is_right(request, *bench.score(request))
    assert [batch.tokens for batch in batches] == [320] * 4
    assert all((batch.parents == -1).all() for batch in batches)


def test_equal_pairs_in_flight_are_scored_once() -> None:
    bench = CoreBench.make()
    one, two, alone = make_request(2), make_request(2), make_request(2, shared=False)
    assert all(map(is_right, (one, two, alone), bench.score(one, two, alone)))
    assert bench.engine.pairs == 4
    assert bench.metric("reranker_cache_shared_total") == 2


def test_a_shared_pair_goes_with_the_request_that_is_served_first() -> None:
    bench = CoreBench.make(max_batch_tokens=200)
    long = make_request(500, tenant="flood")
    assert long.keys is not None
    last = ScoreRequest(long.pairs[-1:], long.keys[-1:], tenant="small")
    bench.core.add(long)
    bench.core.add(last)
    done = {output.request for output in bench.core.step() if len(output.outcomes) == len(output.request.pairs)}
    assert last in done


def test_leaving_drops_only_what_nobody_else_wants() -> None:
    bench = CoreBench.make()
    one, two, alone = make_request(2), make_request(2), make_request(3, seed=1)
    for request in (one, two, alone):
        bench.core.add(request)
    bench.core.abort(one)
    bench.core.abort(alone)
    bench.core.abort(alone)
    (outcomes,) = bench.finish(two)
    assert is_right(two, outcomes)
    assert bench.engine.pairs == 2
    assert bench.metric("reranker_dropped_pairs_total", reason="cancelled") == 3


def test_a_request_past_its_deadline_gets_no_place_in_a_batch() -> None:
    bench = CoreBench.make()
    late, other = make_request(2, seconds=-1), make_request(2, seed=1)
    assert [len(outcomes) for outcomes in bench.score(late, other)] == [0, 2]
    assert bench.engine.pairs == 2
    assert bench.metric("reranker_dropped_pairs_total", reason="deadline") == 2


def test_scores_of_a_request_that_left_in_a_batch_still_come_out() -> None:
    """Who leaves while its pairs are computed pays for them: they are worth caching."""
    bench = CoreBench.make()
    request = make_request(3)

    def leave(batch: object) -> np.ndarray:
        bench.core.inbox.put(("abort", request))
        return right(batch)

    right, bench.engine.score = bench.engine.score, leave  # type: ignore[method-assign, assignment]
    bench.core.add(request)
    (output,) = bench.core.step()
    assert output.request is request
    assert is_right(request, [output.outcomes[index] for index in range(3)])
    assert not bench.core.has_work


def test_who_asks_for_a_pair_while_it_is_computed_shares_it() -> None:
    bench = CoreBench.make()
    one, two = make_request(3), make_request(3)

    def join(batch: object) -> np.ndarray:
        bench.core.inbox.put(("add", two))
        return right(batch)

    right, bench.engine.score = bench.engine.score, join  # type: ignore[method-assign, assignment]
    bench.core.add(one)
    assert {output.request for output in bench.core.step()} == {one, two}
    assert bench.engine.pairs == 3


def test_poison_is_isolated_and_not_tried_a_third_time() -> None:
    bench = CoreBench.make(FakeScript(fail_on=POISON))
    request = make_request(64, marked=[37])
    (outcomes,) = bench.score(request)
    assert errors_of(outcomes) == {37: ScoringError}
    passes = bench.engine.passes
    assert passes <= 13
    assert errors_of(*bench.score(make_request(64, marked=[37]))) == {37: ScoringError}
    assert bench.engine.passes == passes + 1


def test_out_of_memory_forgets_the_cache_and_lowers_the_budget() -> None:
    bench = CoreBench.make(prefix_cache_tokens=100)
    bench.score(make_request(4))
    bench.engine.script = FakeScript(oom_above_tokens=300)
    batches = bench.engine.record()
    request = make_request(40)
    assert is_right(request, *bench.score(request))
    assert (batches[0].cached.any(), batches[1].cached.any()) == (True, False)
    assert bench.core.status.budget <= 300


def test_a_batch_with_a_score_that_is_no_number_caches_nothing() -> None:
    bench = CoreBench.make(FakeScript(nan_on=POISON), prefix_cache_tokens=100)
    batches = bench.engine.record()
    assert errors_of(*bench.score(make_request(4, marked=[1]))) == {1: NonFiniteScore}
    bench.score(make_request(5))
    assert not batches[1].cached.any()


def test_a_fault_is_the_end() -> None:
    bench = CoreBench.make(FakeScript(die_on=POISON))
    bench.core.add(make_request(1, marked=[0]))
    with pytest.raises(EngineGone, match="died"):
        bench.core.step()


@pytest.mark.promise("P3")
@pytest.mark.promise("S7")
def test_an_engine_whose_scores_are_no_numbers_does_not_start() -> None:
    engine = fake_engine(FakeScript(nan_on=(3, 4)))
    with pytest.raises(ConfigurationError, match="not numbers"):
        load_engine(engine)


def test_an_idle_engine_that_fails_three_checks_in_a_row_is_gone() -> None:
    bench = CoreBench.make()
    answers = iter([False, False, True, False, False, False])
    bench.engine.health = lambda: next(answers)  # type: ignore[method-assign]
    for _ in range(5):
        bench.core.check_health()
    with pytest.raises(EngineGone, match="health checks"):
        bench.core.check_health()


@pytest.mark.promise("A7")
def test_leaving_costs_what_a_request_has_and_not_what_all_have() -> None:
    """Many requests for the same pairs: the last to leave takes no longer than the first, times the noise."""

    def seconds(requests: int) -> float:
        bench = CoreBench.make()
        same = [make_request(100) for _ in range(requests)]
        for request in same:
            bench.core.add(request)
        # By the clock, the least of some: the time of the process may stand still for as long as this takes.
        started = time.perf_counter()
        for request in same:
            bench.core.abort(request)
        ended = time.perf_counter()
        assert not bench.core.has_work
        return ended - started

    assert min(seconds(80) for _ in range(4)) < 4 * 8 * min(seconds(10) for _ in range(4))


def test_memory_of_the_engine_is_told_from_a_failure() -> None:
    class Tight(FakeEngine):
        def score(self, batch: object) -> np.ndarray:
            raise EngineOutOfMemory

    engine = Tight(fake_engine()._options)
    with pytest.raises(EngineOutOfMemory):
        load_engine(engine)


@pytest.mark.parametrize("leaves", [False, True])
def test_nobody_waits_until_a_huge_call_is_queued(leaves: bool) -> None:
    bench = CoreBench.make(max_batch_tokens=500)
    large = [make_request(2000, length=2, seed=seed) for seed in range(12)]
    small = make_request(1, seed=99)
    for request in (*large, small):
        bench.core.inbox.put(("add", request))
    taken_in = []
    add = bench.core.add
    bench.core.add = lambda request: (taken_in.append(request), add(request))[1]  # type: ignore[method-assign]
    outputs = bench.core.step()
    assert taken_in == [small, *large[:6]], "small ones first, and so many pairs before and after the pass"
    assert small in [output.request for output in outputs]
    if leaves:
        for request in large:
            bench.core.inbox.put(("abort", request))
        bench.core.step()
        assert len(taken_in) == 7
    else:
        while bench.core.has_work:
            bench.core.step()
        assert set(taken_in) == {*large, small}
    assert not bench.core.has_work
