"""The cache contract: keys in, scores or nothing out. A cache never makes a request fail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol


class CachedScore(NamedTuple):
    """What is kept of a pair: its raw score, its tokens with the template, and whether it was truncated."""

    logit: float
    tokens: int
    truncated: bool


@dataclass(frozen=True, slots=True)
class CacheStats:
    """What a cache says of itself, at no cost; None where that would cost something.

    Attributes:
        kind: ``memory``, ``redis`` or ``off``.
        capacity: the entries that fit.
    """

    kind: Literal["memory", "redis", "off"]
    entries: int | None = None
    capacity: int | None = None
    reachable: bool = True


class ScoreCache(Protocol):
    """Pair -> score. What it cannot do in time it does not do: a look-up misses, a write is lost."""

    async def get_many(self, keys: Sequence[bytes]) -> list[CachedScore | None]:
        """One entry a key, in order; None where nothing valid is known."""
        ...

    def put_many(self, scores: Mapping[bytes, CachedScore]) -> None:
        """Take scores in; returns at once, whether or not they are written already."""
        ...

    async def flush(self) -> None:
        """Forget everything; the one call that raises (NotReady) when the store is out of reach."""
        ...

    def describe(self) -> CacheStats: ...

    async def close(self) -> None: ...


class NoCache:
    """The cache that is switched off."""

    async def get_many(self, keys: Sequence[bytes]) -> list[CachedScore | None]:
        return [None] * len(keys)

    def put_many(self, scores: Mapping[bytes, CachedScore]) -> None:
        pass

    async def flush(self) -> None:
        pass

    def describe(self) -> CacheStats:
        return CacheStats("off")

    async def close(self) -> None:
        pass
