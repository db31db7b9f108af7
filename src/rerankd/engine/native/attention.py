"""Attention of one batch, prepared once for all layers.

Implemented by ``cpu/attention_varlen.py`` (C), ``cpu/attention_sdpa.py`` (torch, any device) and
``cuda/attention_metadata.py`` (Triton).
"""

from __future__ import annotations

from typing import Protocol

import torch


class AttentionBackend(Protocol):
    """Causal varlen attention: each token sees itself and what comes before it in its prompt.

    ``keys`` and ``values`` are (rows, kv_heads, head_dim), laid out as `TokenLayout` says: computed rows first, then
    those from the KV cache. The number of query heads is a multiple of kv_heads (grouped-query attention).
    """

    def prefill(self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Queries of every computed token, (tokens, heads, d) -> (tokens, heads * d)."""
        ...

    def last_token(self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Queries of the last token of each pair, (pairs, heads, d) -> (pairs, heads * d)."""
        ...
