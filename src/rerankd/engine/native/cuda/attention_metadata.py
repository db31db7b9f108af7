"""The numbers of one batch that its pass on CUDA reads: which token each row is, and what its attention works on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from rerankd.engine.base import Batch
from rerankd.engine.native.forward_batch import TokenLayout, positions_of
from rerankd.engine.native.kept import Loan

Numbers = NDArray[np.integer]

LAST_TOKEN_BLOCK = 16
"""Queries, times heads that share a head of keys, that one program attends with where every pair has one: the least
that tensor cores take."""
_EVERY_BLOCK = 128
"""The same for all queries ..."""
_SMALLER_BLOCK = 64
"""... and where so many heads share one, or are so wide, that less would be left empty (both measured)."""

Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, int], torch.Tensor]
"""Queries, keys, values, lines and the block: what the queries of each line attend to."""


def prefill_block(shared: int, size: int) -> int:
    """Queries, times the ``shared`` heads of one head of keys, each of ``size``, that one program attends with."""
    return _EVERY_BLOCK if shared < 4 and size <= 128 else _SMALLER_BLOCK


class AttentionMetadata:
    """Attention of one batch; a line is some queries of one sequence and three ranges of keys that they see.

    Lines are int32 (n, 8): first row and count of the queries; then first row and count of the keys of their own
    sequence, up to the last query's; of what comes before it and is kept; of what comes before it and is not.
    """

    def __init__(self, every: torch.Tensor, last: torch.Tensor, attend: Attend, block: int) -> None:
        """``block``: queries of a line, times heads that share a head of keys, at most."""
        self._every = every
        self._last = last
        self._attend = attend
        self._block = block

    def prefill(self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        return self._attend(queries, keys, values, self._every, self._block).flatten(1)

    def last_token(self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        return self._attend(queries, keys, values, self._last, LAST_TOKEN_BLOCK).flatten(1)


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of each kind there is. CudaGraphRunner of the same sizes differ in nothing but their numbers."""

    rows: int
    pairs: int
    lines: int
    kept: int
    """Rows that come in."""
    wanted: int
    """Rows that are taken out."""

    @classmethod
    def of(cls, batch: Batch, loan: Loan, most: int) -> Self:
        """``most``: queries of a line."""
        counts = np.concatenate([np.diff(batch.prefix_offsets) - loan.counts, np.diff(batch.tail_offsets)])
        lines = _pieces(counts, most)
        kept = sum(part.tokens for part in loan.parts)
        return cls(int(counts.sum()), batch.pairs, int(lines.sum()), kept, loan.tokens)

    def padded(self) -> Sizes:
        """Sizes that many a batch has when it is filled up: an eighth more rows at most."""
        return Sizes(
            round_up_to_bucket(self.rows, 64, 8),
            round_up_to_bucket(self.pairs, 8),
            round_up_to_bucket(self.lines, 16),
            round_up_to_bucket(self.kept),
            0,
        )


def metadata_of(batch: Batch, loan: Loan, most: int, rows: int) -> dict[str, Numbers]:
    """What a pass reads. A line has at most ``most`` queries, and kept rows lie behind ``rows`` others."""
    placed = TokenLayout.of(batch, loan, rows)
    is_computed = placed.rows < rows
    sequences = _sequences(placed)
    pairs = sequences[batch.groups :].copy()
    pairs[:, 0], pairs[:, 1] = np.arange(batch.pairs), 1
    return {
        "ids": np.concatenate([batch.prefix_ids, batch.tail_ids])[is_computed],
        "positions": positions_of(batch)[is_computed],
        "last": placed.last,
        "every": _cut(sequences, most).ravel(),
        "lasts": pairs.ravel(),
        "wanted": placed.first_of(loan.pair, loan.tokens),
    }


def _sequences(placed: TokenLayout) -> Numbers:
    """A line for what is new of each prefix, then one for each tail."""
    batch, rows = placed.batch, placed.rows
    prefixes, tails = np.diff(batch.prefix_offsets), np.diff(batch.tail_offsets)
    new = prefixes - placed.kept
    # Of a prefix without tokens, or without new ones, the first row is never read.
    begins = np.append(rows, 0)
    kept_rows, new_rows = begins[batch.prefix_offsets[:-1]], begins[batch.prefix_offsets[:-1] + placed.kept]
    tail_rows = begins[len(batch.prefix_ids) + batch.tail_offsets[:-1]]
    none = np.zeros(batch.groups, dtype=np.int64)
    of_prefixes = np.stack([new_rows, new, new_rows, new, kept_rows, placed.kept, none, none], axis=1)
    before = np.stack([kept_rows, placed.kept, new_rows, new], axis=1)
    groups = np.repeat(np.arange(batch.groups), np.diff(batch.group_offsets))
    of_tails = np.concatenate([np.stack([tail_rows, tails, tail_rows, tails], axis=1), before[groups]], axis=1)
    return np.concatenate([of_prefixes, of_tails])


def _cut(sequences: Numbers, most: int) -> Numbers:
    """Lines of at most ``most`` queries; each sees as many keys of its own sequence as its last query does."""
    pieces = _pieces(sequences[:, 1], most)
    lines: Numbers = np.repeat(sequences, pieces, axis=0)
    begins = (np.arange(len(lines)) - np.repeat(np.cumsum(pieces) - pieces, pieces)) * most
    lines[:, 1] = np.minimum(lines[:, 1] - begins, most)
    lines[:, 0] += begins
    lines[:, 3] = begins + lines[:, 1]
    return lines


def _pieces(counts: Numbers, most: int) -> Numbers:
    pieces: Numbers = -(-counts // most)
    return pieces


def round_up_to_bucket(count: int, least: int = 32, parts: int = 2) -> int:
    """``count`` pack_int8 up to a multiple of ``least``, and of one of ``parts`` of the power of two below it."""
    step = max(least, (1 << count.bit_length() >> 1) // parts)
    return -(-count // step) * step
