from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest
from tests.scheduling import fake_engine, ids, make_work

from rerankd.engine.base import Batch, EngineFault, EngineOutOfMemory
from rerankd.schedule.job import Ticket
from rerankd.schedule.recovery import DenyList, Failure, FailureKind, attempt, pieces


def tickets(*lengths: int) -> list[Ticket]:
    made = []
    for length in lengths:
        ticket = Ticket(None)
        ticket.prefix, ticket.tail = ids(1, 2), ids(*range(length))
        made.append(ticket)
    return made


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
    failure = attempt(Raising(error), tickets(3, 4))  # type: ignore[arg-type]
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

    failure = attempt(Engine(), tickets(3))  # type: ignore[arg-type]
    gc.collect()
    assert isinstance(failure, Failure)
    assert alive[0]() is None


def test_a_wrong_number_of_scores_is_a_failure() -> None:
    class Short:
        def score(self, batch: Batch) -> Any:
            return np.zeros(batch.pairs - 1, dtype=np.float32)

    failure = attempt(Short(), tickets(3, 3))  # type: ignore[arg-type]
    assert isinstance(failure, Failure)
    assert failure.kind is FailureKind.WRONG_LENGTH


def test_a_good_pass_returns_its_scores() -> None:
    assert not isinstance(attempt(fake_engine(), tickets(3, 4, 5)), Failure)


@pytest.mark.parametrize("count", [2, 3, 4, 5, 63, 64, 65, 1000])
def test_pieces_are_smaller_and_hold_every_pair_once(count: int) -> None:
    whole = tickets(*([5] * count))
    for kind in (FailureKind.POISON, FailureKind.OUT_OF_MEMORY):
        parts = pieces(whole, kind)
        assert [ticket for part in parts for ticket in part] == whole
        assert 0 < max(map(len, parts)) < count


@pytest.mark.parametrize("count", [2, 4, 7, 16, 64, 100, 1024])
def test_isolation_takes_at_most_twice_log2_passes(count: int) -> None:
    whole = tickets(*([5] * count))
    for bad in {0, count // 2, count - 1}:
        passes, waiting = 0, [whole]
        while waiting:
            part = waiting.pop()
            passes += 1
            if whole[bad] in part:
                waiting.extend(pieces(part, FailureKind.POISON))
        assert passes - 1 <= 2 * np.ceil(np.log2(count))


def test_a_batch_out_of_memory_is_cut_by_tokens() -> None:
    left, right = pieces(tickets(1000, 10, 10, 10), FailureKind.OUT_OF_MEMORY)
    assert (len(left), len(right)) == (1, 3)
    left, right = pieces(tickets(10, 10, 10, 1000), FailureKind.OUT_OF_MEMORY)
    assert (len(left), len(right)) == (3, 1)


def test_a_single_pair_and_a_wrong_length_are_not_tried_again() -> None:
    assert pieces(tickets(5), FailureKind.POISON) == []
    assert pieces(tickets(5), FailureKind.OUT_OF_MEMORY) == []
    assert pieces(tickets(5, 5), FailureKind.WRONG_LENGTH) == []


def ticket_of(index: int, seed: int = 0, failures: int = 1) -> Ticket:
    work = make_work(index + 1, seed=seed)
    ticket = Ticket(None)
    ticket.prefix, ticket.tail, ticket.failures = work.prefix, work.tails[index], failures
    return ticket


def test_a_pair_is_denied_after_its_second_failure_and_forgotten_in_time() -> None:
    denied = DenyList(seconds=60)
    work = make_work(3)
    denied.record(ticket_of(1), now=0)
    assert denied.denied(work, now=1) == {}
    denied.record(ticket_of(1), now=2)
    assert list(denied.denied(work, now=3)) == [1]
    assert denied.denied(make_work(3, seed=5), now=3) == {}
    assert denied.denied(work, now=63) == {}


def test_a_pair_that_failed_in_a_batch_and_alone_has_failed_twice() -> None:
    denied = DenyList(seconds=60)
    denied.record(ticket_of(0, failures=4), now=0)
    assert list(denied.denied(make_work(3), now=1)) == [0]


def test_the_deny_list_is_bounded() -> None:
    denied = DenyList(seconds=60, capacity=2)
    for seed in range(5):
        denied.record(ticket_of(0, seed), now=seed)
    assert len(denied._failures) == 2
