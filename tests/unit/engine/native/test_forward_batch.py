"""How batches are laid out: rows in order, each with its position, and what is cached behind them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from hypothesis import given, settings
from tests.unit.engine.native.forests import SEGMENTS, Segment, forest, path_tokens, two_levels

from rerankd.engine.native.config import Family, ModelConfig
from rerankd.engine.native.cpu.attention_sdpa import PaddedSDPA
from rerankd.engine.native.forward_batch import TokenLayout, plan_batch, slots_of
from rerankd.engine.native.kv_cache import KVCache, PrefixKV

CPU = torch.device("cpu")
CONFIG = ModelConfig(
    "Qwen3ForCausalLM", Family(True, False), False, 16, 16, 16, 2, 4, 2, 8, False, False, 1e-6, 1e6, None, 64, True,
    "float32",
)  # fmt: skip


@given(SEGMENTS)
@settings(deadline=None)
def test_positions_go_on_along_every_path(segments: Sequence[Segment]) -> None:
    batch = forest(segments)
    layout = TokenLayout.of(batch)
    assert layout.starts.tolist() == batch.starts().tolist()
    expected = {token: at for leaf in range(batch.segments) for at, token in enumerate(path_tokens(batch, leaf))}
    assert layout.positions.tolist() == [expected[token] for token in layout.ids.tolist()]


@given(SEGMENTS)
@settings(deadline=None)
def test_computed_rows_keep_the_order_of_the_batch_and_cached_ones_lie_behind(segments: Sequence[Segment]) -> None:
    batch = forest(segments)
    for computed_rows in (0, 2000):
        layout = TokenLayout.of(batch, computed_rows)
        assert layout.rows[layout.is_computed].tolist() == list(range(batch.tokens))
        first = max(computed_rows, batch.tokens)
        assert layout.rows[~layout.is_computed].tolist() == list(
            range(first, first + len(layout.rows) - batch.tokens)
        )
        assert [layout.ids[row] for row in layout.last] == [path_tokens(batch, leaf)[-1] for leaf in batch.leaves]


@given(SEGMENTS)
@settings(deadline=None)
def test_paths_lead_from_the_root_to_each_segment(segments: Sequence[Segment]) -> None:
    batch = forest(segments)
    layout = TokenLayout.of(batch)
    owners, found = layout.paths(np.arange(batch.segments))
    for segment in range(batch.segments):
        assert found[owners == segment].tolist() == batch.path(segment)
    rows = [layout.rows[path_tokens(batch, segment)] for segment in range(batch.segments)]
    assert layout.path_rows(np.arange(batch.segments)).tolist() == np.concatenate(rows).tolist()


def test_a_path_of_a_thousand_segments_is_laid_out_in_a_few_steps() -> None:
    count = 1000
    chain = forest([Segment(at, 3, False, True) for at in range(count)])
    assert TokenLayout.of(chain).starts.tolist() == list(range(0, 3 * count, 3))


@given(SEGMENTS)
@settings(deadline=None)
def test_a_layer_reads_cached_rows_by_slot_and_writes_those_that_shall_be_cached(segments: Sequence[Segment]) -> None:
    batch = forest(segments)
    cached = int(np.count_nonzero(batch.slots >= 0))
    # Every other computed token goes into a slot of its own.
    fresh = np.flatnonzero(batch.slots < 0)[::2]
    batch.slots[fresh] = cached + np.arange(len(fresh))
    cache = KVCache(CONFIG, cached + len(fresh), torch.float32, CPU)
    cache.allocated().copy_(torch.arange(2.0)[None, :, None, None, None] + 10)
    cache.allocated()[1, :, : cached + 1] = torch.arange(cached + 1.0)[None, :, None, None]
    forward_batch = plan_batch(batch, cache, CPU, lambda layout: PaddedSDPA(layout, CPU, torch.float32))
    exchange = forward_batch.prefix_kv
    keys, values = (torch.full((batch.tokens + cached, 2, 8), -5.0 - kind) for kind in range(2))
    exchange(1, keys, values)
    assert keys[batch.tokens :, 0, 0].tolist() == list(range(cached)), "the slots of the cached tokens, in order"
    assert (keys[: batch.tokens] == -5).all(), "what is computed is left alone"
    written = cache.allocated()[1][:, cached : cached + len(fresh)]
    assert (written[0] == -5).all()
    assert (written[1] == -6).all()
    assert cache.allocated()[0][:, cached:].unique().tolist() == [10.0, 11.0], "another layer's slots are untouched"


def test_rows_to_be_cached_are_those_of_their_tokens() -> None:
    batch = two_levels((3, [2, 1]))
    batch.slots[:2] = [7, 5]
    read, rows, slots = slots_of(TokenLayout.of(batch))
    assert (read.tolist(), rows.tolist(), slots.tolist()) == ([], [0, 1], [7, 5])


def test_nothing_cached_takes_no_memory() -> None:
    cache = KVCache(CONFIG, 1 << 40, torch.float32, CPU)
    nothing = torch.empty(0, dtype=torch.int64)
    PrefixKV(cache, nothing, nothing, nothing)(0, torch.empty(1, 2, 8), torch.empty(1, 2, 8))
