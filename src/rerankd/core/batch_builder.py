"""Fills one batch, pair by pair, up to its token budget."""

from __future__ import annotations

import math

from rerankd.core.prefix_cache import PrefixCache
from rerankd.core.prefix_tree import Node, PrefixTree, separate
from rerankd.engine.base import Batch, EngineInfo
from rerankd.types import PairPrompt


class BatchBuilder:
    """Counts what a batch would compute, and lays it out for the engine.

    An engine that shares prefixes gets them as a tree, any other gets whole prompts, and they count as such.
    """

    def __init__(self, info: EngineInfo) -> None:
        self.tokens = 0
        """Tokens that the batch computes."""
        self.pairs: list[PairPrompt] = []
        self._budget = math.inf
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
        cost = self._cost(pair)
        if self.pairs and self.tokens + cost > self._budget:
            return False
        self.tokens += cost
        self.pairs.append(pair)
        if self._tree is not None:
            node = self._prefixes.get(id(pair.prefix))
            if node is None:
                node = self._prefixes[id(pair.prefix)] = self._tree.insert(pair.prefix)
            self._tree.add_pair(node, pair.tail)
        return True

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

    def _cost(self, pair: PairPrompt) -> int:
        if self._tree is None:
            return pair.tokens
        node = self._prefixes.get(id(pair.prefix))
        if node is not None:
            return self._tree.missing(node, pair.tail)
        return self._tree.missing(self._tree.root, pair.prefix) + len(pair.tail)
