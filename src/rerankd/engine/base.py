"""The engine contract: flat batches of token ids in, one raw score (logit) a pair out.

Engines are synchronous and are called from one thread at a time. They know ids, not texts: prompts are
made in :mod:`rerankd.prompt`, batches in :mod:`rerankd.schedule`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from rerankd.types import IdArray

DType = Literal["auto", "float32", "bfloat16", "float16", "int8", "fp8"]


@dataclass(frozen=True, slots=True)
class Group:
    """Pairs that begin with the same tokens: the prefix once, then what each pair adds.

    A pair's prompt is ``prefix + tail``. ``prefix`` has shape (p,) with p >= 0, each tail shape (t,) with
    t >= 1; int32 all.
    """

    prefix: IdArray
    tails: tuple[IdArray, ...]

    @property
    def tokens(self) -> int:
        """Tokens to compute for this group: the prefix once, every tail."""
        return len(self.prefix) + sum(len(tail) for tail in self.tails)


@dataclass(frozen=True, slots=True)
class Batch:
    """Groups laid out flat, for one forward pass.

    Attributes:
        prefix_ids: int32, the groups' prefixes one after another.
        prefix_offsets: int32, shape (groups + 1,): where each prefix begins in ``prefix_ids``.
        tail_ids: int32, the pairs' tails one after another.
        tail_offsets: int32, shape (pairs + 1,): where each tail begins in ``tail_ids``.
        group_offsets: int32, shape (groups + 1,): the first pair of each group.
    """

    prefix_ids: IdArray
    prefix_offsets: IdArray
    tail_ids: IdArray
    tail_offsets: IdArray
    group_offsets: IdArray

    @classmethod
    def of(cls, groups: Sequence[Group]) -> Batch:
        tails = [tail for group in groups for tail in group.tails]
        return cls(
            prefix_ids=_flat([group.prefix for group in groups]),
            prefix_offsets=_offsets([len(group.prefix) for group in groups]),
            tail_ids=_flat(tails),
            tail_offsets=_offsets([len(tail) for tail in tails]),
            group_offsets=_offsets([len(group.tails) for group in groups]),
        )

    @property
    def pairs(self) -> int:
        return len(self.tail_offsets) - 1

    @property
    def groups(self) -> int:
        return len(self.prefix_offsets) - 1

    @property
    def tokens(self) -> int:
        """Tokens computed: every prefix once, every tail."""
        return len(self.prefix_ids) + len(self.tail_ids)

    def prompts(self) -> list[IdArray]:
        """The full ids of every pair, prefix repeated; for engines that cannot share."""
        whole = []
        for group in range(self.groups):
            prefix = self.prefix_ids[self.prefix_offsets[group] : self.prefix_offsets[group + 1]]
            for pair in range(self.group_offsets[group], self.group_offsets[group + 1]):
                tail = self.tail_ids[self.tail_offsets[pair] : self.tail_offsets[pair + 1]]
                whole.append(np.concatenate([prefix, tail]))
        return whole


def _flat(arrays: Sequence[IdArray]) -> IdArray:
    return np.concatenate(arrays, dtype=np.int32) if arrays else np.empty(0, dtype=np.int32)


def _offsets(lengths: Sequence[int]) -> IdArray:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)


@dataclass(frozen=True, slots=True)
class HeadSpec:
    """How a raw score is read from the last position.

    ``words``: logit(positive) - logit(negative) from two rows of the output matrix, or logit(positive)
    alone when ``negative`` is None. ``linear``: the checkpoint's own ``score.weight`` (1, h).
    """

    kind: Literal["words", "linear"]
    positive: int | None = None
    negative: int | None = None


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """All that an engine is made from; ``folder`` holds config.json and the weights."""

    folder: Path
    head: HeadSpec
    dtype: DType = "auto"
    device: str = "auto"
    threads: int = 0
    """Threads for the CPU; 0 leaves the choice to the engine."""
    max_pair_tokens: int = 8192
    max_batch_tokens: int = 0
    """Tokens of one forward pass; 0 lets warm-up measure it."""
    prefix_cache_tokens: int = 512
    """Tokens of prompt beginnings whose keys and values are kept for later batches; 0 keeps none."""
    separator: int | None = None
    """The token that ends a pair's first segment, for models that are told the segments apart (token_type_ids)."""
    script: str = ""
    """Faults and times for the fake engine; the others ignore it."""


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What an engine says of itself once loaded."""

    engine: str
    device: str
    dtype: str
    architecture: str
    max_length: int
    """Tokens of one pair that the model itself can read."""
    parameters: int
    max_batch_tokens: int
    """The token budget of one forward pass that warm-up found or the settings fixed."""
    kernels: str = ""
    """What computes the native engine's layers: the instruction set of the C kernels, ``triton``, or ``torch`` where
    there are no kernels."""
    details: str = ""
    """One line for the log: what was chosen and why (threads, kernels)."""


class EngineFault(Exception):
    """The engine is gone for good (sticky CUDA error, dead worker): no batch can be scored any more."""


class EngineOutOfMemory(Exception):
    """This batch did not fit; a smaller one may."""


class Engine(Protocol):
    """One loaded model. ``load`` and ``warm_up`` come first; ``score`` is never called concurrently.

    ``score`` raises :class:`EngineOutOfMemory` when the batch does not fit, :class:`EngineFault` when the
    engine cannot go on, anything else when this batch failed.
    """

    def load(self) -> None: ...

    def warm_up(self) -> None: ...

    @property
    def info(self) -> EngineInfo: ...

    def score(self, batch: Batch) -> NDArray[np.float32]:
        """Raw scores (logits) in the order of the batch's pairs, float32, shape (pairs,)."""
        ...

    def health(self) -> bool:
        """A one-pair forward pass, or cheaper: is the engine able to score?"""
        ...

    def close(self) -> None: ...
