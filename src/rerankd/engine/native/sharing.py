"""Pairs of different requests that begin alike, computed as one group.

A request of one document is a group of one pair, and what it computes is to a good part the template and the
instruction, which the requests beside it in the batch begin with as well. Nothing has to be kept from batch to
batch for that: a request of many documents computes its beginning once anyway, and one that is alone has a device to
itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rerankd.engine.base import Batch, Group
from rerankd.types import IdArray

_LEAST = 32
"""Tokens from which on a common beginning is worth a group; every template's own are about so many."""


def share(batch: Batch) -> tuple[Batch, NDArray[np.intp]]:
    """The same pairs in fewer tokens, and where each pair of ``batch`` is among them."""
    sizes = np.diff(batch.group_offsets)
    alike: dict[bytes, list[int]] = defaultdict(list)
    prompts = {int(group): _prompt(batch, int(group)) for group in np.flatnonzero(sizes == 1)}
    for group, prompt in prompts.items():
        if len(prompt) > _LEAST:
            alike[prompt[:_LEAST].tobytes()].append(group)
    joined = [groups for groups in alike.values() if len(groups) > 1]
    if not joined:
        return batch, np.arange(batch.pairs)
    others = np.setdiff1d(np.arange(batch.groups), np.concatenate(joined))
    made = [_group(batch, int(group)) for group in others]
    made += [_with_common_prefix([prompts[group] for group in groups]) for groups in joined]
    pairs = np.split(np.arange(batch.pairs), batch.group_offsets[1:-1])
    return Batch.of(made), np.argsort(np.concatenate([pairs[group] for group in (*others, *np.concatenate(joined))]))


def _with_common_prefix(prompts: Sequence[IdArray]) -> Group:
    shortest = min(map(len, prompts)) - 1
    begins = np.stack([prompt[:shortest] for prompt in prompts])
    differs = np.append((begins != begins[0]).any(axis=0), True)
    common = int(differs.argmax())
    return Group(prompts[0][:common], tuple(prompt[common:] for prompt in prompts))


def _prompt(batch: Batch, group: int) -> IdArray:
    """The ids of the one pair of ``group``."""
    made = _group(batch, group)
    return np.concatenate([made.prefix, made.tails[0]])


def _group(batch: Batch, group: int) -> Group:
    first, end = batch.group_offsets[group], batch.group_offsets[group + 1]
    offsets = batch.tail_offsets[first : end + 1]
    tails = np.split(batch.tail_ids[offsets[0] : offsets[-1]], offsets[1:-1] - offsets[0])
    prefix = batch.prefix_ids[batch.prefix_offsets[group] : batch.prefix_offsets[group + 1]]
    return Group(prefix, tuple(tails) if end > first else ())
