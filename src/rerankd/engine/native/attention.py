"""What the model asks of attention; ``stacks.py`` and ``tiles.py`` answer, each for its own devices and formats."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

import torch

from rerankd.engine.base import Batch


class Attention(Protocol):
    """Attention over one batch: prefix rows and tail rows as `plan.Plan` orders them, causal within each pair.

    ``keys`` and ``values`` are (rows, kv_heads, d); heads is a multiple of kv_heads.
    """

    def every(self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Queries of all rows, (rows, heads, d) -> (rows, heads * d)."""
        ...

    def last(self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Queries of the last row of each pair, (pairs, heads, d) -> (pairs, heads * d)."""
        ...


LayOut: TypeAlias = Callable[[Batch], Attention]
"""Prepares attention for a batch, once for all layers."""
