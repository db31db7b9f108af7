"""AttentionBackend in stacks: on every device and in every number format, by torch's own scaled dot products.

A pair is the sequence of its group's prefix rows and its own tail rows. Sequences of similar length are gathered into
a *stack*, padded at the end, where causal attention never looks.

A stack is a *square* or a *rectangle*. A square has queries for the whole sequence: it needs no mask, and attention
skips what lies above the diagonal. A rectangle has queries for the tails alone, with a mask: less work wherever the
prefix is a good part of the pair, or the pair too short for skipping.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from rerankd.engine.native.forward_batch import Rows, TokenLayout

_STACK_ROWS = 2048
"""Most padded rows of one stack: keeps the copies that attention makes small, and enough of them for all threads."""
_STACK_FILL = 0.85
"""Sequences shorter than this share of the longest in a stack go into the next stack."""
_STACK_SLACK = 24
"""... unless they are only this many tokens shorter: a short stack more costs more than padding."""
_SKIPPED_FROM = 512
"""Keys that attention on a CPU takes at a time: shorter sequences have nothing to skip."""
_SQUARE_COST = 0.7
"""What a long square costs (measured), as a share of all its products."""


@dataclass(frozen=True, slots=True)
class Stack:
    """Sequences that attention takes together; shapes in padded sequences n, queries a, keys b."""

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
    """AttentionBackend of one batch by torch's scaled dot products, a call for each stack."""

    def __init__(self, placed: TokenLayout, device: torch.device, dtype: torch.dtype) -> None:
        """Lay a batch out on ``device``; ``dtype`` is that of the masks."""
        pairs = _pairs(placed)
        squares, rectangles = _shapes(placed, pairs)
        place = _Placing(device, dtype, placed.computed)
        self.stacks = (
            *(place.square(stack) for stack in _stacks(squares)),
            *(place.rectangle(stack) for stack in _stacks(rectangles)),
        )
        """For every row."""
        self.last_stacks = tuple(place.last_stack(stack) for stack in _stacks(pairs))
        """One query a pair."""

    def prefill(self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        return _attend(queries, keys, values, self.stacks)

    def last_token(self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        return _attend(queries, keys, values, self.last_stacks)


def _attend(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, stacks: Sequence[Stack]) -> torch.Tensor:
    attended = torch.empty_like(queries).flatten(1)
    for stack in stacks:
        result = F.scaled_dot_product_attention(
            _stacked(queries, stack.queries, stack.size),
            _stacked(keys, stack.keys, stack.size),
            _stacked(values, stack.keys, stack.size),
            attn_mask=stack.mask,
            is_causal=stack.mask is None,
            enable_gqa=queries.shape[1] != keys.shape[1],
        )
        flat = result.transpose(1, 2).reshape(len(stack.queries), -1)
        attended.index_copy_(0, stack.rows, flat.index_select(0, stack.outputs))
    return attended


def _stacked(rows: torch.Tensor, index: torch.Tensor, size: int) -> torch.Tensor:
    """(n, heads, length, d), gathered from (rows, heads, d)."""
    return rows.index_select(0, index).view(size, -1, *rows.shape[1:]).transpose(1, 2)


@dataclass(frozen=True, slots=True)
class _Sequence:
    """Rows that follow one another, and the index of the first one whose attention is wanted."""

    rows: Rows
    fresh: int
    pair: int = -1


def _pairs(placed: TokenLayout) -> list[_Sequence]:
    """Every pair; the first of each group is asked for its prefix rows too: causal, so its tail changes nothing."""
    batch = placed.batch
    prefixes, tails = placed.rows[: len(batch.prefix_ids)], placed.rows[len(batch.prefix_ids) :]
    sequences = []
    for group in range(batch.groups):
        prefix = prefixes[batch.prefix_offsets[group] : batch.prefix_offsets[group + 1]]
        pairs = range(batch.group_offsets[group], batch.group_offsets[group + 1])
        for pair in pairs:
            tail = tails[batch.tail_offsets[pair] : batch.tail_offsets[pair + 1]]
            fresh = int(placed.kept[group]) if pair == pairs[0] else len(prefix)
            sequences.append(_Sequence(np.concatenate([prefix, tail]), fresh, pair))
    return sequences


def _shapes(placed: TokenLayout, pairs: Sequence[_Sequence]) -> tuple[list[_Sequence], list[_Sequence]]:
    """Which sequences go into squares and which into rectangles."""
    batch = placed.batch
    prefixes = np.repeat(np.diff(batch.prefix_offsets), np.diff(batch.group_offsets))
    sizes = np.repeat(np.diff(batch.group_offsets), np.diff(batch.group_offsets))
    squares: list[_Sequence] = []
    rectangles: list[_Sequence] = []
    for sequence, prefix, size in zip(pairs, prefixes.tolist(), sizes.tolist(), strict=True):
        shares = size > 1 or sequence.fresh > 0
        if not shares or prefix == 0 or not _is_rectangle(len(sequence.rows), prefix):
            squares.append(sequence)
            continue
        if sequence.fresh < prefix:
            squares.append(_Sequence(sequence.rows[:prefix], sequence.fresh))
        rectangles.append(_Sequence(sequence.rows, prefix, sequence.pair))
    return squares, rectangles


def _is_rectangle(length: int, prefix: int) -> bool:
    return length <= _SKIPPED_FROM or length - prefix <= _SQUARE_COST * length


def _stacks(sequences: Sequence[_Sequence]) -> Iterator[list[_Sequence]]:
    stack: list[_Sequence] = []
    for sequence in sorted(sequences, key=lambda sequence: -len(sequence.rows)):
        if stack and not _fits(stack, len(sequence.rows)):
            yield stack
            stack = []
        stack.append(sequence)
    if stack:
        yield stack


def _fits(stack: list[_Sequence], length: int) -> bool:
    longest = len(stack[0].rows)
    near = length >= longest * _STACK_FILL or length + _STACK_SLACK >= longest
    return near and (len(stack) + 1) * longest <= _STACK_ROWS


class _Placing:
    """Turns row numbers into tensors on the device."""

    def __init__(self, device: torch.device, dtype: torch.dtype, computed: int) -> None:
        self._device = device
        self._dtype = dtype
        self._computed = computed

    def rows(self, rows: NDArray[np.int32] | Rows) -> torch.Tensor:
        return torch.from_numpy(rows.astype(np.int64)).to(self._device, non_blocking=True)

    def square(self, sequences: Sequence[_Sequence]) -> Stack:
        """Causal attention of whole sequences, prefix included."""
        longest = len(sequences[0].rows)
        rows = _padded([sequence.rows for sequence in sequences], longest)
        outputs = [
            at * longest + np.arange(sequence.fresh, len(sequence.rows)) for at, sequence in enumerate(sequences)
        ]
        return Stack(
            queries=self.rows(np.where(rows < self._computed, rows, 0)),
            keys=self.rows(rows),
            size=len(sequences),
            mask=None,
            outputs=self.rows(np.concatenate(outputs)),
            rows=self.rows(np.concatenate([sequence.rows[sequence.fresh :] for sequence in sequences])),
        )

    def rectangle(self, sequences: Sequence[_Sequence]) -> Stack:
        """Causal attention of the tails alone, prefix among the keys."""
        tails = [sequence.rows[sequence.fresh :] for sequence in sequences]
        longest, longest_tail = len(sequences[0].rows), max(map(len, tails))
        prefixes = np.unique([sequence.fresh for sequence in sequences])
        if len(prefixes) > 1:
            prefixes = np.array([sequence.fresh for sequence in sequences])
        seen = prefixes[:, None] + np.arange(longest_tail)
        outputs = [at * longest_tail + np.arange(len(tail)) for at, tail in enumerate(tails)]
        return Stack(
            queries=self.rows(_padded(tails, longest_tail)),
            keys=self.rows(_padded([sequence.rows for sequence in sequences], longest)),
            size=len(sequences),
            mask=self._mask(np.arange(longest) <= seen[:, :, None])[:, None],
            outputs=self.rows(np.concatenate(outputs)),
            rows=self.rows(np.concatenate(tails)),
        )

    def last_stack(self, sequences: Sequence[_Sequence]) -> Stack:
        longest = len(sequences[0].rows)
        lengths = np.array([len(sequence.rows) for sequence in sequences])
        mask = self._mask(np.arange(longest) < lengths[:, None])
        pairs = self.rows(np.array([sequence.pair for sequence in sequences]))
        return Stack(
            queries=pairs,
            keys=self.rows(_padded([sequence.rows for sequence in sequences], longest)),
            size=len(sequences),
            mask=mask[:, None, None, :],
            outputs=self.rows(np.arange(len(sequences))),
            rows=pairs,
        )

    def _mask(self, seen: NDArray[np.bool_]) -> torch.Tensor:
        added = np.where(seen, np.float32(0), np.float32(-np.inf))
        return torch.from_numpy(added).to(self._device, self._dtype)


def _padded(sequences: Sequence[Rows], longest: int) -> Rows:
    """Filled up with a row of the same sequence: what is not a number stays so without weight, and would spread."""
    padded = np.empty((len(sequences), longest), dtype=np.int64)
    for line, rows in zip(padded, sequences, strict=True):
        line[: len(rows)] = rows
        line[len(rows) :] = rows[0]
    return padded.ravel()
