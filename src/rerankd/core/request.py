"""What goes into the core and what comes out, and a request's state in between."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from rerankd.types import Outcome, PairPrompt


def computed_tokens(pairs: Sequence[PairPrompt], *, shares_prefix: bool = True) -> int:
    """Tokens that an engine computes for pairs by themselves: each prefix once, where the engine can share it."""
    tokens = 0
    prefix = None
    for pair in pairs:
        # The pairs of one prefix stand side by side.
        if not shares_prefix or pair.prefix is not prefix:
            prefix = pair.prefix
            tokens += len(prefix)
        tokens += len(pair.tail)
    return tokens


@dataclass(frozen=True, slots=True, eq=False)
class ScoreRequest:
    """The pairs of one query, to be scored. Requests are told apart by identity.

    Attributes:
        pairs: at least one prompt.
        keys: one digest a pair; equal digests in flight are scored once. None shares nothing.
        deadline: ``time.monotonic()`` after which the scores are worth nothing: pairs that are in no batch by
            then are dropped. Who waits for them has a clock of its own.
        tenant: who asks; the engine is shared fairly between tenants.
        priority: 0 (served first) to 999.
        group: names what the prompts begin with, the query for one; where there are several engines, requests of one
            group meet in one prefix cache. Empty: nobody said.
    """

    pairs: tuple[PairPrompt, ...]
    keys: tuple[bytes, ...] | None = None
    deadline: float = math.inf
    tenant: str = ""
    priority: int = 0
    group: bytes = b""


@dataclass(slots=True)
class Output:
    """Outcomes of some pairs of a request, those that one step has brought.

    They come for requests that have ended too: what was already in a batch is paid for and may be asked for again.
    """

    request: ScoreRequest
    outcomes: dict[int, Outcome]
    """By the index of their pair."""
    started: float
    """``time.monotonic()`` when the first batch with a pair of this request began."""


class PendingPair:
    """One pair on its way to the engine, for every request that waits for it (single flight).

    It stands in the queue of each of its subscribers; whichever is served first takes it along, so that a shared
    pair is scored once and never later than any of its requests would have had it alone.
    """

    __slots__ = ("failures", "is_taken", "key", "last_subscriber", "prompt", "subscribers")

    def __init__(self, prompt: PairPrompt, key: bytes | None) -> None:
        self.prompt = prompt
        self.key = key
        self.subscribers: dict[PendingRequest, int] = {}
        """The requests that wait for it, with the pair's index in each."""
        self.last_subscriber: tuple[PendingRequest, int] | None = None
        """Who left last while the pair was with the engine: its score goes there, late."""
        self.is_taken = False
        self.failures = 0
        """Failed passes that it was part of."""


@dataclass(slots=True, eq=False)
class PendingRequest:
    """A :class:`ScoreRequest` between its first and its last outcome."""

    request: ScoreRequest
    pairs: dict[int, PendingPair] = field(default_factory=dict)
    """Pairs without an outcome, by index."""
    waiting: deque[int] = field(default_factory=deque)
    """Pairs that may still wait for a batch; those that another request took along are passed over when met."""
    queued: float = field(default_factory=time.monotonic)
    started: float = 0.0
    """When the first batch with one of its pairs began; 0 before."""

    def next_pair(self) -> PendingPair | None:
        """The pair that comes next."""
        while self.waiting:
            pair = self.pairs.get(self.waiting[0])
            if pair is not None and not pair.is_taken:
                return pair
            self.waiting.popleft()
        return None
