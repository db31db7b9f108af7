"""Prompts of different lengths as padded micro-batches that waste little."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rerankd.types import IdArray

MAX_TOKENS = 2048
"""Tokens of one micro-batch, padding included: GEMMs reach their peak long before, and a pass needs little memory."""
_MAX_SCORES = 2**22
"""Attention scores per head of one micro-batch of several prompts: masked attention holds them all, 16 MB a head."""
_MIN_TOKENS = 256
"""A micro-batch smaller than that takes in shorter prompts at any waste: each pass reads all weights."""
_MAX_PADDING = 1 / 8
"""Padding of the shortest prompt of a larger micro-batch, as a share of the longest."""


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Prompts padded on the right to the longest of them.

    Attributes:
        pairs: indices of the prompts in the batch, (n,).
        input_ids: int64 (n, length).
        attention_mask: int64 (n, length), 1 for a token and 0 for padding.
    """

    pairs: NDArray[np.intp]
    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.int64]

    @classmethod
    def of(cls, pairs: NDArray[np.intp], prompts: Sequence[IdArray], pad_id: int) -> MicroBatch:
        length = max(len(prompts[pair]) for pair in pairs)
        ids = np.full((len(pairs), length), pad_id, dtype=np.int64)
        mask = np.zeros((len(pairs), length), dtype=np.int64)
        for row, pair in enumerate(pairs):
            prompt = prompts[pair]
            ids[row, : len(prompt)] = prompt
            mask[row, : len(prompt)] = 1
        return cls(pairs, ids, mask)

    def token_type_ids(self, separator: int) -> NDArray[np.int64]:
        """0 up to and with each prompt's first ``separator``, 1 behind it, 0 for padding; int64 (n, length)."""
        is_separator = self.input_ids == separator
        behind = np.cumsum(is_separator, axis=1) > is_separator
        return np.where(behind, self.attention_mask, 0)


def micro_batches(prompts: Sequence[IdArray], pad_id: int) -> Iterator[MicroBatch]:
    """All prompts, longest first, in runs of similar length."""
    lengths = np.array([len(prompt) for prompt in prompts], dtype=np.int64)
    order = np.argsort(-lengths, kind="stable")
    begin = 0
    while begin < len(order):
        end = begin + _run(lengths[order[begin:]])
        yield MicroBatch.of(order[begin:end], prompts, pad_id)
        begin = end


def _run(lengths: NDArray[np.int64]) -> int:
    """How many of the first prompts go together; lengths are sorted, longest first."""
    longest = int(lengths[0])
    limit = max(1, min(MAX_TOKENS // longest, _MAX_SCORES // longest**2))
    similar = int(np.count_nonzero(lengths >= longest * (1 - _MAX_PADDING)))
    return min(limit, max(similar, -(-_MIN_TOKENS // longest)), len(lengths))
