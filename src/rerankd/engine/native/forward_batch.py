"""One batch laid out for a forward pass: which token lies in which row, and what comes before it in its prompt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from rerankd.engine.base import Batch
from rerankd.engine.native.attention import AttentionBackend
from rerankd.engine.native.kv_cache import KVCache, PrefixKV

Ints: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ForwardBatch:
    """One batch, ready for the model.

    Attributes:
        ids: int (tokens,), ids of the tokens that are computed.
        positions: int (tokens,), their positions within the pair.
        last: int (pairs,), the row of each pair's last token.
        attention: which tokens attend to which.
        prefix_kv: keys and values that come from the KV cache and go into it.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    last: torch.Tensor
    attention: AttentionBackend
    prefix_kv: PrefixKV


@dataclass(frozen=True, slots=True)
class TokenLayout:
    """The rows of a batch in keys and values: those of computed tokens in the batch's order, then cached ones.

    Attributes:
        batch: the forest of segments.
        lengths: int64 (segments,), tokens of each segment.
        starts: int64 (segments,), the position of each segment's first token.
        is_computed: bool (tokens,), in the batch's order.
        rows: int64 (tokens,), the row of each token; those of a segment follow one another.
    """

    batch: Batch
    lengths: Ints
    starts: Ints
    is_computed: NDArray[np.bool_]
    rows: Ints

    @classmethod
    def of(cls, batch: Batch, computed_rows: int = 0) -> Self:
        """``computed_rows``: rows before the cached ones, where that is more than are computed."""
        lengths = np.diff(batch.offsets).astype(np.int64)
        is_computed = np.repeat(~batch.cached, lengths)
        rows = np.cumsum(is_computed) - 1
        computed = int(rows[-1]) + 1 if len(rows) else 0
        cached = len(rows) - computed
        if cached:
            rows[~is_computed] = max(computed_rows, computed) + np.arange(cached)
        return cls(batch, lengths, _starts(batch.parents, lengths), is_computed, rows)

    @property
    def computed(self) -> int:
        """Tokens that are computed."""
        return int(np.count_nonzero(self.is_computed))

    @property
    def ids(self) -> NDArray[np.int32]:
        """Of the computed tokens."""
        return self.batch.token_ids[self.is_computed]

    @property
    def positions(self) -> Ints:
        """Of the computed tokens."""
        tokens = concat_ranges(self.starts, self.lengths)
        return tokens[self.is_computed]

    @property
    def last(self) -> Ints:
        """The row of each pair's last token."""
        return self.rows[self.batch.offsets[self.batch.leaves + 1] - 1]

    @property
    def ends(self) -> Ints:
        """Tokens from the beginning of the prompt to the end of each segment."""
        return self.starts + self.lengths

    @property
    def first_rows(self) -> Ints:
        """The row of each segment's first token."""
        return self.rows[self.batch.offsets[:-1]]

    def paths(self, segments: Ints) -> tuple[Ints, Ints]:
        """The path from the root to each of ``segments``, one after another: (index into ``segments``, segment)."""
        owners, found = [], []
        owner, segment = np.arange(len(segments)), segments.astype(np.int64)
        while len(segment):
            owners.append(owner)
            found.append(segment)
            above = self.batch.parents[segment].astype(np.int64)
            owner, segment = owner[above >= 0], above[above >= 0]
        if not owners:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
        # Roots were found last; a stable sort keeps them first of each path.
        by_owner, by_depth = np.concatenate(owners[::-1]), np.concatenate(found[::-1])
        order = np.argsort(by_owner, kind="stable")
        return by_owner[order], by_depth[order]

    def path_rows(self, segments: Ints) -> Ints:
        """The rows of the whole paths to ``segments``, one path after another."""
        _, found = self.paths(segments)
        return self.rows[concat_ranges(self.batch.offsets[found].astype(np.int64), self.lengths[found])]


AttentionPlanner: TypeAlias = Callable[[TokenLayout], AttentionBackend]
"""Prepares attention for a batch, once for all layers."""


def plan_batch(batch: Batch, cache: KVCache, device: torch.device, plan_attention: AttentionPlanner) -> ForwardBatch:
    """Lay ``batch``, which has pairs, out on ``device``."""
    layout = TokenLayout.of(batch)

    def sent(numbers: NDArray[np.integer]) -> torch.Tensor:
        return torch.from_numpy(numbers.astype(np.int64)).to(device, non_blocking=True)

    read, written_rows, written_slots = slots_of(layout)
    return ForwardBatch(
        ids=sent(layout.ids),
        positions=sent(layout.positions),
        last=sent(layout.last),
        attention=plan_attention(layout),
        prefix_kv=PrefixKV(cache, sent(read), sent(written_rows), sent(written_slots)),
    )


def slots_of(layout: TokenLayout) -> tuple[Ints, Ints, Ints]:
    """The KV cache slots of the cached rows, and the rows that are written with the slots they go to."""
    slots, is_computed = layout.batch.slots.astype(np.int64), layout.is_computed
    is_written = is_computed & (slots >= 0)
    return slots[~is_computed], layout.rows[is_written], slots[is_written]


def concat_ranges(begins: Ints, counts: Ints) -> Ints:
    """``counts`` numbers from each of ``begins`` on, one range after another."""
    before = np.cumsum(counts) - counts
    ranges: Ints = np.arange(int(counts.sum())) + np.repeat(begins - before, counts)
    return ranges


def _starts(parents: NDArray[np.int32], lengths: Ints) -> Ints:
    """The sum of the lengths of each segment's ancestors, by pointer doubling: log2(depth) steps."""
    above = parents.astype(np.int64)
    starts = np.where(above >= 0, lengths[above], 0)
    while (has_more := above >= 0).any():
        # starts[s] sums the ancestors up to above[s]; add what that one sums, and jump as far as it has.
        jump = above[has_more]
        starts[has_more] += starts[jump]
        above[has_more] = above[jump]
    return starts
