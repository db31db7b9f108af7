"""Keys and values of cached prefixes, by slot: the core knows which token's lie where, this holds the tensors."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rerankd.engine.native.config import ModelConfig


class KVCache:
    """(layers, 2, slots + 1, kv_heads, head_dim); keys, then values.

    The last slot belongs to nobody: CUDA graphs of bucketed sizes write there what they have been padded with.
    Memory is taken when the first batch writes to it.
    """

    def __init__(self, config: ModelConfig, slots: int, dtype: torch.dtype, device: torch.device) -> None:
        self.slots = slots
        self._shape = (config.layers, 2, slots + 1, config.kv_heads, config.head_dim)
        self._dtype = dtype
        self._device = device
        self._tensor: torch.Tensor | None = None

    def allocated(self) -> torch.Tensor:
        """The whole cache; what lies in slots that were never written means nothing."""
        if self._tensor is None:
            self._tensor = torch.empty(self._shape, dtype=self._dtype, device=self._device)
        return self._tensor

    def free(self) -> None:
        """Let the memory go, and with it what every slot holds."""
        self._tensor = None


@dataclass(frozen=True, slots=True)
class PrefixKV:
    """What one batch reads from the KV cache and writes to it.

    Attributes:
        read_slots: int (cached,), the slots of the cached rows, which come behind the computed ones.
        written_rows: int (written,), the computed rows that are to be cached ...
        written_slots: int (written,), ... and where.
    """

    cache: KVCache
    read_slots: torch.Tensor
    written_rows: torch.Tensor
    written_slots: torch.Tensor

    @property
    def rows(self) -> int:
        """Cached rows; they take the last places of keys and values."""
        return len(self.read_slots)

    def __call__(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Bring cached keys and values of one layer in, before anything attends to them, and new ones out.

        A pass that fails has written slots that count as empty; slots that it reads it never writes.
        """
        read, written = self.rows, len(self.written_rows)
        if not read and not written:
            return
        for fresh, kept in zip((keys, values), self.cache.allocated()[layer], strict=True):
            if read:
                torch.index_select(kept, 0, self.read_slots, out=fresh[len(fresh) - read :])
            if written:
                kept.index_copy_(0, self.written_slots.long(), fresh[self.written_rows])
