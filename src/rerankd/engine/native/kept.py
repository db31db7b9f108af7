"""Keys and values of what prompts begin with, kept from one batch for the next.

Nobody says what is worth keeping: the ids of recent prompts do. What a prompt has in common with one of an earlier
batch is taken out of the pass that computes it anyway. From then on its rows are keys that no query belongs to. The
next is taken once the last has been of use, so that prompts which never come a third time cost hardly a copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from rerankd.types import IdArray

Counts = NDArray[np.int64]

LEAST = 32
"""Tokens from which on a common beginning is worth a group or a place; every template's own are about so many."""
LONGEST = 256
"""Tokens of a prompt that are looked at, and of the longest beginning that is kept."""
_GAIN = 16
"""Tokens that a beginning has to add to what is kept of it: prompts that have a word in common by chance add none."""
_PATIENCE = 32
"""CudaGraphRunner after which another beginning is kept though the last has been of no use."""
_RECENT = 32
"""Prompts that are remembered ..."""
_A_PASS = 16
"""... and those of one pass that are compared with them, so that one large batch neither costs nor replaces more."""
_NO_ID, _NO_RECENT_ID = -2, -1
"""What fills up prompts that are shorter than `LONGEST`; two, as their ends are not alike."""


@dataclass(frozen=True, slots=True, eq=False)
class Beginning:
    """Ids that prompts begin with, int32 (n,), and for each layer their keys and values, (2, n, kv_heads, d)."""

    ids: IdArray
    layers: tuple[torch.Tensor, ...]


@dataclass(frozen=True, slots=True)
class Known:
    """What is kept of a prompt's beginning: the first ``tokens`` rows of ``beginning``."""

    beginning: Beginning
    tokens: int


@dataclass(frozen=True, slots=True)
class Asked:
    """What the prompts of one batch begin with.

    Attributes:
        begins: int32 (groups, LONGEST), filled up with `_NO_ID`.
        known: what is kept of each group's.
        group, tokens: where a beginning that is worth keeping is found; no tokens where none is.
    """

    begins: IdArray
    known: tuple[Known | None, ...]
    group: int
    tokens: int


class Kept:
    """The beginnings that are kept, of no more than ``most`` tokens together; the least recently used goes first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.clear()

    def clear(self) -> None:
        """Let everything go."""
        self._beginnings: list[Beginning] = []
        """Least recently used first."""
        self._recent = np.empty((0, LONGEST), dtype=np.int32)
        self._newest: Beginning | None = None
        self._wait = 0
        """CudaGraphRunner until another may be kept."""

    def ask(self, begins: Sequence[IdArray]) -> Asked:
        """Look up what each group's prompts begin with, int32 (n,) each."""
        table = np.full((len(begins), LONGEST), _NO_ID, dtype=np.int32)
        for line, ids in zip(table, begins, strict=True):
            line[: len(ids)] = ids[:LONGEST]
        known = self._known(table)
        used = {one.beginning for one in known if one}
        self._beginnings.sort(key=used.__contains__)
        if self._newest in used:
            self._wait = 0
        return Asked(table, known, *self._worth_keeping(table[:_A_PASS], known))

    def learn(self, asked: Asked, taken: Sequence[torch.Tensor]) -> None:
        """Remember the prompts of a pass that went well, and keep the rows taken out of it, a tensor a layer."""
        if self._most < LEAST:
            return
        begins = asked.begins[:_A_PASS]
        telling = begins[begins[:, LEAST - 1] != _NO_ID]
        self._recent = np.concatenate([np.maximum(telling, _NO_RECENT_ID), self._recent])[:_RECENT]
        self._wait = max(0, self._wait - 1)
        if not taken or not _are_finite(taken):
            return
        self._newest = Beginning(asked.begins[asked.group, : asked.tokens].copy(), tuple(taken))
        self._wait = _PATIENCE
        self._beginnings.append(self._newest)
        while sum(len(beginning.ids) for beginning in self._beginnings) > self._most:
            del self._beginnings[0]

    def _known(self, begins: IdArray) -> tuple[Known | None, ...]:
        if not self._beginnings:
            return (None,) * len(begins)
        # Of two that begin alike the one used last, so that the other may go.
        latest = self._beginnings[::-1]
        common = np.stack([_common(beginning.ids, begins) for beginning in latest])
        best = common.argmax(axis=0)
        tokens = common[best, np.arange(len(begins))]
        return tuple(
            Known(latest[which], int(count)) if count >= LEAST else None
            for which, count in zip(best, tokens, strict=True)
        )

    def _worth_keeping(self, begins: IdArray, known: Sequence[Known | None]) -> tuple[int, int]:
        """The group whose beginning would save most, and how many tokens of it."""
        if self._wait or not len(self._recent):
            return 0, 0
        common = np.max([_common(ids, begins) for ids in self._recent], axis=0).clip(max=self._most)
        gain = common - [one.tokens if one else 0 for one in known[: len(begins)]]
        best = int(gain.argmax())
        return (best, int(common[best])) if common[best] >= LEAST and gain[best] >= _GAIN else (0, 0)


def _common(ids: IdArray, begins: IdArray) -> Counts:
    """How many of ``ids``, from the first on, each line of ``begins`` (groups, LONGEST) begins with."""
    same = np.zeros((len(begins), len(ids) + 1), dtype=bool)
    same[:, :-1] = begins[:, : len(ids)] == ids
    common: Counts = same.argmin(axis=1)
    return common


def _are_finite(taken: Sequence[torch.Tensor]) -> bool:
    # By their sums: one number a layer to wait for.
    return bool(torch.stack([rows.sum(dtype=torch.float32) for rows in taken]).isfinite().all())


@dataclass(frozen=True, slots=True)
class Loan:
    """Which kept rows a batch sees, and which of its own are to be kept.

    Attributes:
        counts: int64 (groups,), tokens at the beginning of each group's prefix whose rows are kept.
        places: int64 (groups,), the first of them among all kept rows of the batch.
        parts: those rows, one beginning after another.
        pair, tokens: whose first rows are to be kept; no tokens where none are.
    """

    counts: Counts
    places: Counts
    parts: tuple[Known, ...] = ()
    pair: int = 0
    tokens: int = 0

    @classmethod
    def of(cls, known: Sequence[Known | None], pair: int = 0, tokens: int = 0) -> Loan:
        """From what is kept of each group's prefix; a beginning that several have in common is there once."""
        longest: dict[Beginning, int] = {}
        for one in known:
            if one:
                longest[one.beginning] = max(longest.get(one.beginning, 0), one.tokens)
        places = dict(zip(longest, np.cumsum([0, *longest.values()]), strict=False))
        return cls(
            counts=np.array([one.tokens if one else 0 for one in known], dtype=np.int64),
            places=np.array([places[one.beginning] if one else 0 for one in known], dtype=np.int64),
            parts=tuple(Known(*part) for part in longest.items()),
            pair=pair,
            tokens=tokens,
        )


@dataclass(frozen=True, slots=True)
class Exchange:
    """Brings kept rows into one pass, and takes those out that shall be kept.

    Attributes:
        parts: the rows that come in.
        wanted: int (n,), the rows that are taken out; None where none are.
        taken: (2, n, kv_heads, d) for each layer that the pass has been through.
    """

    parts: tuple[Known, ...] = ()
    wanted: torch.Tensor | None = None
    taken: list[torch.Tensor] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """Rows that come in; they take the last places of keys and values."""
        return sum(part.tokens for part in self.parts)

    def __call__(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        """The rows of one layer, keys and values (rows, kv_heads, d), before anything attends to them."""
        at = len(keys) - self.rows
        for part in self.parts:
            kept_keys, kept_values = part.beginning.layers[layer][:, : part.tokens]
            keys[at : at + part.tokens] = kept_keys
            values[at : at + part.tokens] = kept_values
            at += part.tokens
        if self.wanted is not None:
            self.taken.append(torch.stack([keys[self.wanted], values[self.wanted]]))
