"""What the service hands to the scheduler, and what it gets back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from rerankd.types import IdArray, Outcome

Scores = Mapping[int, float]
"""Logits by the index of their pair."""


def forget(scores: Scores) -> None:
    """Keeps nothing."""


@dataclass(frozen=True, slots=True)
class Work:
    """The pairs of one request that have no score yet.

    Attributes:
        prefix: ids that all pairs begin with, int32, shape (p,), p >= 0.
        tails: what each pair adds, int32, shape (t,) each, t >= 1.
        keys: one digest a pair; equal digests in flight are scored once. None shares nothing.
        deadline: ``time.monotonic()`` after which the scores are worth nothing.
        tenant: whose share of the queue this takes.
        priority: 0 (served first) to 999.
        keep: takes the scores that came although the request itself ended without them: its client left, or its
            deadline passed. They are paid for, and may be asked for again.
    """

    prefix: IdArray
    tails: tuple[IdArray, ...]
    keys: tuple[bytes, ...] | None
    deadline: float
    tenant: str = ""
    priority: int = 0
    keep: Callable[[Scores], None] = forget

    @property
    def tokens(self) -> int:
        """Tokens to compute: the prefix once, every tail."""
        return len(self.prefix) + sum(map(len, self.tails))


@dataclass(frozen=True, slots=True)
class ScoredWork:
    """One outcome a pair, in order, and the seconds before and since the first batch took part of it."""

    outcomes: tuple[Outcome, ...]
    queue_seconds: float
    engine_seconds: float

    @property
    def logits(self) -> dict[int, float]:
        """The scores without the errors, by index."""
        return {index: outcome for index, outcome in enumerate(self.outcomes) if isinstance(outcome, float)}
