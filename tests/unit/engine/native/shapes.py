"""Batches of a given shape, for the tests of layout and attention."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from rerankd.engine.base import Batch, Group

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=12)
GROUPS = st.lists(st.tuples(st.integers(0, 40), LENGTHS), min_size=1, max_size=4)


def batch_of(shape: list[tuple[int, list[int]]]) -> Batch:
    """Groups of (prefix length, tail lengths)."""

    def ids(length: int) -> np.ndarray:
        return np.arange(length, dtype=np.int32)

    return Batch.of([Group(ids(prefix), tuple(ids(tail) for tail in tails)) for prefix, tails in shape])
