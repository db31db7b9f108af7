"""Who is next, so that everybody gets an equal share however much they ask for."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from itertools import count
from typing import Generic, TypeVar

T = TypeVar("T")


class FairLine(Generic[T]):
    """Self-clocked fair queueing: the member whose next turn ends first in virtual time comes first.

    Virtual time moves with the turns that were served. A newcomer starts at the present, so it neither
    waits for what others asked before nor overtakes those who already waited their turn.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, T]] = []
        self._clock = 0.0
        self._arrival = count()

    def __len__(self) -> int:
        return len(self._heap)

    def __iter__(self) -> Iterator[T]:
        return (member for _, _, member in self._heap)

    def join(self, member: T, cost: float) -> None:
        """Stand in line for a turn of ``cost``."""
        heapq.heappush(self._heap, (self._clock + cost, next(self._arrival), member))

    def first(self) -> T | None:
        return self._heap[0][2] if self._heap else None

    def turn_over(self, next_cost: float) -> None:
        """The first had its turn and stands in line again for one of ``next_cost``."""
        self._clock, arrival, member = self._heap[0]
        heapq.heapreplace(self._heap, (self._clock + next_cost, arrival, member))

    def leave(self) -> None:
        """The first had its last turn."""
        self._clock = heapq.heappop(self._heap)[0]
