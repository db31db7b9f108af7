"""How many operations a request needs, whatever an engine makes of it."""

from __future__ import annotations

from tests.checkpoints import Layout

from benchmarks.workloads import Workload


def request_flops(workload: Workload, layout: Layout) -> float:
    """Operations that the request needs: the prefix once, causal attention, and in the last layer keys and values
    for all tokens, everything else for the last token of each pair."""
    size, wide = layout.hidden_size, layout.intermediate_size
    query, key = layout.num_attention_heads * layout.head_dim, layout.num_key_value_heads * layout.head_dim
    documents, prefix, tail = workload.documents, workload.prefix, workload.tail
    rows = prefix + documents * tail
    seen = prefix * (prefix + 1) / 2 + documents * (tail * prefix + tail * (tail + 1) / 2)
    keys, rest = 2 * size * key, 2 * size * query + 3 * size * wide
    whole = 2 * rows * (keys + rest) + 4 * query * seen
    last = 2 * (rows * keys + documents * rest) + 4 * query * documents * (prefix + tail)
    return float((layout.num_hidden_layers - 1) * whole + last)
