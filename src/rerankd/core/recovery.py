"""A batch failed: what to try again, in which parts, and what to remember.

Poison (any exception): quarters, and quarters of a quarter that fails, until the bad pair is alone. That
takes as many passes as halving, at most 2 log2(n) a bad pair, and computes a third less.
Out of memory: halves by tokens, with a lower budget. A wrong number of scores: nothing is tried again,
because no score can be told from another. A fault: the engine is gone.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from rerankd.core.request import PendingPair
from rerankd.engine.base import Batch, Engine, EngineFault, EngineOutOfMemory
from rerankd.errors import NonFiniteScore, ScoringError
from rerankd.types import Outcome, PairPrompt

_PARTS = 4


class FailureKind(StrEnum):
    """Why a forward pass gave no scores."""

    POISON = "poison"
    OUT_OF_MEMORY = "out_of_memory"
    WRONG_LENGTH = "wrong_length"
    FAULT = "fault"


MESSAGES = {
    FailureKind.POISON: "the engine failed on this document",
    FailureKind.OUT_OF_MEMORY: "the engine's memory is too small for this document alone; lower max_pair_tokens",
    FailureKind.WRONG_LENGTH: "the engine returned a wrong number of scores",
}


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed pass in words: an exception object would keep the failed pass's tensors alive."""

    kind: FailureKind
    reason: str


def attempt(engine: Engine, batch: Batch) -> list[Outcome] | Failure:
    """One forward pass; never raises an Exception."""
    try:
        scores = engine.score(batch)
    except EngineFault as fault:
        return Failure(FailureKind.FAULT, str(fault) or "the engine cannot go on")
    except (EngineOutOfMemory, MemoryError) as error:
        return Failure(FailureKind.OUT_OF_MEMORY, str(error))
    except Exception as error:
        return Failure(FailureKind.POISON, f"{type(error).__name__}: {error}")
    if scores.shape != (batch.pairs,):
        return Failure(FailureKind.WRONG_LENGTH, f"{batch.pairs} pairs, scores of shape {scores.shape}")
    return [logit if math.isfinite(logit) else _non_finite() for logit in scores.tolist()]


def split_failed_batch(pairs: list[PendingPair], kind: FailureKind) -> list[list[PendingPair]]:
    """The smaller batches to try instead; none when nothing is to be tried again."""
    if len(pairs) == 1 or kind is FailureKind.WRONG_LENGTH:
        return []
    if kind is FailureKind.OUT_OF_MEMORY:
        return _halves_by_tokens(pairs)
    size = -(-len(pairs) // _PARTS)
    return [pairs[start : start + size] for start in range(0, len(pairs), size)]


def _halves_by_tokens(pairs: list[PendingPair]) -> list[list[PendingPair]]:
    ends = np.cumsum([len(pair.prompt.tail) for pair in pairs])
    cut = int(np.searchsorted(ends, ends[-1] / 2)) + 1
    cut = min(cut, len(pairs) - 1)
    return [pairs[:cut], pairs[cut:]]


class DenyList:
    """Pairs that failed twice, the last time alone: answered with the error for a while, known by digest only."""

    def __init__(self, seconds: float, capacity: int = 10_000) -> None:
        self._seconds = seconds
        self._capacity = capacity
        self._failures: dict[bytes, tuple[int, float]] = {}
        """Failures so far, and when they are forgotten; oldest first."""

    def record(self, pair: PendingPair, now: float) -> None:
        """A pair has failed alone."""
        digest = _digest(pair.prompt)
        times, _ = self._failures.pop(digest, (0, now))
        self._failures[digest] = (times + pair.failures, now + self._seconds)
        if len(self._failures) > self._capacity:
            del self._failures[next(iter(self._failures))]

    def denied(self, pairs: tuple[PairPrompt, ...], now: float) -> dict[int, Outcome]:
        """The pairs that are not to be tried again, by index."""
        while self._failures and next(iter(self._failures.values()))[1] <= now:
            del self._failures[next(iter(self._failures))]
        if not self._failures:
            return {}
        return {
            index: ScoringError("the engine failed on this document twice; it is not tried again for a while")
            for index, pair in enumerate(pairs)
            if self._failures.get(_digest(pair), (0, now))[0] > 1
        }


def _digest(prompt: PairPrompt) -> bytes:
    whole = hashlib.blake2b(digest_size=16)
    whole.update(np.ascontiguousarray(prompt.prefix).data)
    whole.update(np.ascontiguousarray(prompt.tail).data)
    return whole.digest()


def _non_finite() -> NonFiniteScore:
    return NonFiniteScore("the engine's score of this document is not a finite number")
