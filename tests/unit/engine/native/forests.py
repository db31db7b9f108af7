"""Random forests of segments, and attention over them from its definition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from hypothesis import strategies as st

from rerankd.engine.base import Batch
from rerankd.engine.native.forward_batch import TokenLayout

SIZES = (4, 2, 32)
"""Query heads, key heads, and their size."""


@dataclass(frozen=True)
class Segment:
    """A segment of a drawn forest; ``parent`` is a number of any size, of which the remainder counts."""

    parent: int
    length: int
    cached: bool
    is_leaf: bool


SEGMENTS = st.lists(
    st.builds(
        Segment,
        parent=st.integers(0, 1000),
        length=st.one_of(st.integers(1, 5), st.integers(1, 90)),
        cached=st.booleans(),
        is_leaf=st.booleans(),
    ),
    min_size=1,
    max_size=14,
)


def forest(segments: Sequence[Segment], ids: np.ndarray | None = None) -> Batch:
    """A batch of this shape. Its tokens are numbered, or have ``ids``; cached ones lie in slots from 0 on.

    What has no children is a leaf, and what is a leaf or below something computed is computed.
    """
    parents = np.array([one.parent % (at + 1) - 1 for at, one in enumerate(segments)], dtype=np.int32)
    is_leaf = np.array([one.is_leaf for one in segments])
    is_leaf |= ~np.isin(np.arange(len(segments)), parents)
    cached = np.zeros(len(segments), dtype=bool)
    for at, (parent, one) in enumerate(zip(parents.tolist(), segments, strict=True)):
        cached[at] = one.cached and not is_leaf[at] and (parent < 0 or cached[parent])
    lengths = np.array([one.length for one in segments])
    tokens = int(lengths.sum())
    leaves = np.flatnonzero(is_leaf).astype(np.int32)
    is_cached = np.repeat(cached, lengths)
    return Batch(
        token_ids=np.arange(tokens, dtype=np.int32) if ids is None else ids[:tokens],
        offsets=np.cumsum([0, *lengths], dtype=np.int32),
        parents=parents,
        # One pair more than leaves: two prompts may be alike.
        leaves=np.append(leaves, leaves[0]),
        cached=cached,
        slots=np.where(is_cached, np.cumsum(is_cached) - 1, -1).astype(np.int32),
    )


def two_levels(*groups: tuple[int, Sequence[int]]) -> Batch:
    """Prefixes and the tails behind each, by their lengths; a prefix of 0 tokens is none."""
    segments, parents = [], []
    for prefix, tails in groups:
        parent = -1
        if prefix:
            parent = len(segments)
            segments.append(prefix)
            parents.append(-1)
        parents += [parent] * len(tails)
        segments += tails
    is_leaf = ~np.isin(np.arange(len(segments)), parents)
    return Batch(
        token_ids=np.arange(sum(segments), dtype=np.int32),
        offsets=np.cumsum([0, *segments], dtype=np.int32),
        parents=np.array(parents, dtype=np.int32),
        leaves=np.flatnonzero(is_leaf).astype(np.int32),
        cached=np.zeros(len(segments), dtype=bool),
        slots=np.full(sum(segments), -1, dtype=np.int32),
    )


def path_tokens(batch: Batch, segment: int) -> list[int]:
    """The tokens of a path, by their place in the batch."""
    return [token for one in batch.path(segment) for token in range(batch.offsets[one], batch.offsets[one + 1])]


def attend(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """The last query sees all keys, the one before it all but the last; (n, heads, d) -> (n, heads, d)."""
    repeats = queries.shape[1] // keys.shape[1]
    wide_keys, wide_values = (part.float().repeat_interleave(repeats, dim=1) for part in (keys, values))
    scores = torch.einsum("qhd,khd->hqk", queries.float(), wide_keys) / queries.shape[-1] ** 0.5
    hidden = torch.ones(len(queries), len(keys), dtype=torch.bool, device=queries.device)
    scores = scores.masked_fill(hidden.triu(len(keys) - len(queries) + 1), -torch.inf)
    return torch.einsum("hqk,khd->qhd", scores.softmax(dim=-1), wide_values).to(queries.dtype)


@dataclass(frozen=True)
class Tensors:
    """Random queries, keys and values of every token of a batch, in its order."""

    queries: torch.Tensor
    keys: torch.Tensor
    values: torch.Tensor

    @classmethod
    def of(
        cls,
        batch: Batch,
        dtype: torch.dtype = torch.float32,
        sizes: tuple[int, int, int] = SIZES,
    ) -> Tensors:
        generator = torch.Generator().manual_seed(len(batch.token_ids))
        heads, kv_heads, d = sizes
        tokens = len(batch.token_ids)
        return cls(
            *(torch.randn(tokens, count, d, generator=generator).to(dtype) for count in (heads, kv_heads, kv_heads))
        )

    def laid_out(
        self, layout: TokenLayout, computed_rows: int = 0
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """As a forward pass has them; rows that nobody may look at are no numbers."""
        computed = torch.from_numpy(np.flatnonzero(layout.is_computed))
        rows = torch.from_numpy(layout.rows)
        total = max(computed_rows, layout.computed) + len(layout.rows) - layout.computed
        kept = []
        for part in (self.keys, self.values):
            at = torch.full((total, *part.shape[1:]), torch.nan, dtype=part.dtype)
            at[rows] = part
            kept.append(at)
        return [self.queries[computed], *kept]

    def expected_prefill(self, batch: Batch) -> torch.Tensor:
        """Attention of every computed token, in the batch's order, from the definition."""
        out = []
        for segment in np.flatnonzero(~batch.cached).tolist():
            seen = path_tokens(batch, segment)
            own = slice(batch.offsets[segment], batch.offsets[segment + 1])
            out.append(attend(self.queries[own], self.keys[seen], self.values[seen]))
        return torch.cat(out).flatten(1)

    def expected_last(self, batch: Batch) -> torch.Tensor:
        """Attention of the last token of each pair."""
        out = []
        for leaf in batch.leaves.tolist():
            seen = path_tokens(batch, leaf)
            out.append(attend(self.queries[seen[-1:]], self.keys[seen], self.values[seen]))
        return torch.cat(out).flatten(1)
