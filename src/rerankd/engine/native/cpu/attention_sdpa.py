"""Attention by torch's scaled dot products, on every device and in every dtype: sequences padded into batches.

A sequence is the path from the root to a segment; its queries are the segment's own tokens. Sequences of similar
length are gathered into a padded batch, padded at the end, where causal attention never looks.

A batch is *causal* or *masked*. A causal one has queries for whole sequences: it needs no mask, and attention skips
what lies above the diagonal. A masked one has queries for the segments alone: less work wherever what comes before is
a good part of the sequence, or the sequence too short for skipping.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from rerankd.engine.native.forward_batch import Ints, TokenLayout

_MAX_PADDED_TOKENS: Final = 2048
"""Of one padded batch: keeps the copies that attention makes small, and enough of them for all threads."""
_MIN_FILL: Final = 0.85
"""Sequences shorter than this share of the longest in a batch go into the next one ..."""
_SLACK_TOKENS: Final = 24
"""... unless they are only this many tokens shorter: a small batch more costs more than padding."""
_SKIPPING_FROM: Final = 512
"""Keys that attention on a CPU takes at a time: shorter sequences have nothing to skip."""
_CAUSAL_COST: Final = 0.7
"""What causal attention of a long sequence costs (measured), as a share of all its products."""


@dataclass(frozen=True, slots=True)
class PaddedBatch:
    """Sequences that attention takes together; n of them, padded to a queries and b keys."""

    queries: torch.Tensor
    """int64 (n * a,): the row of each query; padding, and what has none, repeats another row."""
    keys: torch.Tensor
    """int64 (n * b,): the row of each key."""
    size: int
    mask: torch.Tensor | None
    """Added to the scores, broadcast to (n, heads, a, b); None means causal with a == b."""
    outputs: torch.Tensor
    """int64: which of the n * a results are wanted ..."""
    rows: torch.Tensor
    """int64: ... and the rows they belong to."""


class PaddedSDPA:
    """Attention of one batch, a call for each padded batch."""

    def __init__(self, layout: TokenLayout, device: torch.device, dtype: torch.dtype) -> None:
        """Lay a batch out on ``device``; ``dtype`` is that of the masks."""
        leaves = layout.batch.leaves.astype(np.int64)
        computed = np.flatnonzero(~layout.batch.cached)
        own = [
            _Sequence(rows, begin)
            for rows, begin in zip(_paths(layout, computed), layout.starts[computed].tolist(), strict=True)
        ]
        pairs = [_Sequence(rows, len(rows) - 1, pair) for pair, rows in enumerate(_paths(layout, leaves))]
        build = _Builder(device, dtype, layout.computed)
        self.prefill_batches = (
            *(build.causal(part) for part in _batches([one for one in own if not one.is_masked])),
            *(build.masked(part) for part in _batches([one for one in own if one.is_masked])),
        )
        self.last_token_batches = tuple(build.last_token(part) for part in _batches(pairs))

    def prefill(self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        return _attend(queries, keys, values, self.prefill_batches)

    def last_token(self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        return _attend(queries, keys, values, self.last_token_batches)


def _attend(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, batches: Sequence[PaddedBatch]
) -> torch.Tensor:
    attended = torch.empty_like(queries).flatten(1)
    for batch in batches:
        result = F.scaled_dot_product_attention(
            _padded(queries, batch.queries, batch.size),
            _padded(keys, batch.keys, batch.size),
            _padded(values, batch.keys, batch.size),
            attn_mask=batch.mask,
            is_causal=batch.mask is None,
            enable_gqa=queries.shape[1] != keys.shape[1],
        )
        flat = result.transpose(1, 2).reshape(len(batch.queries), -1)
        attended.index_copy_(0, batch.rows, flat.index_select(0, batch.outputs))
    return attended


def _padded(rows: torch.Tensor, index: torch.Tensor, size: int) -> torch.Tensor:
    """(n, heads, length, d), gathered from (rows, heads, d)."""
    return rows.index_select(0, index).view(size, -1, *rows.shape[1:]).transpose(1, 2)


@dataclass(frozen=True, slots=True)
class _Sequence:
    """Rows that follow one another in a prompt, and the first of them whose attention is wanted."""

    rows: Ints
    begin: int
    pair: int = -1

    @property
    def is_masked(self) -> bool:
        length = len(self.rows)
        return self.begin > 0 and (length <= _SKIPPING_FROM or length - self.begin <= _CAUSAL_COST * length)


def _paths(layout: TokenLayout, segments: Ints) -> list[Ints]:
    return np.split(layout.path_rows(segments), np.cumsum(layout.ends[segments])[:-1])


def _batches(sequences: Sequence[_Sequence]) -> Iterator[list[_Sequence]]:
    batch: list[_Sequence] = []
    for sequence in sorted(sequences, key=lambda sequence: -len(sequence.rows)):
        if batch and not _fits(batch, len(sequence.rows)):
            yield batch
            batch = []
        batch.append(sequence)
    if batch:
        yield batch


def _fits(batch: list[_Sequence], length: int) -> bool:
    longest = len(batch[0].rows)
    near = length >= longest * _MIN_FILL or length + _SLACK_TOKENS >= longest
    return near and (len(batch) + 1) * longest <= _MAX_PADDED_TOKENS


class _Builder:
    """Turns sequences of rows into tensors on the device."""

    def __init__(self, device: torch.device, dtype: torch.dtype, computed: int) -> None:
        self._device = device
        self._dtype = dtype
        self._computed = computed

    def causal(self, sequences: Sequence[_Sequence]) -> PaddedBatch:
        """Causal attention of whole sequences."""
        longest = len(sequences[0].rows)
        rows = _pad([sequence.rows for sequence in sequences], longest)
        outputs = [
            at * longest + np.arange(sequence.begin, len(sequence.rows)) for at, sequence in enumerate(sequences)
        ]
        return PaddedBatch(
            # Cached rows have no queries.
            queries=self._sent(np.where(rows < self._computed, rows, 0)),
            keys=self._sent(rows),
            size=len(sequences),
            mask=None,
            outputs=self._sent(np.concatenate(outputs)),
            rows=self._sent(np.concatenate([sequence.rows[sequence.begin :] for sequence in sequences])),
        )

    def masked(self, sequences: Sequence[_Sequence]) -> PaddedBatch:
        """Causal attention of the last tokens alone, what comes before among the keys."""
        own = [sequence.rows[sequence.begin :] for sequence in sequences]
        longest, longest_own = len(sequences[0].rows), max(map(len, own))
        begins = np.unique([sequence.begin for sequence in sequences])
        if len(begins) > 1:
            begins = np.array([sequence.begin for sequence in sequences])
        seen = begins[:, None] + np.arange(longest_own)
        outputs = [at * longest_own + np.arange(len(rows)) for at, rows in enumerate(own)]
        return PaddedBatch(
            queries=self._sent(_pad(own, longest_own)),
            keys=self._sent(_pad([sequence.rows for sequence in sequences], longest)),
            size=len(sequences),
            mask=self._mask(np.arange(longest) <= seen[:, :, None])[:, None],
            outputs=self._sent(np.concatenate(outputs)),
            rows=self._sent(np.concatenate(own)),
        )

    def last_token(self, sequences: Sequence[_Sequence]) -> PaddedBatch:
        """One query a sequence; query and result are those of its pair."""
        longest = len(sequences[0].rows)
        lengths = np.array([len(sequence.rows) for sequence in sequences])
        mask = self._mask(np.arange(longest) < lengths[:, None])
        pairs = self._sent(np.array([sequence.pair for sequence in sequences]))
        return PaddedBatch(
            queries=pairs,
            keys=self._sent(_pad([sequence.rows for sequence in sequences], longest)),
            size=len(sequences),
            mask=mask[:, None, None, :],
            outputs=self._sent(np.arange(len(sequences))),
            rows=pairs,
        )

    def _sent(self, rows: Ints) -> torch.Tensor:
        return torch.from_numpy(rows.astype(np.int64)).to(self._device, non_blocking=True)

    def _mask(self, seen: NDArray[np.bool_]) -> torch.Tensor:
        added = np.where(seen, np.float32(0), np.float32(-np.inf))
        return torch.from_numpy(added).to(self._device, self._dtype)


def _pad(sequences: Sequence[Ints], longest: int) -> Ints:
    """Filled up with a row of the same sequence: what is not a number stays so without weight, and would spread."""
    padded = np.empty((len(sequences), longest), dtype=np.int64)
    for line, rows in zip(padded, sequences, strict=True):
        line[: len(rows)] = rows
        line[len(rows) :] = rows[0]
    return padded.ravel()
