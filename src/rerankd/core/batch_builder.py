"""Fills one batch, pair by pair, up to its token budget."""

from __future__ import annotations

import math

from rerankd.core.prefix_cache import PrefixCache
from rerankd.core.prefix_tree import Node, PrefixTree, missing_tokens, separate
from rerankd.engine.base import Batch, EngineInfo
from rerankd.types import PairPrompt


class BatchBuilder:
    """Counts what a batch would compute, and lays it out for the engine.

    An engine that shares prefixes gets them as a tree, any other gets whole prompts, and they count as such.
    """

    def __init__(self, info: EngineInfo) -> None:
        self.tokens: int
        """Tokens that the batch computes."""
        self.pairs: list[PairPrompt]
        self._budget: float
        self.begin()
        self._tree = PrefixTree(PrefixCache(info.kv_cache_slots)) if info.shares_prefix else None
        self._prefixes: dict[int, Node] = {}
        """Where each prefix ends, by the identity of its array."""

    def begin(self, budget: float = math.inf) -> None:
        """A new batch of at most ``budget`` tokens."""
        self.tokens, self.pairs, self._budget = 0, [], budget

    def add(self, pair: PairPrompt) -> bool:
        """Take a pair in, if there is room; one dearer than the whole budget goes alone.

        Nobody but the engine can say whether that one fits.
        """
        room = self._budget - self.tokens if self.pairs else math.inf
        tree = self._tree
        if tree is None:
            cost = pair.tokens if pair.tokens <= room else None
        elif (node := self._prefixes.get(id(pair.prefix))) is not None:
            cost = tree.add_pair(node, pair.tail, room)
        else:
            cost = self._add_first(tree, pair, room)
        if cost is None:
            return False
        self.tokens += cost
        self.pairs.append(pair)
        return True

    def _add_first(self, tree: PrefixTree, pair: PairPrompt, room: float) -> int | None:
        """What the first pair of a prefix costs; None where that is more than there is room for."""
        found = tree.find(pair.prefix)
        missing = missing_tokens(pair.prefix, found)
        if missing + len(pair.tail) > room:
            return None
        node = self._prefixes[id(pair.prefix)] = tree.insert(pair.prefix, found)
        own = tree.add_pair(node, pair.tail)
        assert own is not None, "no limit was given"
        return missing + own

    def layout(self) -> Batch:
        if self._tree is None:
            return separate([pair.ids for pair in self.pairs])
        return self._tree.layout(max(self.tokens, self._budget))

    def finish(self, *, succeeded: bool) -> None:
        """The batch has been computed, or has failed; what it wrote into the KV cache counts only if not."""
        self._prefixes.clear()
        if self._tree is not None:
            self._tree.finish(succeeded=succeeded)

    def forget_cache(self) -> None:
        """The engine's KV cache holds nothing any more."""
        if self._tree is not None:
            self._tree.forget()
