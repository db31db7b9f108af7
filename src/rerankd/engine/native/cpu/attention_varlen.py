"""Varlen attention in C: tokens as they lie, without padding, one call a layer.

float32 on any processor with vectors, bfloat16 in AMX tiles (``csrc/attention_*.c``). Keys are packed in blocks of
32; a block of queries sees the blocks of a prefix whole and those of a tail causally.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import torch
from numpy.typing import NDArray

from rerankd.engine.native.cpu.library import CpuKernels, Table
from rerankd.engine.native.forward_batch import TokenLayout, concat_ranges

_BLOCK: Final = 32
"""Keys, and query rows, that the kernels take together."""
_MAX_HEAD_DIM: Final = 256
_PACKED_PER_TOKEN: Final = 4
_PACKED_AT_LEAST: Final = 512
"""Blocks of keys that one call packs at most: so many times the batch's own, or so many. A deep tree packs the path
to each of its inner nodes, and is worked on in several calls."""


class VarlenAttention:
    """Attention of one batch."""

    def __init__(self, layout: TokenLayout, kernels: CpuKernels, group_size: int) -> None:
        """``group_size``: query heads that share a key head."""
        self._kernels = kernels
        keys = _KeyLists.of(layout)
        computed = np.flatnonzero(~layout.batch.cached)
        every = keys.sequences(computed, layout.first_rows[computed], layout.lengths[computed])
        leaves = layout.batch.leaves.astype(np.int64)
        last = keys.sequences(leaves, np.arange(len(leaves)), np.ones(len(leaves), dtype=np.int64))
        self.prefill_work = [*keys.worklists(every, group_size)]
        self.last_token_work = [*keys.worklists(last, group_size)]

    @staticmethod
    def supports(kernels: CpuKernels, dtype: torch.dtype, head_dim: int) -> bool:
        """Whether there is a kernel for heads of this dtype and size."""
        has_kernel = dtype == torch.float32 or (dtype == torch.bfloat16 and kernels.has_amx)
        return has_kernel and head_dim % 32 == 0 and head_dim <= _MAX_HEAD_DIM

    def prefill(self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        return self._attend(queries, keys, values, self.prefill_work)

    def last_token(self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        return self._attend(queries, keys, values, self.last_token_work)

    def _attend(
        self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, work: list[AttentionWorklist]
    ) -> torch.Tensor:
        out = torch.empty_like(queries)
        # The float32 kernel reads values where they lie.
        copies = 1 if keys.dtype == torch.float32 else 2
        for each in work:
            packed = keys.new_empty(copies, len(each.blocks), keys.shape[1], _BLOCK, keys.shape[2])
            self._kernels.attention(
                queries, keys, values, out, packed, each.sequences, each.blocks, each.items, each.width
            )
        return out.flatten(1)


@dataclass(frozen=True, slots=True)
class AttentionWorklist:
    """What one call of the kernel computes.

    Attributes:
        sequences: int64 (n, 6), the struct of the kernel: first block and number of keys of the prefix, the same of
            the tail, first query row and number of queries. The queries are the last tokens of the tail.
        blocks: int64 (blocks, 32), the rows of the keys that are packed together; -1 where there is none.
        items: int64 (m, 2), a sequence and the first of the query rows, times heads, that are worked on together.
        width: keys of the longest sequence, in whole blocks.
    """

    sequences: Table
    blocks: Table
    items: Table
    width: int

    @classmethod
    def of(cls, sequences: Table, blocks: Table, group_size: int) -> Self:
        pieces = _blocks_of(sequences[:, 5] * group_size)
        owners = np.repeat(np.arange(len(sequences)), pieces)
        begins = concat_ranges(np.zeros(len(pieces), dtype=np.int64), pieces) * _BLOCK
        width = int((_blocks_of(sequences[:, 1]) + _blocks_of(sequences[:, 3])).max() * _BLOCK)
        items = np.ascontiguousarray(np.stack([owners, begins], axis=1))
        return cls(np.ascontiguousarray(sequences), np.ascontiguousarray(blocks), items, width)


@dataclass(frozen=True, slots=True)
class _KeyLists:
    """One list of key rows for each segment: of an inner one the path from the root, which its children see whole
    and it sees causally; of an outer one its own tokens.

    Attributes:
        counts: int64 (segments,), rows of each list; 0 for those that nobody reads.
        rows: int64, the lists one after another.
    """

    layout: TokenLayout
    is_inner: NDArray[np.bool_]
    counts: Table
    rows: Table

    @classmethod
    def of(cls, layout: TokenLayout) -> Self:
        batch = layout.batch
        is_inner = np.zeros(batch.segments, dtype=bool)
        # What has cached children alone is part of their lists.
        above = batch.parents[~batch.cached]
        is_inner[above[above >= 0]] = True
        is_outer = ~is_inner & ~batch.cached
        counts = np.where(is_inner, layout.ends, np.where(is_outer, layout.lengths, 0))
        rows = np.empty(int(counts.sum()), dtype=np.int64)
        is_path = np.repeat(is_inner, counts)
        rows[is_path] = layout.path_rows(np.flatnonzero(is_inner))
        own = np.flatnonzero(is_outer)
        rows[~is_path] = layout.rows[concat_ranges(batch.offsets[own].astype(np.int64), layout.lengths[own])]
        return cls(layout, is_inner, counts, rows)

    def sequences(self, segments: Table, queries: Table, query_counts: Table) -> Table:
        """What the last ``query_counts`` tokens of ``segments`` attend to; block numbers are those of the lists."""
        firsts = _before(_blocks_of(self.counts))
        parents = self.layout.batch.parents[segments].astype(np.int64)
        has_prefix = (parents >= 0) & ~self.is_inner[segments]
        return np.stack(
            [
                np.where(has_prefix, firsts[parents], 0),
                np.where(has_prefix, self.counts[parents], 0),
                firsts[segments],
                self.counts[segments],
                queries,
                query_counts,
            ],
            axis=1,
        )

    def worklists(self, sequences: Table, group_size: int) -> Iterator[AttentionWorklist]:
        """One, or of a deep tree several, none of which packs more than a few times the batch."""
        blocks = self._blocks()
        own = int(_blocks_of(self.layout.lengths).sum())
        limit = max(_PACKED_PER_TOKEN * own, _PACKED_AT_LEAST)
        if len(blocks) <= limit:
            yield AttentionWorklist.of(sequences, blocks, group_size)
            return
        needed = np.cumsum(_blocks_of(sequences[:, 1]) + _blocks_of(sequences[:, 3]))
        for part in np.split(sequences, np.flatnonzero(np.diff(needed // limit)) + 1):
            yield AttentionWorklist.of(*_with_own_blocks(part, blocks), group_size)

    def _blocks(self) -> Table:
        pieces = _blocks_of(self.counts)
        inside = concat_ranges(np.zeros(len(pieces), dtype=np.int64), pieces) * _BLOCK
        places = inside[:, None] + np.arange(_BLOCK)
        is_there = places < np.repeat(self.counts, pieces)[:, None]
        at = np.where(is_there, np.repeat(_before(self.counts), pieces)[:, None] + places, 0)
        return np.where(is_there, self.rows[at], -1)


def _with_own_blocks(sequences: Table, blocks: Table) -> tuple[Table, Table]:
    """Some sequences, and the blocks that they need alone."""
    used = np.zeros(len(blocks), dtype=bool)
    for first, count in ((0, 1), (2, 3)):
        used[concat_ranges(sequences[:, first], _blocks_of(sequences[:, count]))] = True
    renumbered, moved = sequences.copy(), np.cumsum(used) - 1
    for first, count in ((0, 1), (2, 3)):
        renumbered[:, first] = np.where(sequences[:, count] > 0, moved[sequences[:, first]], 0)
    return renumbered, blocks[used]


def _before(counts: Table) -> Table:
    return np.cumsum(counts) - counts


def _blocks_of(counts: Table) -> Table:
    return -(-counts // _BLOCK)
