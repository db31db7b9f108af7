"""A weighted fair queue: who is served next, when callers of all sizes wait for one server.

Each request has the virtual time at which it would be done if the server worked for all at once: for all tenants at
the same speed, and within a tenant for all of its requests at the same speed (processor sharing). The one that would
be done first is served first. So a small request hardly waits for a large one, a tenant that floods stands in its
own way, nobody ends later than under processor sharing, and what is begun is ended: were all served side by side,
under overload all of them would miss their deadlines. (Fair sojourn protocol, Friedman and Henderson 2003; the
virtual clock is that of start-time fair queueing, Goyal, Vin and Cheng 1996.)
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


_CLASSES_PER_DOUBLING = 8


@dataclass(slots=True)
class _SizeClass:
    """Requests of a tenant that came with about the same size, so that none of them has to be looked at again."""

    requests: int = 0
    left: int = 0
    """What is left to do for all of them."""


class _Tenant(Generic[T]):
    """What is left to do for a tenant."""

    __slots__ = ("classes", "items", "left")

    def __init__(self) -> None:
        self.items: dict[T, tuple[int, int]] = {}
        """Of each request what is left, and the number of its size class."""
        self.classes: dict[int, _SizeClass] = {}
        self.left = 0


class Backlog(Generic[T]):
    """What is left to do, by tenant and request. Nothing here walks over the requests."""

    def __init__(self) -> None:
        self.total = 0
        self._tenants: dict[str, _Tenant[T]] = {}

    def __iter__(self) -> Iterator[T]:
        return itertools.chain.from_iterable(tenant.items for tenant in self._tenants.values())

    def add(self, item: T, tenant: str, size: int) -> None:
        """A request comes that is not here."""
        found = self._tenants.get(tenant)
        if found is None:
            found = self._tenants[tenant] = _Tenant()
        number = _size_class(size)
        size_class = found.classes.get(number)
        if size_class is None:
            size_class = found.classes[number] = _SizeClass()
        size_class.requests += 1
        size_class.left += size
        found.items[item] = size, number
        found.left += size
        self.total += size

    def left(self, item: T, tenant: str) -> int:
        """What is left to do for a request, 0 for one that is not here."""
        found = self._tenants.get(tenant)
        return found.items.get(item, (0, 0))[0] if found is not None else 0

    def serve(self, item: T, tenant: str, amount: int) -> int:
        """So much of a request is served, as far as so much was left; returns how much that is."""
        found = self._tenants.get(tenant)
        if found is None or item not in found.items:
            return 0
        left, number = found.items[item]
        amount = min(amount, left)
        found.items[item] = left - amount, number
        found.classes[number].left -= amount
        found.left -= amount
        self.total -= amount
        return amount

    def remove(self, item: T, tenant: str) -> int:
        """A request has ended; returns what was left of it, 0 for one that is not here."""
        found = self._tenants.get(tenant)
        if found is None or item not in found.items:
            return 0
        left, number = found.items.pop(item)
        self.total -= left
        if not found.items:
            del self._tenants[tenant]
            return left
        found.left -= left
        size_class = found.classes[number]
        size_class.left -= left
        size_class.requests -= 1
        if not size_class.requests:
            del found.classes[number]
        return left

    def own_share(self, tenant: str, size: int) -> int:
        """What a tenant is served, its requests all at once, until one of ``size`` that comes now is done.

        Never too little, and at most 3 % too much while few requests are begun: those of a size class count together.
        """
        found = self._tenants.get(tenant)
        if found is None:
            return size
        return size + sum(min(one.left, one.requests * size) for one in found.classes.values())

    def until_done(self, tenant: str, size: int) -> int:
        """What everybody is served until a request of ``size`` that comes now is done, at the latest."""
        own = self.own_share(tenant, size)
        return own + sum(min(found.left, own) for other, found in self._tenants.items() if other != tenant)


def _size_class(size: int) -> int:
    """Sizes of one class are within an eighth of each other."""
    doublings = max(size.bit_length() - _CLASSES_PER_DOUBLING.bit_length(), 0)
    return 2 * _CLASSES_PER_DOUBLING * doublings + (size >> doublings)


@dataclass(slots=True)
class _Entry(Generic[T]):
    item: T
    tenant: str
    weight: int
    finish: float
    """Virtual time at which the request would be done."""
    is_waiting: bool = True


class FairQueue(Generic[T]):
    """Requests in the order in which they would be done under processor sharing.

    Priority p makes a request (1 + p) times as large: it comes later, but it comes.
    """

    def __init__(self) -> None:
        self.backlog: Backlog[T] = Backlog()
        self._entries: dict[T, _Entry[T]] = {}
        self._heap: list[tuple[float, int, _Entry[T]]] = []
        """By virtual finish, then arrival; entries that do not wait are passed over when they come up."""
        self._arrivals = itertools.count()
        self._clock = 0.0

    def __contains__(self, item: T) -> bool:
        return item in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def push(self, item: T, tenant: str, size: int, priority: int = 0) -> None:
        """A request joins, with what there is to do for it."""
        finish = self._clock + self.backlog.own_share(tenant, size * (1 + priority))
        entry = self._entries[item] = _Entry(item, tenant, 1 + priority, finish)
        self.backlog.add(item, tenant, size)
        heapq.heappush(self._heap, (finish, next(self._arrivals), entry))

    def first(self) -> T | None:
        """The request whose turn it is; it stays in the queue."""
        while self._heap:
            entry = self._heap[0][2]
            if entry.is_waiting:
                return entry.item
            heapq.heappop(self._heap)
        return None

    def park(self, item: T) -> None:
        """A request has nothing to be served just now; it keeps its place for :meth:`resume`."""
        self._entries[item].is_waiting = False

    def resume(self, item: T) -> None:
        entry = self._entries[item]
        if not entry.is_waiting:
            entry.is_waiting = True
            heapq.heappush(self._heap, (entry.finish, next(self._arrivals), entry))

    def serve(self, item: T, amount: int) -> None:
        """So much of a request is served in its turn: the clock moves on to where it stands."""
        self.shrink(item, amount)
        entry = self._entries[item]
        left = self.backlog.left(item, entry.tenant)
        self._clock = max(self._clock, entry.finish - left * entry.weight)

    def shrink(self, item: T, amount: int) -> None:
        """There is less to do for a request, at no cost to it."""
        self.backlog.serve(item, self._entries[item].tenant, amount)

    def remove(self, item: T) -> None:
        """A request is done, or has left; one that is not here does no harm."""
        entry = self._entries.pop(item, None)
        if entry is not None:
            entry.is_waiting = False
            self.backlog.remove(item, entry.tenant)
        if not self._entries:
            self._heap.clear()
