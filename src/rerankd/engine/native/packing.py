"""How a batch lies in memory on CUDA: no padding, every shared prefix once, one copy to the device.

Every token that is computed is one *row*, and the rows of a batch are sequences one after another: what is new of
prefixes that are kept in part, the tails of pairs that share a prefix, the *whole* pairs, which share theirs with
nobody, and the other shared prefixes. What a row sees is its own sequence up to itself, and all that comes before
that sequence: for a tail its group's prefix, for the new part of a prefix what is kept of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from rerankd.engine.base import Batch, Group
from rerankd.engine.native.kept import LEAST, Exchange, Loan
from rerankd.engine.native.plan import Placed, Rows, positions_of

Numbers = NDArray[np.integer]

_AMPERE = (8, 0)
_LARGEST_HEAD = 256


@dataclass(frozen=True, slots=True)
class Spans:
    """Sequences of queries and the keys that each sees: number i has ``offsets[i]`` to ``offsets[i + 1]``."""

    query_offsets: torch.Tensor
    """int32 (sequences + 1,)"""
    key_offsets: torch.Tensor
    """int32 (sequences + 1,)"""
    longest_query: int
    longest_key: int
    is_causal: bool = False
    """A query sees the keys up to its own place; otherwise it sees all."""


@dataclass(frozen=True, slots=True)
class Sight:
    """Who sees what in one layer.

    Attributes:
        own: every query within its own sequence.
        own_keys: the rows of those sequences.
        shared: the queries of sequences that something comes before, and that; None where the batch shares nothing.
        sharing: which queries those are, the first ones.
        shared_keys: the rows of what comes before; a list where some of them are kept, and so not side by side.
    """

    own: Spans
    own_keys: slice
    shared: Spans | None
    sharing: slice
    shared_keys: slice | torch.Tensor


@dataclass(frozen=True, slots=True)
class Packing:
    """One batch on the device.

    Attributes:
        ids: int32 (rows,), token ids.
        positions: int32 (rows,), positions within the pair.
        last: int32 (pairs,), the row of each pair's last token.
        order: int32 (pairs,), the pairs in the order of their rows.
        places: int32 (pairs,), where in that order each pair is.
        every: who sees what, for queries of every row.
        final: the same for one query a pair, in the order of the rows.
        exchange: the rows that are kept from and for other passes.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    last: torch.Tensor
    order: torch.Tensor
    places: torch.Tensor
    every: Sight
    final: Sight
    exchange: Exchange


def packs(device: torch.device, dtype: torch.dtype, head_dim: int) -> bool:
    """Whether flash attention, which packed rows need, computes heads of this size in this format there."""
    return (
        device.type == "cuda"
        and torch.cuda.get_device_capability(device) >= _AMPERE
        and dtype in (torch.bfloat16, torch.float16)
        and head_dim % 8 == 0
        and head_dim <= _LARGEST_HEAD
    )


def pack(batch: Batch, loan: Loan, device: torch.device) -> Packing:
    """Lay ``batch``, which has pairs, out on the host and send it to ``device``; nobody waits for the copy."""
    parts = _Parts.of(batch, loan)
    lengths, tokens = parts.lengths(), parts.tokens()
    placed = Placed.of(batch, loan, tokens)
    order = np.concatenate([parts.sharing, parts.whole])
    sent = _send(
        {
            **{name: _offsets(sizes) for name, sizes in lengths.items()},
            "ids": np.concatenate([batch.prefix_ids, batch.tail_ids])[tokens],
            "positions": positions_of(batch)[tokens],
            "last": placed.last,
            "order": order,
            "places": np.argsort(order),
            "seen": placed.rows[parts.seen()],
            "wanted": placed.first_of(loan.pair, loan.tokens),
        },
        device,
    )

    def spans(queries: str, keys: str, *, is_causal: bool = False) -> Spans:
        longest_query, longest_key = (int(lengths[name].max(initial=0)) for name in (queries, keys))
        return Spans(sent[queries], sent[keys], longest_query, longest_key, is_causal)

    ends = np.cumsum([part.sum() for part in parts.sizes])
    # Without kept rows what is seen lies side by side, behind all pairs.
    seen: slice | torch.Tensor = slice(int(ends[2]), len(tokens))
    seen_by_tails = seen
    if loan.parts:
        seen = sent["seen"]
        seen_by_tails = seen[len(seen) - lengths["prefixes"].sum() :]
    shares = len(parts.shared) > 0
    return Packing(
        ids=sent["ids"],
        positions=sent["positions"],
        last=sent["last"],
        order=sent["order"],
        places=sent["places"],
        every=Sight(
            own=spans("sequences", "sequences", is_causal=True),
            own_keys=slice(len(tokens)),
            shared=spans("sequences that see", "what they see") if shares else None,
            sharing=slice(int(ends[1])),
            shared_keys=seen,
        ),
        final=Sight(
            own=spans("one each", "pairs"),
            own_keys=slice(int(ends[0]), int(ends[2])),
            shared=spans("pairs of groups", "prefixes") if shares else None,
            sharing=slice(len(parts.sharing)),
            shared_keys=seen_by_tails,
        ),
        exchange=Exchange(loan.parts, sent["wanted"] if loan.tokens else None),
    )


@dataclass(frozen=True, slots=True)
class _Parts:
    """What the sequences are made of, in their order.

    Attributes:
        later: groups with a shared prefix that is kept in part: its new tokens.
        sharing: pairs with a shared prefix: their tails.
        whole: pairs without: all of them.
        first: groups with a shared prefix of which nothing is kept.
        shared: all groups with a shared prefix.
    """

    batch: Batch
    loan: Loan
    later: Numbers
    sharing: Numbers
    whole: Numbers
    first: Numbers
    shared: Numbers

    @classmethod
    def of(cls, batch: Batch, loan: Loan) -> Self:
        pairs, prefixes = np.diff(batch.group_offsets), np.diff(batch.prefix_offsets)
        is_kept, has_new = loan.counts > 0, prefixes > loan.counts
        is_shared = is_kept | ((pairs > 1) & has_new)
        sharing = np.repeat(is_shared, pairs)
        found = (is_kept & has_new, sharing, ~sharing, is_shared & ~is_kept, is_shared)
        return cls(batch, loan, *map(np.flatnonzero, found))

    @property
    def sizes(self) -> tuple[Numbers, Numbers, Numbers, Numbers]:
        """Tokens of each sequence that is made of ``later``, ``sharing``, ``whole`` and ``first``."""
        prefixes, tails = np.diff(self.batch.prefix_offsets), np.diff(self.batch.tail_offsets)
        pairs = prefixes[self._groups[self.whole]] + tails[self.whole]
        new = prefixes - self.loan.counts
        return new[self.later], tails[self.sharing], pairs, new[self.first]

    def lengths(self) -> dict[str, Numbers]:
        """Tokens of all that attention is told of."""
        batch = self.batch
        later, sharing, whole, first = self.sizes
        prefixes = np.diff(batch.prefix_offsets)[self.shared]
        tails = np.diff(batch.tail_offsets[batch.group_offsets])[self.shared]
        return {
            "sequences": np.concatenate([later, sharing, whole, first]),
            "sequences that see": np.concatenate([later, tails]),
            "what they see": np.concatenate([self.loan.counts[self.later], prefixes]),
            "pairs": np.concatenate([sharing, whole]),
            "one each": np.ones(batch.pairs, dtype=np.int64),
            "pairs of groups": np.diff(batch.group_offsets)[self.shared],
            "prefixes": prefixes,
        }

    def tokens(self) -> Rows:
        """The token that each row computes."""
        batch, kept = self.batch, self.loan.counts
        first_tail = len(batch.prefix_ids)
        begins = np.concatenate([batch.prefix_offsets[:-1] + kept, first_tail + batch.tail_offsets[:-1]])
        lengths = np.concatenate([np.diff(batch.prefix_offsets) - kept, np.diff(batch.tail_offsets)])
        # A whole pair is two pieces: its prefix and its tail.
        both = np.stack([self._groups[self.whole], batch.groups + self.whole], axis=1).ravel()
        pieces = np.concatenate([self.later, batch.groups + self.sharing, both, self.first])
        return _runs(begins[pieces], lengths[pieces])

    def seen(self) -> Rows:
        """The tokens that come before sequences, where some of them are kept: kept parts, then whole prefixes."""
        if not self.loan.parts:
            return np.empty(0, dtype=np.int64)
        begins = self.batch.prefix_offsets[np.concatenate([self.later, self.shared])]
        return _runs(begins, self.lengths()["what they see"])

    @property
    def _groups(self) -> Numbers:
        """The group of each pair."""
        return np.repeat(np.arange(self.batch.groups), np.diff(self.batch.group_offsets))


def _runs(begins: Numbers, lengths: Numbers) -> Rows:
    """Numbers that count up from each of ``begins``."""
    runs: Rows = np.arange(lengths.sum()) + np.repeat(begins - _offsets(lengths)[:-1], lengths)
    return runs


def _offsets(lengths: Numbers) -> Numbers:
    return np.concatenate([[0], np.cumsum(lengths)])


def _send(arrays: Mapping[str, Numbers], device: torch.device) -> dict[str, torch.Tensor]:
    """The arrays as int32 on ``device``, all in one copy, from memory that the device reads by itself."""
    sizes = [len(array) for array in arrays.values()]
    packed = torch.empty(sum(sizes), dtype=torch.int32, pin_memory=device.type == "cuda")
    np.concatenate(list(arrays.values()), out=packed.numpy(), casting="same_kind")
    parts = torch.split(packed.to(device, non_blocking=True), sizes)
    return dict(zip(arrays, parts, strict=True))


def kinds() -> list[Batch]:
    """Small batches of every kind, each in two sizes: pairs alone, pairs with a prefix, and both; then with a
    prefix that is kept, which the first two of those see to."""

    def group(prefix: int, *tails: int) -> Group:
        return Group(np.zeros(prefix, np.int32), tuple(np.zeros(tail, np.int32) for tail in tails))

    new = [
        groups
        for prefix, alone, *tails in ((5, 3, 7, 11), (9, 6, 13, 17, 19))
        for groups in (
            [group(prefix, alone)],
            [group(0, *tails)],
            [group(prefix, *tails)],
            [group(prefix, *tails), group(prefix, alone)],
        )
    ]
    kept = [
        groups
        for prefix, alone, *tails in ((LEAST, 6, 7, 11), (LEAST + 9, 3, 13, 17, 19))
        for groups in (
            [group(prefix, alone)],
            [group(prefix, alone)],
            [group(prefix, *tails)],
            [group(prefix, alone), group(0, *tails)],
            [group(prefix, *tails), group(prefix, alone), group(0, alone)],
        )
    ]
    return [Batch.of(groups) for groups in new + kept]
