"""Attention of packed sequences one by one, in plain torch: what flash attention has to give, on any device."""

from __future__ import annotations

from itertools import pairwise

import torch

from rerankd.engine.native.packing import Spans


def plain(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, spans: Spans
) -> tuple[torch.Tensor, torch.Tensor]:
    attended = torch.full_like(queries, torch.nan)
    sums = torch.full(queries.shape[1::-1], torch.nan)
    places = zip(pairwise(spans.query_offsets.tolist()), pairwise(spans.key_offsets.tolist()), strict=True)
    for (begin, end), (first, last) in places:
        assert 0 < end - begin <= spans.longest_query
        assert 0 < last - first <= spans.longest_key
        part = _one(queries[begin:end], keys[first:last], values[first:last], is_causal=spans.is_causal)
        attended[begin:end], sums[:, begin:end] = part
    return attended, sums


def _one(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, *, is_causal: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    repeats = queries.shape[1] // keys.shape[1]
    wide_keys, wide_values = (part.float().repeat_interleave(repeats, dim=1) for part in (keys, values))
    scores = torch.einsum("qhd,khd->hqk", queries.float(), wide_keys) / queries.shape[-1] ** 0.5
    if is_causal:
        later = torch.ones(scores.shape[1:], dtype=torch.bool).triu(1 + len(keys) - len(queries))
        scores = scores.masked_fill(later, -torch.inf)
    attended = torch.einsum("hqk,khd->qhd", scores.softmax(dim=-1), wide_values)
    return attended.to(queries.dtype), scores.logsumexp(dim=-1)
