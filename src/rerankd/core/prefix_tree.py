"""A radix tree over token ids: what the prompts of a batch share, and what the KV cache holds of them.

The one place that looks for shared prefixes. A request's prefix is inserted once, each pair's tail below it; nodes
are split where prompts part, at any depth. Nodes that are cached stay from batch to batch (``prefix_cache.py``),
all others belong to the batch under way. Time and memory are linear in the tokens inserted.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from rerankd.core.prefix_cache import PrefixCache
from rerankd.engine.base import Batch
from rerankd.types import IdArray

MIN_SAVED_TOKENS = 32
"""A shared segment has to save the computation of this many tokens; attention over many short ones costs more."""


_MAX_CHAIN = 64


@dataclass(slots=True, eq=False)
class Node:
    """A run of tokens on the path of one or more prompts."""

    ids: IdArray
    """int32, shape (n,); empty at the root alone."""
    parent: Node | None
    end: int
    """Tokens from the root to the end of this node."""
    children: dict[int, Node] = field(default_factory=dict)
    """By their first token."""
    slots: IdArray | None = None
    """The KV cache slot of each token, int32 (n,); None while the node is not cached."""
    reserved: IdArray | None = None
    """Slots that the pass under way writes, at most n: those of the first tokens."""
    last_used: int = -1
    """Number of the last batch with a prompt through this node."""
    pairs: list[int] = field(default_factory=list)
    """Pairs of the batch under way whose prompts end here."""
    branches: Sequence[Node] = ()
    """The children with a prompt of the batch under way, the last first; found when it is laid out."""
    uses: int = 0
    """Pairs of the batch under way at or below this node; counted when it is laid out."""
    keep: bool = False
    """Part of a request's prefix of which little is cached: worth caching for one pair alone."""

    @property
    def has_cached_child(self) -> bool:
        return any(child.slots is not None for child in self.children.values())

    def prune(self) -> None:
        """Leave the tree if nothing needs this node any more; its parents likewise."""
        node: Node | None = self
        while node is not None and node.parent is not None and node.slots is None and not node.children:
            siblings, first = node.parent.children, int(node.ids[0])
            if siblings.get(first) is not node:
                return
            del siblings[first]
            node = node.parent


class PrefixTree:
    """The prompts of one batch at a time, over the prefixes that are cached.

    ``insert`` and ``add_pair`` build a batch, ``layout`` flattens it for the engine, ``finish`` ends it.
    """

    def __init__(self, cache: PrefixCache | None = None) -> None:
        self.cache = cache or PrefixCache(0)
        self.pairs = 0
        """Pairs of the batch under way."""
        self._batch = 0
        self._reset()

    def _reset(self) -> None:
        self.root = Node(np.empty(0, dtype=np.int32), None, 0)
        self._order: list[Node] = []
        """The nodes of the batch that was laid out."""

    def find(self, prefix: IdArray) -> Found:
        """How far the tree knows a prefix, int32 (p,), p >= 0."""
        return _walk(self.root, prefix)

    def insert(self, prefix: IdArray, found: Found | None = None) -> Node:
        """Where a request's prefix ends; its tails are added below that node.

        Args:
            found: what :meth:`find` has just said of it.
        """
        found = found or self.find(prefix)
        cached = _cached_tokens(found)
        node = self._insert(found)
        if 2 * cached < len(prefix):
            self._keep(node)
        return node

    def add_pair(self, at: Node, tail: IdArray, room: float = math.inf) -> int | None:
        """One more pair, whose prompt is the path to ``at`` and ``tail``, int32 (t,), t >= 1.

        Returns:
            its :func:`missing_tokens`; None, and nothing is added, where that is more than ``room``.
        """
        found = _walk(at, tail)
        missing = missing_tokens(tail, found)
        if missing > room:
            return None
        node = self._insert(found)
        if node.slots is not None:
            self._compute_end(node)
        node.pairs.append(self.pairs)
        self.pairs += 1
        return missing

    def layout(self, max_tokens: float = math.inf) -> Batch:
        """The batch for the engine; reserves slots for what is worth caching.

        Args:
            max_tokens: what may be computed; where short shared segments would be given up for more than that,
                they are not.
        """
        self._order = self._in_order()
        if self.cache.capacity:
            self._reserve(self._order)
        batch = self._flatten(MIN_SAVED_TOKENS)
        return batch if batch.tokens <= max_tokens else self._flatten(1)

    def finish(self, *, succeeded: bool) -> None:
        """End the batch: what the pass has written is cached, everything else of it is forgotten."""
        cached, unwritten = [self.root], []
        for node in self._order:
            if node.slots is not None:
                cached.append(node)
            elif node.reserved is not None and succeeded:
                cached.append(self._settle(node))
            elif node.reserved is not None:
                unwritten.append(node.reserved)
        self.cache.give_back(unwritten)
        for node in cached:
            node.keep = False
            # Below a node that is not cached nothing is.
            if node.children:
                node.children = {first: child for first, child in node.children.items() if child.slots is not None}
        self._order = []
        self._batch += 1
        self.pairs = 0

    def forget(self) -> None:
        """Nothing is cached any more; not while a batch is under way."""
        self.cache = PrefixCache(self.cache.capacity)
        self._reset()

    def _insert(self, found: Found) -> Node:
        node, child, common, rest = found
        if child is not None:
            node, rest = self._split(child, common), rest[common:]
        if tokens := len(rest):
            parent, node = node, Node(rest, node, node.end + tokens)
            parent.children[rest.item(0)] = node
        # The path to it is used by this batch.
        step: Node | None = node
        while step is not None and step.last_used != self._batch:
            step.last_used = self._batch
            step = step.parent
        return node

    def _split(self, node: Node, at: int) -> Node:
        """Cut a node after its first ``at`` tokens, 0 < at < n; returns the new upper part.

        The node itself becomes the lower part: whoever holds it as the end of a prefix still holds that end.
        """
        parent = node.parent
        assert parent is not None, "the root is never split"
        upper = Node(node.ids[:at], parent, parent.end + at, {int(node.ids[at]): node}, keep=node.keep)
        upper.last_used = node.last_used
        if node.slots is not None:
            upper.slots, node.slots = node.slots[:at], node.slots[at:]
            self.cache.added(upper)
        parent.children[int(node.ids[0])] = upper
        node.ids, node.parent = node.ids[at:], upper
        return upper

    def _keep(self, node: Node | None) -> None:
        while node is not None and node.slots is None and node.parent is not None:
            node.keep = True
            node = node.parent

    def _compute_end(self, node: Node) -> None:
        """A prompt ends inside of what is cached: its last token is computed all the same."""
        if len(node.ids) > 1:
            self._split(node, len(node.ids) - 1)
        below = [node]
        while below:
            step = below.pop()
            self.cache.release(step)
            below.extend(step.children.values())

    def _in_order(self) -> list[Node]:
        """The nodes of the batch, parents before children, each with the pairs that pass through it."""
        order, waiting, batch = [], [self.root], self._batch
        while waiting:
            node = waiting.pop()
            order.append(node)
            node.uses = len(node.pairs)
            node.branches = ()
            if node.children:
                node.branches = [child for child in reversed(node.children.values()) if child.last_used == batch]
                waiting.extend(node.branches)
        for node in reversed(order):
            if node.parent is not None:
                node.parent.uses += node.uses
        return order

    def _reserve(self, order: Sequence[Node]) -> None:
        """Slots for shared prefixes, and for those of which little is cached; parents first, as far as slots go."""
        for node in order:
            parent = node.parent
            is_shared = (node.uses - 1) * len(node.ids) >= MIN_SAVED_TOKENS
            if parent is None or node.slots is not None or not (node.keep or is_shared):
                continue
            if parent.parent is not None and parent.slots is None and not _is_reserved(parent):
                continue
            # A prompt's end is never read from the cache.
            tokens = len(node.ids) - bool(node.pairs)
            if tokens and len(slots := self.cache.reserve(tokens, self._batch)):
                node.reserved = slots

    def _flatten(self, min_saved: int) -> Batch:
        """The nodes of the batch as segments; those that save too little go with their children."""
        segments = _Segments(self.pairs)
        waiting: list[tuple[Node, tuple[Node, ...], int]] = [(node, (), -1) for node in self.root.branches]
        while waiting:
            node, carried, parent = waiting.pop()
            carried = (*carried, node)
            if not node.branches or _is_worth_a_segment(carried, min_saved):
                parent = segments.add(carried, parent)
                carried = ()
            for child in node.branches:
                waiting.append((child, carried, parent))
        return segments.batch()

    def _settle(self, node: Node) -> Node:
        """What a pass has written of a node is cached; returns the node that holds it."""
        slots, node.reserved = node.reserved, None
        assert slots is not None
        written = node if len(slots) == len(node.ids) else self._split(node, len(slots))
        self.cache.commit(written, slots)
        return written


class _Segments:
    """The arrays of a batch, filled segment by segment."""

    def __init__(self, pairs: int) -> None:
        self.lengths: list[int] = []
        self.parents: list[int] = []
        self.cached: list[bool] = []
        self.leaves = [0] * pairs
        self._ids: list[IdArray] = []
        self._slots: list[tuple[int, IdArray]] = []
        self._tokens = 0

    def add(self, nodes: Sequence[Node], parent: int) -> int:
        """One segment of the nodes' tokens; returns its index."""
        tokens = self._tokens
        for node in nodes:
            slots = node.reserved if node.slots is None else node.slots
            if slots is not None:
                self._slots.append((tokens, slots))
            self._ids.append(node.ids)
            tokens += len(node.ids)
        segment = len(self.parents)
        self.lengths.append(tokens - self._tokens)
        self.parents.append(parent)
        self.cached.append(nodes[-1].slots is not None)
        self._tokens = tokens
        for pair in nodes[-1].pairs:
            self.leaves[pair] = segment
        return segment

    def batch(self) -> Batch:
        slots = np.full(self._tokens, -1, dtype=np.int32)
        for begin, row in self._slots:
            slots[begin : begin + len(row)] = row
        return Batch(
            token_ids=np.concatenate(self._ids, dtype=np.int32) if self._ids else np.empty(0, dtype=np.int32),
            offsets=_offsets(self.lengths),
            parents=np.array(self.parents, dtype=np.int32),
            leaves=np.array(self.leaves, dtype=np.int32),
            cached=np.array(self.cached, dtype=np.bool_),
            slots=slots,
        )


def _is_worth_a_segment(carried: Sequence[Node], min_saved: int) -> bool:
    """Do the nodes stand by themselves, or rather before each branch of the last one?"""
    node = carried[-1]
    if node.pairs:
        return True
    if len(node.branches) == 1:
        # A chain is one segment, as far as all of it is cached or nothing is, and not without an end: the nodes of a
        # segment are copied from one to the next.
        is_border = (node.slots is None) != (node.branches[0].slots is None)
        return is_border or len(carried) >= _MAX_CHAIN
    tokens = 0
    for step in carried:
        if step.slots is not None or step.reserved is not None:
            return True
        tokens += len(step.ids)
    return (len(node.branches) - 1) * tokens >= min_saved


Found: TypeAlias = "tuple[Node, Node | None, int, IdArray]"
"""The last node that is read whole, the child of it that is read in part and how many of its tokens (None and 0 where
there is none), and the ids that come after the whole nodes."""


def missing_tokens(ids: IdArray, found: Found) -> int:
    """Tokens of ``ids`` that neither the batch computes yet nor the cache holds.

    What is shared and too short to be worth a segment counts as missing.
    """
    tokens = len(ids)
    missing = len(found[3]) - found[2]
    return missing if tokens - missing >= MIN_SAVED_TOKENS else tokens


def _cached_tokens(found: Found) -> int:
    """Tokens of what was looked for that the cache holds."""
    node, child, common, _ = found
    if child is not None and child.slots is not None:
        return node.end + common
    while node.slots is None and node.parent is not None:
        node = node.parent
    return node.end


def _walk(at: Node, ids: IdArray) -> Found:
    """As far as the tree goes along ``ids``."""
    node, rest, left = at, ids, len(ids)
    while left:
        child = node.children.get(rest.item(0))
        if child is None:
            break
        own = child.ids
        size = len(own)
        shorter = min(size, left)
        # Not argmax: that gives up the GIL, and gets it back when another thread is done with its turn of 5 ms.
        differs_at = (own[:shorter] != rest[:shorter]).tobytes().find(1)
        common = shorter if differs_at < 0 else differs_at
        if common < size:
            return node, child, common, rest
        node, rest, left = child, rest[common:], left - common
    return node, None, 0, rest


def _is_reserved(node: Node) -> bool:
    return node.reserved is not None and len(node.reserved) == len(node.ids)


def _offsets(lengths: Sequence[int]) -> IdArray:
    return np.array([0, *itertools.accumulate(lengths)], dtype=np.int32)


def batch_of(prompts: Sequence[IdArray]) -> Batch:
    """One batch of whole prompts, each int32 and not empty, that shares what they begin with."""
    tree = PrefixTree()
    for prompt in prompts:
        tree.add_pair(tree.root, prompt)
    return tree.layout()


def separate(prompts: Sequence[IdArray]) -> Batch:
    """One batch of whole prompts that shares nothing: one root segment a pair."""
    lengths = [len(prompt) for prompt in prompts]
    count, tokens = len(prompts), sum(lengths)
    return Batch(
        token_ids=np.concatenate(prompts, dtype=np.int32) if prompts else np.empty(0, dtype=np.int32),
        offsets=_offsets(lengths),
        parents=np.full(count, -1, dtype=np.int32),
        leaves=np.arange(count, dtype=np.int32),
        cached=np.zeros(count, dtype=np.bool_),
        slots=np.full(tokens, -1, dtype=np.int32),
    )
