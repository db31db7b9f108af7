"""What pairs of different requests begin with, computed as one group.

A request of one document is a group of one pair, and what it computes is to a good part the template and the
instruction, which the requests beside it in the batch begin with as well. Where that is kept from earlier batches
(``kept.py``), it is the prefix of such a pair, and pairs of the same one are a group.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rerankd.engine.base import Batch, Group
from rerankd.engine.native.kept import LEAST, LONGEST, Known
from rerankd.types import IdArray


@dataclass(frozen=True, slots=True)
class Shared:
    """The pairs of a batch in fewer tokens.

    Attributes:
        batch: the same pairs.
        order: where each pair of the batch that was given is among them.
        known: what is kept of each group's prefix.
    """

    batch: Batch
    order: NDArray[np.intp]
    known: tuple[Known | None, ...]


def beginnings(batch: Batch) -> list[IdArray]:
    """What may be shared of each group's prompts, int32 (n,): the prefix; of a pair alone all but its last token."""
    begins = [_prefix(batch, group)[: LONGEST if pairs else 0] for group, pairs in enumerate(_sizes(batch))]
    for group in _alone(batch):
        begins[group] = _prompt(batch, group)[:-1][:LONGEST]
    return begins


def share(batch: Batch, known: Sequence[Known | None]) -> Shared:
    """Join pairs that begin alike; ``known`` says what is kept of each group's `beginnings`."""
    alike: dict[Known | bytes, list[int]] = defaultdict(list)
    prompts = {group: _prompt(batch, group) for group in _alone(batch)}
    for group, prompt in prompts.items():
        if len(prompt) > LEAST:
            alike[known[group] or prompt[:LEAST].tobytes()].append(group)
    joined = {key: groups for key, groups in alike.items() if len(groups) > 1 or isinstance(key, Known)}
    if not joined:
        return Shared(batch, np.arange(batch.pairs), tuple(known))
    taken = [group for groups in joined.values() for group in groups]
    others = np.setdiff1d(np.arange(batch.groups), taken).tolist()
    made = [_group(batch, group) for group in others]
    made += [_with_common_prefix([prompts[group] for group in groups], key) for key, groups in joined.items()]
    pairs = np.split(np.arange(batch.pairs), batch.group_offsets[1:-1])
    return Shared(
        batch=Batch.of(made),
        order=np.argsort(np.concatenate([pairs[group] for group in (*others, *taken)])),
        known=(*(known[group] for group in others), *(key if isinstance(key, Known) else None for key in joined)),
    )


def _alone(batch: Batch) -> list[int]:
    """The groups of one pair."""
    return [group for group, pairs in enumerate(_sizes(batch)) if pairs == 1]


def _sizes(batch: Batch) -> list[int]:
    """Pairs of each group."""
    sizes: list[int] = np.diff(batch.group_offsets).tolist()
    return sizes


def _with_common_prefix(prompts: Sequence[IdArray], known: Known | bytes) -> Group:
    """The prompts as one group; what a prompt by itself shares is what is kept of it."""
    shortest = min(map(len, prompts)) - 1
    begins = np.stack([prompt[:shortest] for prompt in prompts])
    differs = np.append((begins != begins[0]).any(axis=0), True)
    common = known.tokens if isinstance(known, Known) and len(prompts) == 1 else int(differs.argmax())
    return Group(prompts[0][:common], tuple(prompt[common:] for prompt in prompts))


def _prompt(batch: Batch, group: int) -> IdArray:
    """The ids of the one pair of ``group``."""
    pair = batch.group_offsets[group]
    tail = batch.tail_ids[batch.tail_offsets[pair] : batch.tail_offsets[pair + 1]]
    return np.concatenate([_prefix(batch, group), tail])


def _prefix(batch: Batch, group: int) -> IdArray:
    return batch.prefix_ids[batch.prefix_offsets[group] : batch.prefix_offsets[group + 1]]


def _group(batch: Batch, group: int) -> Group:
    first, end = batch.group_offsets[group], batch.group_offsets[group + 1]
    offsets = batch.tail_offsets[first : end + 1]
    tails = np.split(batch.tail_ids[offsets[0] : offsets[-1]], offsets[1:-1] - offsets[0])
    return Group(_prefix(batch, group), tuple(tails) if end > first else ())
