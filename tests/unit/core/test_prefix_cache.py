from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from rerankd.core.prefix_cache import PrefixCache
from rerankd.types import IdArray


@dataclass(eq=False)
class Node:
    """A node of a chain: what it was asked is counted."""

    cache: PrefixCache
    last_used: int
    child: Node | None = None
    slots: IdArray | None = None
    asked: int = field(default=0)

    @property
    def has_cached_child(self) -> bool:
        self.asked += 1
        return self.child is not None and self.child.slots is not None

    def prune(self) -> None:
        pass


def filled(nodes: int, *, chained: bool = False) -> tuple[PrefixCache, list[Node]]:
    """A full cache of one slot a node, each last used by the batch of its number."""
    cache = PrefixCache(nodes)
    made: list[Node] = []
    for number in range(nodes):
        node = Node(cache, last_used=number)
        cache.commit(node, cache.reserve(1, batch=number))
        if chained and made:
            made[-1].child = node
        made.append(node)
    return cache, made


def test_the_least_recently_used_go_first() -> None:
    cache, nodes = filled(10)
    assert len(cache.reserve(3, batch=10)) == 3
    assert [node.slots is None for node in nodes] == [True] * 3 + [False] * 7


def test_a_parent_goes_after_its_child_and_what_the_batch_uses_never() -> None:
    cache, nodes = filled(10, chained=True)
    nodes[-1].last_used = 20
    assert len(cache.reserve(5, batch=20)) == 0, "every other node has a child in use"
    nodes[-1].last_used = 9
    assert len(cache.reserve(4, batch=21)) == 4
    assert [node.slots is None for node in nodes] == [False] * 6 + [True] * 4


def test_what_came_into_use_since_it_was_looked_for_stays() -> None:
    cache, nodes = filled(4)
    cache.reserve(1, batch=5)
    nodes[1].last_used = 5
    assert len(cache.reserve(3, batch=5)) == 2
    assert nodes[1].slots is not None


def test_the_cache_is_not_searched_for_every_reservation_of_a_batch() -> None:
    cache, nodes = filled(1000)
    before = sum(node.asked for node in nodes)
    slots = [cache.reserve(1, batch=1000) for _ in range(500)]
    assert np.unique(np.concatenate(slots)).size == 500
    assert sum(node.asked for node in nodes) - before <= 2_000, "500 searches would ask 375,000 times"


def test_a_full_cache_in_use_is_searched_once_a_batch() -> None:
    cache, nodes = filled(1000)
    for node in nodes:
        node.last_used = 1000
    nodes[0].last_used = 1
    nodes[0].child = nodes[1]
    assert [len(cache.reserve(1, batch=1000)) for _ in range(500)] == [0] * 500
    assert nodes[0].asked <= 2
