"""One request after another straight to an engine, laid out as the core does it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rerankd.core.batch_builder import BatchBuilder
from rerankd.engine.base import Engine
from rerankd.types import IdArray, PairPrompt


class DirectScorer:
    """A loaded engine with the core's batch builder, prefix cache included, and no queue: a request is one batch."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._builder = BatchBuilder(engine.info)

    def score(self, prefix: IdArray, tails: Sequence[IdArray]) -> NDArray[np.float32]:
        """Raw scores of the pairs that begin with ``prefix``, float32 (pairs,)."""
        self._builder.begin()
        for tail in tails:
            self._builder.add(PairPrompt(prefix, tail))
        scores = self._engine.score(self._builder.layout())
        self._builder.finish(succeeded=bool(np.isfinite(scores).all()))
        return scores
