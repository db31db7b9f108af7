"""The slots of the engine's KV cache: which node of the prefix tree has which, least recently used evicted first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from rerankd.types import IdArray


class CachedNode(Protocol):
    """What the cache needs to know of a node of the prefix tree."""

    slots: IdArray | None
    """The KV cache slot of each of its tokens, int32 (tokens,); None while they are not cached."""
    last_used: int
    """Number of the last batch that had it on a path."""

    @property
    def has_cached_child(self) -> bool: ...

    def prune(self) -> None:
        """Leave the tree unless something still needs the node."""
        ...


class PrefixCache:
    """The slots of one engine, each free or given to a node.

    A cached node's parent is cached too, so only nodes without cached children are evicted.

    Args:
        capacity: slots that the engine has; 0 caches nothing.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._free: list[int] = list(range(capacity))
        self._nodes: set[CachedNode] = set()
        self._victims: list[CachedNode] = []
        """Of the batch ``_victims_of``: what it may evict, least recently used last."""
        self._victims_of = 0
        self._has_more = True
        """Whether another look, once these have gone, may find their parents."""

    @property
    def used(self) -> int:
        """Slots that hold keys and values, or wait for those of the pass under way."""
        return self.capacity - len(self._free)

    def reserve(self, tokens: int, batch: int) -> IdArray:
        """Up to ``tokens`` free slots, int32; what this batch does not use is evicted for them.

        Fewer slots come back where the rest of the cache is in use by the batch itself.
        """
        while len(self._free) < tokens and (node := self._victim(batch)) is not None:
            self.release(node)
            node.prune()
        taken = min(tokens, len(self._free))
        slots = self._free[len(self._free) - taken :]
        del self._free[len(self._free) - taken :]
        return np.array(slots, dtype=np.int32)

    def give_back(self, reserved: Sequence[IdArray]) -> None:
        """Slots that were reserved and not written."""
        for slots in reserved:
            self._free.extend(slots.tolist())

    def commit(self, node: CachedNode, slots: IdArray) -> None:
        """A pass has written the keys and values of a node's tokens."""
        node.slots = slots
        self._nodes.add(node)

    def added(self, node: CachedNode) -> None:
        """A cached node was split: one more holds slots."""
        self._nodes.add(node)

    def release(self, node: CachedNode) -> None:
        """Let a cached node's keys and values go."""
        if node.slots is not None:
            self._free.extend(node.slots.tolist())
            node.slots = None
            self._nodes.discard(node)

    def _victim(self, batch: int) -> CachedNode | None:
        """The least recently used node that can go; all of the cache is looked at a few times a batch, however many
        reservations it makes: once, and whenever those found have gone."""
        if batch != self._victims_of:
            self._victims, self._victims_of, self._has_more = [], batch, True
        while True:
            while self._victims:
                node = self._victims.pop()
                if _is_evictable(node, batch):
                    return node
            if not self._has_more:
                return None
            found = [node for node in self._nodes if _is_evictable(node, batch)]
            self._victims = sorted(found, key=lambda node: node.last_used, reverse=True)
            self._has_more = bool(found)


def _is_evictable(node: CachedNode, batch: int) -> bool:
    return node.slots is not None and node.last_used < batch and not node.has_cached_child
