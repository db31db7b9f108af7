"""How a batch lies in memory on CUDA: no padding, every shared prefix once, one copy to the device.

Every token that is computed is one *row*, and the rows of a batch are sequences one after another: the tails of
pairs that share a prefix, the *whole* pairs, which share theirs with nobody, and the shared prefixes. What a row
sees is its own sequence up to itself, and, if that is a tail, all of its group's prefix.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from rerankd.engine.base import Batch, Group

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
        shared: the queries of tails and their groups' prefixes; None where the batch shares nothing.
        sharing: which queries those are, the first ones.
        shared_keys: the rows of the prefixes.
    """

    own: Spans
    own_keys: slice
    shared: Spans | None
    sharing: slice
    shared_keys: slice


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
    """

    ids: torch.Tensor
    positions: torch.Tensor
    last: torch.Tensor
    order: torch.Tensor
    places: torch.Tensor
    every: Sight
    final: Sight


def packs(device: torch.device, dtype: torch.dtype, head_dim: int) -> bool:
    """Whether flash attention, which packed rows need, computes heads of this size in this format there."""
    return (
        device.type == "cuda"
        and torch.cuda.get_device_capability(device) >= _AMPERE
        and dtype in (torch.bfloat16, torch.float16)
        and head_dim % 8 == 0
        and head_dim <= _LARGEST_HEAD
    )


def pack(batch: Batch, device: torch.device) -> Packing:
    """Lay ``batch``, which has pairs, out on the host and send it to ``device``; nobody waits for the copy."""
    pairs, prefixes, tails = map(np.diff, (batch.group_offsets, batch.prefix_offsets, batch.tail_offsets))
    group = np.repeat(np.arange(batch.groups), pairs)
    is_shared = (pairs > 1) & (prefixes > 0)
    shared, sharing, whole = map(np.flatnonzero, (is_shared, is_shared[group], ~is_shared[group]))
    lengths = np.concatenate([tails[sharing], prefixes[group[whole]] + tails[whole], prefixes[shared]])
    sequences = _offsets(lengths)
    first_whole, first_prefix = sequences[len(sharing)], sequences[batch.pairs]
    group_tails = np.diff(batch.tail_offsets[batch.group_offsets])[shared]
    source, positions = _rows(batch, shared, sharing, whole)
    order = np.concatenate([sharing, whole])
    places = np.argsort(order)
    sent = _send(
        {
            "ids": np.concatenate([batch.prefix_ids, batch.tail_ids])[source],
            "positions": positions,
            "last": sequences[1 : batch.pairs + 1][places] - 1,
            "order": order,
            "places": places,
            "sequences": sequences,
            "prefixes": _offsets(prefixes[shared]),
            "tails of groups": _offsets(group_tails),
            "pairs of groups": _offsets(pairs[shared]),
            "one each": np.arange(batch.pairs + 1),
        },
        device,
    )
    longest, longest_pair, longest_prefix = (
        int(part.max(initial=0)) for part in (lengths, lengths[: batch.pairs], prefixes[shared])
    )

    def with_prefix(offsets: str, sizes: Numbers) -> Spans | None:
        if not len(shared):
            return None
        return Spans(sent[offsets], sent["prefixes"], int(sizes.max()), longest_prefix)

    return Packing(
        ids=sent["ids"],
        positions=sent["positions"],
        last=sent["last"],
        order=sent["order"],
        places=sent["places"],
        every=Sight(
            own=Spans(sent["sequences"], sent["sequences"], longest, longest, is_causal=True),
            own_keys=slice(None),
            shared=with_prefix("tails of groups", group_tails),
            sharing=slice(first_whole),
            shared_keys=slice(first_prefix, None),
        ),
        final=Sight(
            own=Spans(sent["one each"], sent["sequences"][: batch.pairs + 1], 1, longest_pair),
            own_keys=slice(first_prefix),
            shared=with_prefix("pairs of groups", pairs[shared]),
            sharing=slice(len(sharing)),
            shared_keys=slice(first_prefix, None),
        ),
    )


def _rows(batch: Batch, shared: Numbers, sharing: Numbers, whole: Numbers) -> tuple[Numbers, ...]:
    """Where each row's id is among all prefixes and tails of the batch, and its position within the pair."""
    group = np.repeat(np.arange(batch.groups), np.diff(batch.group_offsets))
    begins = np.concatenate([batch.prefix_offsets[:-1], len(batch.prefix_ids) + batch.tail_offsets[:-1]])
    prefixes, tails = np.diff(batch.prefix_offsets), np.diff(batch.tail_offsets)
    lengths, positions = np.concatenate([prefixes, tails]), np.concatenate([np.zeros_like(prefixes), prefixes[group]])
    # A whole pair is two pieces: its prefix and its tail.
    both = np.stack([group[whole], batch.groups + whole], axis=1).ravel()
    pieces = np.concatenate([batch.groups + sharing, both, shared])
    within = np.arange(lengths[pieces].sum()) - np.repeat(_offsets(lengths[pieces])[:-1], lengths[pieces])
    return tuple(np.repeat(first[pieces], lengths[pieces]) + within for first in (begins, positions))


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
    """Small batches of every kind, each in two sizes: pairs alone, pairs with a prefix, and both."""

    def group(prefix: int, *tails: int) -> Group:
        return Group(np.zeros(prefix, np.int32), tuple(np.zeros(tail, np.int32) for tail in tails))

    sizes = ((5, 3, 7, 11), (9, 6, 13, 17, 19))
    return [
        Batch.of(groups)
        for prefix, alone, *tails in sizes
        for groups in (
            [group(prefix, alone)],
            [group(0, *tails)],
            [group(prefix, *tails)],
            [group(prefix, *tails), group(prefix, alone)],
        )
    ]
