"""Attention over packed rows as they lie, one call a layer: C on a CPU, in float32, or in bfloat16 in AMX tiles."""

from __future__ import annotations

import numpy as np
import torch

from rerankd.engine.native.cpu.library import CpuKernels, Table
from rerankd.engine.native.forward_batch import TokenLayout

_BLOCK = 32
"""Keys, and query rows, that the kernels take together."""
_MAX_HEAD_DIM = 256


class VarlenAttention:
    """Attention of one batch.

    Attributes:
        blocks: (blocks, 32), the rows of the keys that are packed together; -1 where there is none.
        everything, lasts: the work for all rows and for the last ones.
    """

    def __init__(self, placed: TokenLayout, kernels: CpuKernels, shared: int) -> None:
        """``shared``: query heads that share a key head."""
        batch = placed.batch
        # Every prefix, then every tail; what is kept of a prefix has keys like the rest of it, and no queries.
        counts = np.concatenate([np.diff(batch.prefix_offsets), np.diff(batch.tail_offsets)]).astype(np.int64)
        tokens = np.cumsum(counts) - counts
        self._kernels = kernels
        self.blocks = _blocks(placed.rows, tokens, counts)
        sequences = _sequences(placed, tokens, counts)
        self.everything = AttentionWorklist(sequences, shared)
        pairs = sequences[batch.groups :].copy()
        pairs[:, 4], pairs[:, 5] = np.arange(batch.pairs), 1
        self.lasts = AttentionWorklist(pairs, shared)

    @staticmethod
    def supports(kernels: CpuKernels, dtype: torch.dtype, head_dim: int) -> bool:
        """Whether there is a kernel for heads of this dtype and size."""
        has_kernel = dtype == torch.float32 or (dtype == torch.bfloat16 and kernels.has_amx)
        return has_kernel and head_dim % 32 == 0 and head_dim <= _MAX_HEAD_DIM

    def prefill(self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        return self._attend(queries, keys, values, self.everything)

    def last_token(self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        return self._attend(queries, keys, values, self.lasts)

    def _attend(
        self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, work: AttentionWorklist
    ) -> torch.Tensor:
        out = torch.empty_like(queries)
        # Float32's kernel reads the values where they lie.
        kinds = 1 if keys.dtype == torch.float32 else 2
        packed = keys.new_empty(kinds, len(self.blocks), keys.shape[1], _BLOCK, keys.shape[2])
        self._kernels.attention(
            queries, keys, values, out, packed, work.sequences, self.blocks, work.items, work.width
        )
        return out.flatten(1)


class AttentionWorklist:
    """What one call computes.

    Attributes:
        sequences: (n, 6), as the struct of the kernel: first block and count of the prefix, the same of the tail,
            first query row and count of the queries.
        items: (m, 2), a sequence and the first of the query rows, times heads, that are worked on together.
        width: keys of the longest sequence, in whole blocks.
    """

    def __init__(self, sequences: Table, shared: int) -> None:
        self.sequences = np.ascontiguousarray(sequences)
        pieces = _blocks_of(sequences[:, 5] * shared)
        owners = np.repeat(np.arange(len(sequences)), pieces)
        begins = (np.arange(len(owners)) - np.repeat(np.cumsum(pieces) - pieces, pieces)) * _BLOCK
        self.items = np.ascontiguousarray(np.stack([owners, begins], axis=1))
        self.width = int((_blocks_of(sequences[:, 1]) + _blocks_of(sequences[:, 3])).max() * _BLOCK)


def _sequences(placed: TokenLayout, tokens: Table, counts: Table) -> Table:
    """The prefixes, which see themselves alone, then the pairs."""
    batch = placed.batch
    firsts = np.cumsum(_blocks_of(counts)) - _blocks_of(counts)
    groups = np.repeat(np.arange(batch.groups), np.diff(batch.group_offsets))
    none = np.zeros(batch.groups, dtype=np.int64)
    prefix_firsts = np.concatenate([none, firsts[groups]])
    prefix_counts = np.concatenate([none, counts[groups]])
    kept = np.concatenate([placed.kept, np.zeros(batch.pairs, dtype=np.int64)])
    queries = placed.rows[tokens + kept]
    return np.stack([prefix_firsts, prefix_counts, firsts, counts, queries, counts - kept], axis=1)


def _blocks(rows: Table, tokens: Table, counts: Table) -> Table:
    """The rows of each segment, ``counts`` from ``tokens`` on, in whole blocks."""
    pieces = _blocks_of(counts)
    inside = (np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)) * _BLOCK
    places = inside[:, None] + np.arange(_BLOCK)
    is_there = places < np.repeat(counts, pieces)[:, None]
    found = rows[np.where(is_there, np.repeat(tokens, pieces)[:, None] + places, 0)]
    return np.ascontiguousarray(np.where(is_there, found, -1))


def _blocks_of(counts: Table) -> Table:
    return -(-counts // _BLOCK)
