"""One request after another straight to an engine, through the core's own prefix tree and cache."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rerankd.core.prefix_cache import PrefixCache
from rerankd.core.prefix_tree import PrefixTree, separate
from rerankd.engine.base import Batch, Engine
from rerankd.types import IdArray


class DirectScorer:
    """A loaded engine without the queue before it; what requests begin with is cached as in the server."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._tree = PrefixTree(PrefixCache(engine.info.kv_cache_slots))

    def score(self, prefix: IdArray, tails: Sequence[IdArray]) -> NDArray[np.float32]:
        """Raw scores of the pairs that begin with ``prefix``, float32 (pairs,)."""
        scores = self._engine.score(self._batch(prefix, tails))
        if self._engine.info.shares_prefix:
            self._tree.finish(succeeded=bool(np.isfinite(scores).all()))
        return scores

    def _batch(self, prefix: IdArray, tails: Sequence[IdArray]) -> Batch:
        if not self._engine.info.shares_prefix:
            return separate([np.concatenate([prefix, tail]) for tail in tails])
        end = self._tree.insert(prefix)
        for tail in tails:
            self._tree.add_pair(end, tail)
        return self._tree.layout()
