"""Attention over packed rows on CUDA: no padding, no copies but of kept prefixes, no call a document.

It is exact in two calls: every sequence with itself, and with what comes before it. The two results are merged by
their log-sum-exp.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch.nn.attention.varlen import AuxRequest, varlen_attn

from rerankd.engine.base import Batch
from rerankd.engine.native.compiled import can_compile, compiled
from rerankd.engine.native.kept import Loan
from rerankd.engine.native.packing import Packing, Sight, Spans, pack
from rerankd.engine.native.plan import Plan

Varlen: TypeAlias = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, Spans], tuple[torch.Tensor, torch.Tensor]]
"""Attention of queries (n, heads, d) to keys and values (m, kv_heads, d) within spans: what they attend to
(n, heads, d), and the log-sum-exp of their scores, float32 (heads, n)."""

Merge: TypeAlias = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], None]

# Releases that know the switch want to be asked for fewer heads of keys than of queries; torch 2.11 has no check.
_GROUPED: dict[str, Any] = {"enable_gqa": True} if "enable_gqa" in inspect.signature(varlen_attn).parameters else {}
_LEAST_LONGEST = 2
"""The least that torch is told of the longest query sequence, a bound from above. Told 1, it takes a path of its own
that cuts the keys up by the longest sequence of all: a pair's score would depend on its neighbours."""


def flash(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, spans: Spans
) -> tuple[torch.Tensor, torch.Tensor]:
    """Torch's flash attention of packed sequences, in bfloat16 or float16."""
    attended, sums = varlen_attn(
        queries,
        keys,
        values,
        spans.query_offsets,
        spans.key_offsets,
        max(spans.longest_query, _LEAST_LONGEST),
        spans.longest_key,
        return_aux=AuxRequest(lse=True),
        window_size=(-1, 0) if spans.is_causal else (-1, -1),
        **_GROUPED,
    )
    return attended, sums


class Packed:
    """Attention of one batch; queries, keys and values lie as `packing.pack` has laid out their rows."""

    def __init__(self, packing: Packing, varlen: Varlen, merge: Merge) -> None:
        self._packing = packing
        self._varlen = varlen
        self._merge = merge

    def every(self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        return self._attend(queries, keys, values, self._packing.every).flatten(1)

    def last(self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        packing = self._packing
        attended = self._attend(queries.index_select(0, packing.order), keys, values, packing.final)
        return attended.index_select(0, packing.places).flatten(1)

    def _attend(self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, sight: Sight) -> torch.Tensor:
        attended, sums = self._varlen(queries, keys[sight.own_keys], values[sight.own_keys], sight.own)
        if sight.shared is not None:
            part, prefixes = sight.sharing, sight.shared_keys
            seen, seen_sums = self._varlen(queries[part], keys[prefixes], values[prefixes], sight.shared)
            self._merge(attended[part], sums[:, part], seen, seen_sums)
        return attended


def merge(attended: torch.Tensor, sums: torch.Tensor, seen: torch.Tensor, seen_sums: torch.Tensor) -> None:
    """Join what was attended to in two sets of keys, in float32, into ``attended``."""
    share = torch.sigmoid(seen_sums - sums).t().unsqueeze(-1)
    attended.copy_(torch.lerp(attended.float(), seen.float(), share))


def planner(device: torch.device, varlen: Varlen = flash) -> Callable[[Batch, Loan], Plan]:
    """What lays batches out on ``device`` for this attention."""
    fused = compiled(merge) if can_compile(device) else merge

    def join(attended: torch.Tensor, *rest: torch.Tensor) -> None:
        # A single row is a kind of its own to the compiler, and little work.
        (fused if len(attended) > 1 else merge)(attended, *rest)

    def plan(batch: Batch, loan: Loan) -> Plan:
        packing = pack(batch, loan, device)
        return Plan(packing.ids, packing.positions, packing.last, Packed(packing, varlen, join), packing.exchange)

    return plan
