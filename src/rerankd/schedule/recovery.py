"""A batch failed: what to try again, in which pieces, and what to remember.

Poison (any exception): quarters, and quarters of a quarter that fails, until the bad pair is alone. That
takes as many passes as halving, at most 2 log2(n) a bad pair, and computes a third less.
Out of memory: halves by tokens, with a lower budget. A wrong number of scores: nothing is tried again,
because no score can be told from another. A fault: the engine is gone.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from rerankd.engine.base import Engine, EngineFault, EngineOutOfMemory
from rerankd.errors import ScoringError
from rerankd.schedule.batcher import lay_out
from rerankd.schedule.job import Ticket
from rerankd.schedule.work import Work

_PIECES = 4


class FailureKind(StrEnum):
    """Why a forward pass gave no scores."""

    POISON = "poison"
    OUT_OF_MEMORY = "out_of_memory"
    WRONG_LENGTH = "wrong_length"
    FAULT = "fault"


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed pass in words: an exception object would keep the failed pass's tensors alive."""

    kind: FailureKind
    reason: str


def attempt(engine: Engine, tickets: list[Ticket]) -> NDArray[np.float32] | Failure:
    """One forward pass; runs on the engine's thread and never raises an Exception."""
    try:
        scores = engine.score(lay_out(tickets))
    except EngineFault as fault:
        return Failure(FailureKind.FAULT, str(fault) or "the engine cannot go on")
    except (EngineOutOfMemory, MemoryError) as error:
        return Failure(FailureKind.OUT_OF_MEMORY, str(error))
    except Exception as error:
        return Failure(FailureKind.POISON, f"{type(error).__name__}: {error}")
    if scores.shape != (len(tickets),):
        return Failure(FailureKind.WRONG_LENGTH, f"{len(tickets)} pairs, scores of shape {scores.shape}")
    return scores


def pieces(tickets: list[Ticket], kind: FailureKind) -> list[list[Ticket]]:
    """The smaller batches to try instead; none when nothing is to be tried again."""
    if len(tickets) == 1 or kind is FailureKind.WRONG_LENGTH:
        return []
    if kind is FailureKind.OUT_OF_MEMORY:
        return _halves_by_tokens(tickets)
    size = -(-len(tickets) // _PIECES)
    return [tickets[start : start + size] for start in range(0, len(tickets), size)]


def _halves_by_tokens(tickets: list[Ticket]) -> list[list[Ticket]]:
    ends = np.cumsum([len(ticket.tail) for ticket in tickets])
    cut = int(np.searchsorted(ends, ends[-1] / 2)) + 1
    cut = min(cut, len(tickets) - 1)
    return [tickets[:cut], tickets[cut:]]


class DenyList:
    """Pairs that failed twice, the last time alone: answered with the error for a while, known by digest only."""

    def __init__(self, seconds: float, capacity: int = 10_000) -> None:
        self._seconds = seconds
        self._capacity = capacity
        self._failures: dict[bytes, tuple[int, float]] = {}
        """Failures so far, and when they are forgotten; oldest first."""

    def record(self, ticket: Ticket, now: float) -> None:
        """A pair has failed alone."""
        digest = _digest(ticket.prefix, ticket.tail)
        times, _ = self._failures.pop(digest, (0, now))
        self._failures[digest] = (times + ticket.failures, now + self._seconds)
        if len(self._failures) > self._capacity:
            del self._failures[next(iter(self._failures))]

    def denied(self, work: Work, now: float) -> dict[int, ScoringError]:
        """The pairs of ``work`` that are not to be tried again, by index."""
        while self._failures and next(iter(self._failures.values()))[1] <= now:
            del self._failures[next(iter(self._failures))]
        if not self._failures:
            return {}
        digests = (_digest(work.prefix, tail) for tail in work.tails)
        return {
            index: ScoringError("the engine failed on this document twice; it is not tried again for a while")
            for index, digest in enumerate(digests)
            if self._failures.get(digest, (0, now))[0] > 1
        }


def _digest(*ids: NDArray[np.int32]) -> bytes:
    whole = hashlib.blake2b(digest_size=16)
    for part in ids:
        whole.update(np.ascontiguousarray(part).data)
    return whole.digest()
