"""How a batch lies in memory for one forward pass, and which rows attend to which.

Every token that is computed is one *row*: first the prefixes, one after another, then the tails. A pair is the
sequence of its group's prefix rows and its own tail rows. Sequences of similar length are stacked into a *stack*,
padded at the end, where causal attention never looks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from rerankd.engine.base import Batch

Rows = NDArray[np.int64]

_STACK_ROWS = 8192
"""Most padded rows of one stack: bounds the copies that attention makes."""
_STACK_FILL = 0.85
"""Sequences shorter than this share of the longest in a stack go into the next stack."""
_STACK_SLACK = 24
"""... unless they are only this many tokens shorter: a short stack more costs more than padding."""


@dataclass(frozen=True, slots=True)
class Stack:
    """Sequences that attention takes together; shapes in padded sequences n, queries a, keys b."""

    queries: torch.Tensor
    """int64 (n * a,): the row of each query; padding repeats a valid row."""
    keys: torch.Tensor
    """int64 (n * b,): the row of each key."""
    size: int
    mask: torch.Tensor | None
    """Added to the scores, broadcast to (n, heads, a, b); None means causal with a == b."""
    outputs: torch.Tensor
    """int64: which of the n * a results are wanted ..."""
    rows: torch.Tensor
    """int64: ... and the rows they belong to."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One batch, ready for the model.

    Attributes:
        ids: int64 (rows,), token ids.
        positions: int64 (rows,), positions within the pair.
        last: int64 (pairs,), the row of each pair's last token.
        stacks: attention of every layer but the last.
        last_stacks: attention of the last layer: one query a pair.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    last: torch.Tensor
    stacks: tuple[Stack, ...]
    last_stacks: tuple[Stack, ...]


def plan_batch(batch: Batch, device: torch.device, dtype: torch.dtype) -> Plan:
    """Lay ``batch`` out on ``device``; ``dtype`` is that of the attention masks."""
    sequences = _sequences(batch)
    place = _Placing(device, dtype)
    lengths = np.diff(batch.tail_offsets)
    last = len(batch.prefix_ids) + batch.tail_offsets[1:] - 1
    return Plan(
        ids=place.rows(np.concatenate([batch.prefix_ids, batch.tail_ids])),
        positions=place.rows(_positions(batch, sequences, lengths)),
        last=place.rows(last),
        stacks=tuple(place.stack(group) for group in _stacks(sequences)),
        last_stacks=tuple(place.last_stack(group) for group in _stacks(sequences)),
    )


@dataclass(frozen=True, slots=True)
class _Sequence:
    """One pair's rows; ``fresh`` is the index of the first one whose attention this sequence has to give."""

    pair: int
    rows: Rows
    fresh: int


def _sequences(batch: Batch) -> list[_Sequence]:
    first_tail = len(batch.prefix_ids)
    sequences = []
    for group in range(batch.groups):
        prefix = np.arange(batch.prefix_offsets[group], batch.prefix_offsets[group + 1])
        pairs = range(batch.group_offsets[group], batch.group_offsets[group + 1])
        for pair in pairs:
            tail = first_tail + np.arange(batch.tail_offsets[pair], batch.tail_offsets[pair + 1])
            # The first pair of a group gives the prefix its attention too: causal, so its tail changes nothing.
            fresh = 0 if pair == pairs[0] else len(prefix)
            sequences.append(_Sequence(pair, np.concatenate([prefix, tail]), fresh))
    return sequences


def _positions(batch: Batch, sequences: Sequence[_Sequence], tails: NDArray[np.int32]) -> Rows:
    positions = np.zeros(batch.tokens, dtype=np.int64)
    for sequence in sequences:
        positions[sequence.rows[sequence.fresh :]] = np.arange(sequence.fresh, len(sequence.rows))
    return positions


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

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self._device = device
        self._dtype = dtype

    def rows(self, rows: NDArray[np.int32] | Rows) -> torch.Tensor:
        return torch.from_numpy(rows.astype(np.int64)).to(self._device, non_blocking=True)

    def stack(self, sequences: Sequence[_Sequence]) -> Stack:
        """Causal attention of whole sequences, prefix included.

        Prefix queries are computed once a pair although one would do: a causal square needs no mask, and
        costs less than the rectangle of the tail's queries wherever prefixes are not much longer than tails.
        """
        longest = len(sequences[0].rows)
        rows = self.rows(_padded([sequence.rows for sequence in sequences], longest))
        outputs = [
            at * longest + np.arange(sequence.fresh, len(sequence.rows)) for at, sequence in enumerate(sequences)
        ]
        return Stack(
            queries=rows,
            keys=rows,
            size=len(sequences),
            mask=None,
            outputs=self.rows(np.concatenate(outputs)),
            rows=self.rows(np.concatenate([sequence.rows[sequence.fresh :] for sequence in sequences])),
        )

    def last_stack(self, sequences: Sequence[_Sequence]) -> Stack:
        longest = len(sequences[0].rows)
        lengths = np.array([len(sequence.rows) for sequence in sequences])
        hidden = np.where(np.arange(longest) < lengths[:, None], 0.0, -np.inf)
        mask = torch.from_numpy(hidden.astype(np.float32)).to(self._device, self._dtype)
        pairs = self.rows(np.array([sequence.pair for sequence in sequences]))
        return Stack(
            queries=pairs,
            keys=self.rows(_padded([sequence.rows for sequence in sequences], longest)),
            size=len(sequences),
            mask=mask[:, None, None, :],
            outputs=self.rows(np.arange(len(sequences))),
            rows=pairs,
        )


def _padded(sequences: Sequence[Rows], longest: int) -> Rows:
    padded = np.zeros((len(sequences), longest), dtype=np.int64)
    for line, rows in zip(padded, sequences, strict=True):
        line[: len(rows)] = rows
    return padded.ravel()
