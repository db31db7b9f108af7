"""The engine contract: a forest of token segments in, one raw score (logit) a pair out.

Engines are synchronous and are called from one thread at a time. They know token ids, not texts: prompts are
made in :mod:`rerankd.prompt`, batches in :mod:`rerankd.core`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rerankd.types import IdArray

DType = Literal["auto", "float32", "bfloat16", "float16", "int8", "fp8"]

BoolArray: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Batch:
    """The prompts of one forward pass: a radix tree over token ids, flattened, parents before children.

    A pair's prompt is the concatenation of the segments from its root to its leaf. A token's position is the
    number of tokens before it on that path, and it attends to those and to itself.

    The root of a path may be cached, and so may its children, as far as the cache goes: the parent of a cached
    segment is cached or -1. A leaf may have children (one prompt begins another one); it is never cached, so that
    every pair has a last token whose hidden state is computed. Segments are never empty. Pairs with equal ids may
    share a leaf.

    Attributes:
        token_ids: int32 (tokens,), the segments one after another, cached ones too.
        offsets: int32 (segments + 1,), where each segment begins in ``token_ids``.
        parents: int32 (segments,), the segment before on the path; -1 for a root; less than the segment's own index.
        leaves: int32 (pairs,), the segment in which each pair's prompt ends: its last token is that segment's last.
        cached: bool (segments,): keys and values are read from the KV cache, nothing is computed for its tokens.
        slots: int32 (tokens,), the KV cache slot of each token, -1 for none. Those of cached segments are read,
            those of others are written once the pass has succeeded; a slot is written for at most one token.
    """

    token_ids: IdArray
    offsets: IdArray
    parents: IdArray
    leaves: IdArray
    cached: BoolArray
    slots: IdArray
    tokens: int = field(init=False, compare=False)
    """Tokens that a forward pass computes: each segment once, cached ones not at all."""

    @property
    def pairs(self) -> int:
        return len(self.leaves)

    @property
    def segments(self) -> int:
        return len(self.parents)

    def __post_init__(self) -> None:
        tokens = len(self.token_ids)
        if self.cached.any():
            tokens -= int((self.offsets[1:] - self.offsets[:-1])[self.cached].sum())
        object.__setattr__(self, "tokens", tokens)

    def starts(self) -> IdArray:
        """The position of each segment's first token, int32 (segments,)."""
        lengths = np.diff(self.offsets)
        starts = np.zeros(self.segments, dtype=np.int32)
        for segment, parent in enumerate(self.parents.tolist()):
            if parent >= 0:
                starts[segment] = starts[parent] + lengths[parent]
        return starts

    def path(self, segment: int) -> list[int]:
        """The segments from the root to ``segment``, which comes last."""
        path = [segment]
        while (parent := int(self.parents[path[-1]])) >= 0:
            path.append(parent)
        path.reverse()
        return path

    def prompts(self) -> list[IdArray]:
        """The whole ids of every pair, for engines that cannot share; pairs with one leaf share one array."""
        whole: dict[int, IdArray] = {}
        for leaf in self.leaves.tolist():
            if leaf not in whole:
                whole[leaf] = self._along(self.token_ids, leaf)
        return [whole[leaf] for leaf in self.leaves.tolist()]

    def _along(self, values: IdArray, leaf: int) -> IdArray:
        pieces = [values[self.offsets[segment] : self.offsets[segment + 1]] for segment in self.path(leaf)]
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


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
    """Capacity of the prefix cache in tokens; 0 disables it."""
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
    shares_prefix: bool = True
    """False: the engine computes each whole prompt, so batches hold one root segment a pair, and a pair costs all
    of its tokens."""
    kv_cache_slots: int = 0
    """Tokens whose keys and values the engine holds between passes, the capacity of the prefix cache; 0 for none."""
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

    The engine holds keys and values by slot, 0 <= slot < ``info.kv_cache_slots``, and knows nothing of which
    prefix lies where: the core does. A pass whose scores are all finite has written every slot that its batch
    asks it to write; after any other pass those slots count as empty, and slots that were read are untouched.
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
