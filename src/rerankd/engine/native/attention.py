"""What the model asks of attention; ``kernel_attention.py``, ``cuda/lines.py`` and ``stacks.py`` answer."""

from __future__ import annotations

from typing import Protocol

import torch


class Attention(Protocol):
    """Attention over one batch: its tokens lie as `plan.Placed` says, causal within each pair.

    ``keys`` and ``values`` are (rows, kv_heads, d), kept rows last; heads is a multiple of kv_heads.
    """

    def every(self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Queries of all rows that are computed, (rows, heads, d) -> (rows, heads * d)."""
        ...

    def last(self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Queries of the last row of each pair, (pairs, heads, d) -> (pairs, heads * d)."""
        ...
