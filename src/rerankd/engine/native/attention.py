"""Attention over packed rows: stacks of sequences in, one result a row out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from rerankd.engine.native.plan import Stack


def attend(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, stacks: Sequence[Stack]) -> torch.Tensor:
    """Causal attention of every row within its sequences.

    Args:
        queries: (rows, heads, d).
        keys: (rows, kv_heads, d), heads a multiple of kv_heads.
        values: like ``keys``.

    Returns:
        (rows, heads * d), in the row order of ``queries``.
    """
    attended = torch.empty_like(queries).flatten(1)
    for stack in stacks:
        result = F.scaled_dot_product_attention(
            _stacked(queries, stack.queries, stack.size),
            _stacked(keys, stack.keys, stack.size),
            _stacked(values, stack.keys, stack.size),
            attn_mask=stack.mask,
            is_causal=stack.mask is None,
            enable_gqa=queries.shape[1] != keys.shape[1],
        )
        flat = result.transpose(1, 2).reshape(len(stack.queries), -1)
        attended.index_copy_(0, stack.rows, flat.index_select(0, stack.outputs))
    return attended


def _stacked(rows: torch.Tensor, index: torch.Tensor, size: int) -> torch.Tensor:
    """(n, heads, length, d), gathered from (rows, heads, d)."""
    return rows.index_select(0, index).view(size, -1, *rows.shape[1:]).transpose(1, 2)
