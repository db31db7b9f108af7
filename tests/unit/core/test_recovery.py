from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest
from tests.scheduling import fake_engine, ids, make_request

from rerankd.core.prefix_tree import batch_of
from rerankd.core.recovery import DenyList, Failure, FailureKind, attempt, split_failed_batch
from rerankd.core.request import PendingPair
from rerankd.engine.base import Batch, EngineFault, EngineOutOfMemory
from rerankd.types import PairPrompt

BATCH = batch_of([ids(1, 2, 3), ids(4)])


def pairs(*lengths: int) -> list[PendingPair]:
    return [PendingPair(PairPrompt(ids(1, 2), ids(*range(length))), None) for length in lengths]


class Raising:
    """An engine whose every pass raises."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def score(self, batch: Batch) -> Any:
        raise self.error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ValueError("bad ids"), FailureKind.POISON),
        (EngineOutOfMemory(), FailureKind.OUT_OF_MEMORY),
        (MemoryError(), FailureKind.OUT_OF_MEMORY),
        (EngineFault("illegal access"), FailureKind.FAULT),
    ],
)
def test_every_exception_of_a_pass_becomes_a_failure(error: Exception, kind: FailureKind) -> None:
    failure = attempt(Raising(error), BATCH)  # type: ignore[arg-type]
    assert isinstance(failure, Failure)
    assert failure.kind is kind


def test_a_failure_keeps_nothing_of_the_failed_pass_alive() -> None:
    class Tensor:
        pass

    alive: list[weakref.ref[Tensor]] = []

    class Engine:
        def score(self, batch: Batch) -> Any:
            tensor = Tensor()
            alive.append(weakref.ref(tensor))
            raise EngineOutOfMemory

    failure = attempt(Engine(), BATCH)  # type: ignore[arg-type]
    gc.collect()
    assert isinstance(failure, Failure)
    assert alive[0]() is None


def test_a_wrong_number_of_scores_is_a_failure() -> None:
    class Short:
        def score(self, batch: Batch) -> Any:
            return np.zeros(batch.pairs - 1, dtype=np.float32)

    failure = attempt(Short(), BATCH)  # type: ignore[arg-type]
    assert isinstance(failure, Failure)
    assert failure.kind is FailureKind.WRONG_LENGTH


def test_a_good_pass_returns_its_scores() -> None:
    assert not isinstance(attempt(fake_engine(), BATCH), Failure)


@pytest.mark.parametrize("count", [2, 3, 4, 5, 63, 64, 65, 1000])
def test_parts_are_smaller_and_hold_every_pair_once(count: int) -> None:
    whole = pairs(*([5] * count))
    for kind in (FailureKind.POISON, FailureKind.OUT_OF_MEMORY):
        parts = split_failed_batch(whole, kind)
        assert [pair for part in parts for pair in part] == whole
        assert 0 < max(map(len, parts)) < count


@pytest.mark.parametrize("count", [2, 4, 7, 16, 64, 100, 1024])
def test_isolation_takes_at_most_twice_log2_passes(count: int) -> None:
    whole = pairs(*([5] * count))
    for bad in {0, count // 2, count - 1}:
        passes, waiting = 0, [whole]
        while waiting:
            part = waiting.pop()
            passes += 1
            if whole[bad] in part:
                waiting.extend(split_failed_batch(part, FailureKind.POISON))
        assert passes - 1 <= 2 * np.ceil(np.log2(count))


def test_a_batch_out_of_memory_is_cut_by_tokens() -> None:
    left, right = split_failed_batch(pairs(1000, 10, 10, 10), FailureKind.OUT_OF_MEMORY)
    assert (len(left), len(right)) == (1, 3)
    left, right = split_failed_batch(pairs(10, 10, 10, 1000), FailureKind.OUT_OF_MEMORY)
    assert (len(left), len(right)) == (3, 1)
    left, right = split_failed_batch(pairs(*[10] * 12), FailureKind.OUT_OF_MEMORY)
    assert (len(left), len(right)) == (6, 6)


def test_a_single_pair_and_a_wrong_length_are_not_tried_again() -> None:
    assert split_failed_batch(pairs(5), FailureKind.POISON) == []
    assert split_failed_batch(pairs(5), FailureKind.OUT_OF_MEMORY) == []
    assert split_failed_batch(pairs(5, 5), FailureKind.WRONG_LENGTH) == []


def failed(index: int, seed: int = 0, failures: int = 1) -> PendingPair:
    pair = PendingPair(make_request(index + 1, seed=seed).pairs[index], None)
    pair.failures = failures
    return pair


def test_a_pair_is_denied_after_its_second_failure_and_forgotten_in_time() -> None:
    denied = DenyList(seconds=60)
    asked = make_request(3).pairs
    denied.record(failed(1), now=0)
    assert denied.denied(asked, now=1) == {}
    denied.record(failed(1), now=2)
    assert list(denied.denied(asked, now=3)) == [1]
    assert denied.denied(make_request(3, seed=5).pairs, now=3) == {}
    assert denied.denied(asked, now=63) == {}


def test_a_pair_that_failed_in_a_batch_and_alone_has_failed_twice() -> None:
    denied = DenyList(seconds=60)
    denied.record(failed(0, failures=4), now=0)
    assert list(denied.denied(make_request(3).pairs, now=1)) == [0]


def test_the_deny_list_is_bounded() -> None:
    denied = DenyList(seconds=60, capacity=2)
    for seed in range(5):
        denied.record(failed(0, seed, failures=2), now=seed)
    known = [bool(denied.denied(make_request(1, seed=seed).pairs, now=6)) for seed in range(5)]
    assert known == [False] * 3 + [True] * 2
