"""How a batch lies in memory for one forward pass.

Every token that is computed is one *row*, in the batch's order: first the prefixes, one after another, then the
tails. A pair is the sequence of its group's prefix and its own tail. What is kept of a prefix from earlier passes is
not computed: it has keys and values alone, and they lie behind those of all rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from rerankd.engine.base import Batch
from rerankd.engine.native.attention import AttentionBackend
from rerankd.engine.native.kept import Exchange, Loan

Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ForwardBatch:
    """One batch, ready for the model.

    Attributes:
        ids: int64 (rows,), token ids.
        positions: int64 (rows,), positions within the pair.
        last: int64 (pairs,), the row of each pair's last token.
        attention: which rows attend to which.
        exchange: the rows that are kept from and for other passes.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    last: torch.Tensor
    attention: AttentionBackend
    exchange: Exchange


@dataclass(frozen=True, slots=True)
class TokenLayout:
    """Where the tokens of a batch lie.

    Attributes:
        kept: int64 (groups,), tokens at the beginning of each group's prefix that are not computed.
        rows: int64 (tokens,), the row of each token's keys, prefixes first, then tails.
    """

    batch: Batch
    kept: Rows
    rows: Rows

    @classmethod
    def of(cls, batch: Batch, loan: Loan, room: int = 0) -> Self:
        """``room``: rows that come before the kept ones, if that is more than are computed."""
        is_kept, positions = np.zeros(batch.tokens, dtype=bool), positions_of(batch)
        groups = np.repeat(np.arange(batch.groups), np.diff(batch.prefix_offsets))
        is_kept[: len(groups)] = positions[: len(groups)] < loan.counts[groups]
        rows = np.cumsum(~is_kept) - 1
        kept = np.flatnonzero(is_kept)
        first = max(room, len(rows) - len(kept))
        rows[kept] = first + loan.places[groups[kept]] + positions[kept]
        return cls(batch, loan.counts, rows)

    @property
    def computed(self) -> int:
        """Rows that are computed."""
        return self.batch.tokens - int(self.kept.sum())

    @property
    def last(self) -> Rows:
        """The row of each pair's last token."""
        return self.rows[len(self.batch.prefix_ids) + self.batch.tail_offsets[1:] - 1]

    def first_of(self, pair: int, tokens: int) -> Rows:
        """The rows of the first ``tokens`` of a pair."""
        batch = self.batch
        group = int(np.searchsorted(batch.group_offsets, pair, side="right")) - 1
        prefix = self.rows[batch.prefix_offsets[group] : batch.prefix_offsets[group + 1]]
        tail = self.rows[len(batch.prefix_ids) + batch.tail_offsets[pair] :]
        return np.concatenate([prefix, tail])[:tokens]


LayOut: TypeAlias = Callable[[TokenLayout], AttentionBackend]
"""Prepares attention for a batch, once for all layers."""


def plan_batch(batch: Batch, loan: Loan, device: torch.device, lay_out: LayOut) -> ForwardBatch:
    """Lay ``batch`` out on ``device``."""
    placed = TokenLayout.of(batch, loan)
    is_computed = placed.rows < placed.computed

    def sent(rows: NDArray[np.int32] | Rows) -> torch.Tensor:
        return torch.from_numpy(rows.astype(np.int64)).to(device, non_blocking=True)

    return ForwardBatch(
        ids=sent(np.concatenate([batch.prefix_ids, batch.tail_ids])[is_computed]),
        positions=sent(positions_of(batch)[is_computed]),
        last=sent(placed.last),
        attention=lay_out(placed),
        exchange=Exchange(loan.parts, sent(placed.first_of(loan.pair, loan.tokens)) if loan.tokens else None),
    )


def positions_of(batch: Batch) -> Rows:
    """Of all tokens: each prefix counts from 0, each tail goes on where its group's prefix ended."""
    prefixes = np.repeat(np.diff(batch.prefix_offsets), np.diff(batch.group_offsets))
    begins = np.concatenate([np.zeros(batch.groups, dtype=np.int64), prefixes])
    lengths = np.concatenate([np.diff(batch.prefix_offsets), np.diff(batch.tail_offsets)])
    before = np.cumsum(lengths) - lengths
    positions: Rows = np.arange(batch.tokens) + np.repeat(begins - before, lengths)
    return positions
