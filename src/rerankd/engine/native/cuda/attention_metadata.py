"""What a forward pass on CUDA reads: which token each row is, and what the programs of attention work on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Self, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from rerankd.engine.base import Batch
from rerankd.engine.native.forward_batch import Ints, TokenLayout, concat_ranges, slots_of

LAST_TOKEN_BLOCK: Final = 16
"""Queries, times heads that share a key head, of one program where every pair has one query: the least that tensor
cores take."""
_PREFILL_BLOCK: Final = 128
"""The same for all queries ..."""
_SMALLER_BLOCK: Final = 64
"""... and where so many heads share one, or are so wide, that less would be left empty (both measured)."""

TASK_FIELDS: Final = 6
RANGE_FIELDS: Final = 2

AttentionKernel: TypeAlias = Callable[
    [torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, int], torch.Tensor
]
"""Queries, keys, values, tasks, ranges and the block: what the queries of each task attend to."""


def prefill_block(group_size: int, head_dim: int) -> int:
    """Queries, times the ``group_size`` heads that share a key head, that one program attends with."""
    return _PREFILL_BLOCK if group_size < 4 and head_dim <= 128 else _SMALLER_BLOCK


class AttentionMetadata:
    """Attention of one batch by tasks: some queries of one segment, and the keys that they see.

    A task is int32 (6,): first row and number of its queries; first row and number of the keys of
    their own segment, up to the last query's, seen causally; first and last (exclusive) of the ranges before them.
    A range is int32 (2,): first row and number of keys, all of them seen. Every ancestor of a segment is a range.
    """

    def __init__(
        self,
        prefill: torch.Tensor,
        last_token: torch.Tensor,
        ranges: torch.Tensor,
        kernel: AttentionKernel,
        block: int,
    ) -> None:
        """``block``: queries of a prefill task, times heads that share a key head, at most."""
        self._prefill = prefill
        self._last_token = last_token
        self._ranges = ranges
        self._kernel = kernel
        self._block = block

    def prefill(self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        return self._kernel(queries, keys, values, self._prefill, self._ranges, self._block).flatten(1)

    def last_token(self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        return self._kernel(queries, keys, values, self._last_token, self._ranges, LAST_TOKEN_BLOCK).flatten(1)


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything there is. Passes of the same sizes differ in nothing but their numbers."""

    tokens: int
    pairs: int
    tasks: int
    ranges: int
    cached: int
    """Rows from the KV cache ..."""
    written: int
    """... and rows that go into it."""

    @classmethod
    def of(cls, batch: Batch, max_queries: int) -> Self:
        """``max_queries``: of a task."""
        lengths = np.diff(batch.offsets).astype(np.int64)
        computed = lengths[~batch.cached]
        tokens, slots = int(computed.sum()), int(np.count_nonzero(batch.slots >= 0))
        cached = int(lengths.sum()) - tokens
        tasks = int((-(-computed // max_queries)).sum())
        ranges = _Ancestors.count(batch)
        return cls(tokens, batch.pairs, tasks, ranges, cached, slots - cached)

    def padded(self) -> Sizes:
        """Bucketed sizes, which many batches have in common once they are padded: an eighth more tokens at most."""
        return Sizes(
            tokens=round_up_to_bucket(self.tokens, 64, 8),
            pairs=round_up_to_bucket(self.pairs, 8),
            tasks=round_up_to_bucket(self.tasks, 16),
            ranges=round_up_to_bucket(self.ranges, 16),
            cached=round_up_to_bucket(self.cached),
            written=round_up_to_bucket(self.written),
        )


def round_up_to_bucket(count: int, least: int = 32, parts: int = 2) -> int:
    """``count`` rounded up to a multiple of ``least``, and of one of ``parts`` of the power of two below it."""
    step = max(least, (1 << count.bit_length() >> 1) // parts)
    return -(-count // step) * step


def metadata_of(batch: Batch, max_queries: int, computed_rows: int) -> dict[str, NDArray[np.integer]]:
    """What a pass reads. A task has at most ``max_queries`` queries; cached rows follow ``computed_rows`` others."""
    layout = TokenLayout.of(batch, computed_rows)
    ancestors = _Ancestors.of(layout)
    computed = np.flatnonzero(~batch.cached)
    tasks = ancestors.tasks(computed, layout.first_rows[computed], layout.lengths[computed])
    leaves = batch.leaves.astype(np.int64)
    last_token = ancestors.tasks(leaves, np.arange(len(leaves)), np.ones(len(leaves), dtype=np.int64))
    read, written_rows, written_slots = slots_of(layout)
    return {
        "ids": layout.ids,
        "positions": layout.positions,
        "last": layout.last,
        "prefill": _split(tasks, max_queries).ravel(),
        "last_token": last_token.ravel(),
        "ranges": ancestors.ranges.ravel(),
        "read_slots": read,
        "written_rows": written_rows,
        "written_slots": written_slots,
    }


@dataclass(frozen=True, slots=True)
class _Ancestors:
    """The ranges before each segment: those of the path to its parent, which its siblings share.

    Attributes:
        ranges: int64 (n, 2), one path after another.
        begins, ends: int64 (segments,), by parent: where its path is among them.
    """

    layout: TokenLayout
    ranges: Ints
    begins: Ints
    ends: Ints

    @classmethod
    def of(cls, layout: TokenLayout) -> Self:
        parents = _inner(layout.batch)
        owners, found = layout.paths(parents)
        ends = np.zeros(layout.batch.segments, dtype=np.int64)
        counts = np.bincount(owners, minlength=len(parents)).astype(np.int64)
        ends[parents] = np.cumsum(counts)
        begins = ends.copy()
        begins[parents] -= counts
        ranges = np.stack([layout.first_rows[found], layout.lengths[found]], axis=1)
        return cls(layout, ranges, begins, ends)

    @staticmethod
    def count(batch: Batch) -> int:
        """Ranges of a batch, without laying it out."""
        count, segments = 0, _inner(batch)
        while len(segments):
            count += len(segments)
            above = batch.parents[segments].astype(np.int64)
            segments = above[above >= 0]
        return count

    def tasks(self, segments: Ints, queries: Ints, query_counts: Ints) -> Ints:
        """One task for the last ``query_counts`` tokens of each of ``segments``."""
        layout = self.layout
        parents = layout.batch.parents[segments].astype(np.int64)
        has_parent = parents >= 0
        return np.stack(
            [
                queries,
                query_counts,
                layout.first_rows[segments],
                layout.lengths[segments],
                np.where(has_parent, self.begins[parents], 0),
                np.where(has_parent, self.ends[parents], 0),
            ],
            axis=1,
        )


def _inner(batch: Batch) -> Ints:
    """The segments that have computed children."""
    above = batch.parents[~batch.cached]
    parents: Ints = np.unique(above[above >= 0]).astype(np.int64)
    return parents


def _split(tasks: Ints, max_queries: int) -> Ints:
    """Tasks of at most ``max_queries`` queries; each sees as many keys of its own segment as its last query does."""
    pieces = -(-tasks[:, 1] // max_queries)
    split: Ints = np.repeat(tasks, pieces, axis=0)
    begins = concat_ranges(np.zeros(len(pieces), dtype=np.int64), pieces) * max_queries
    split[:, 1] = np.minimum(split[:, 1] - begins, max_queries)
    split[:, 0] += begins
    split[:, 3] = begins + split[:, 1]
    return split
