"""Batches of a given shape, for the tests of layout and attention."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from rerankd.engine.base import Batch, Group
from rerankd.engine.native.forward_batch import TokenLayout
from rerankd.engine.native.kept import Loan

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=12)
GROUPS = st.lists(st.tuples(st.integers(0, 40), LENGTHS), min_size=1, max_size=4)
KEPT = st.lists(st.sampled_from([0, 3, 32, 37, 40]), min_size=4, max_size=4)

Shape = list[tuple[int, list[int]]]


def loan_of(shape: Shape, kept: list[int]) -> Loan:
    """All groups begin with the same kept rows, and see as many as ``kept`` says and their prefix has."""
    counts = [min(prefix, count) for (prefix, _), count in zip(shape, kept, strict=False)]
    return Loan(np.array(counts, dtype=np.int64), np.zeros(len(shape), dtype=np.int64))


def placed_of(shape: Shape, kept: list[int] | None = None) -> TokenLayout:
    return TokenLayout.of(batch_of(shape), loan_of(shape, kept or [0] * len(shape)))


def batch_of(shape: Shape) -> Batch:
    """Groups of (prefix length, tail lengths)."""

    def ids(length: int) -> np.ndarray:
        return np.arange(length, dtype=np.int32)

    return Batch.of([Group(ids(prefix), tuple(ids(tail) for tail in tails)) for prefix, tails in shape])
