"""Forward passes on CUDA: one copy to the card, no wait but for the scores, and CUDA graphs for small batches.

A small pass is over before the host has launched its kernels one after another. So a CUDA graph is captured when a
bucketed size is used for the second time, and from then on all its kernels are launched at once. For passes to be of
few sizes, batches are padded with tokens and tasks whose results nobody reads. Graphs share one memory pool.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from rerankd.engine.base import Batch
from rerankd.engine.native.backend import Run
from rerankd.engine.native.config import ModelConfig
from rerankd.engine.native.cuda.attention_metadata import (
    RANGE_FIELDS,
    TASK_FIELDS,
    AttentionKernel,
    AttentionMetadata,
    Sizes,
    metadata_of,
    prefill_block,
)
from rerankd.engine.native.forward_batch import ForwardBatch
from rerankd.engine.native.kv_cache import KVCache, PrefixKV

_MAX_TOKENS: Final = 16_384
"""Larger passes keep the card busy for longer than the host needs to launch their kernels."""
_MAX_GRAPHS: Final = 64
_ALIGNMENT: Final = 4
"""Arrays begin at multiples of so many int32 numbers: 16 bytes, which kernels read at once."""


class CudaGraphRunner:
    """Lays batches out for one model and runs it on them.

    Args:
        cache: keys and values of cached prefixes; graphs read and write it where it lies.
        attention: the kernel, `ops.attention` on a card.
        max_tokens: of passes that are captured.
        max_graphs: that are held; the least recently used goes first.
    """

    def __init__(
        self,
        config: ModelConfig,
        device: torch.device,
        cache: KVCache,
        attention: AttentionKernel,
        *,
        max_tokens: int = _MAX_TOKENS,
        max_graphs: int = _MAX_GRAPHS,
    ) -> None:
        self._device = device
        self._cache = cache
        self._attention = attention
        self._max_tokens = max_tokens
        self._max_graphs = max_graphs
        group_size = config.heads // config.kv_heads
        self._block = prefill_block(group_size, config.head_dim)
        self._max_queries = self._block // group_size
        self.clear()

    def clear(self) -> None:
        """Drop all graphs, and the memory they work in."""
        self._graphs: OrderedDict[Sizes, CapturedGraph] = OrderedDict()
        """Least recently used first."""
        self._pool: CapturePool | None = None

    def plan(self, batch: Batch) -> ForwardBatch:
        """Send what the pass of ``batch``, which has pairs, has to know; nobody waits for the copy."""
        sizes = Sizes.of(batch, self._max_queries)
        is_large = sizes.tokens > self._max_tokens
        inputs = self._inputs(sizes) if is_large else self._graph(sizes.padded()).inputs
        metadata = metadata_of(batch, self._max_queries, inputs.sizes.tokens)
        inputs.write(metadata, padding={"written_slots": self._cache.slots})
        return inputs.forward_batch

    def run(self, model: Run, forward_batch: ForwardBatch) -> torch.Tensor:
        """Scores, float32 (n,), of the batch's pairs; others may follow, which mean nothing."""
        graph = next((one for one in self._graphs.values() if one.inputs.forward_batch is forward_batch), None)
        if graph is None or self._device.type != "cuda":
            return model(forward_batch)
        with torch.cuda.device(self._device):
            self._pool = self._pool or CapturePool()
            return graph.run(model, self._pool)

    def _graph(self, sizes: Sizes) -> CapturedGraph:
        found = self._graphs.pop(sizes, None) or CapturedGraph(self._inputs(sizes))
        self._graphs[sizes] = found
        if len(self._graphs) > self._max_graphs:
            self._graphs.popitem(last=False)
        return found

    def _inputs(self, sizes: Sizes) -> StaticInputs:
        return StaticInputs(sizes, self._device, self._cache, self._metadata)

    def _metadata(self, prefill: torch.Tensor, last_token: torch.Tensor, ranges: torch.Tensor) -> AttentionMetadata:
        return AttentionMetadata(prefill, last_token, ranges, self._attention, self._block)


_MakeMetadata: TypeAlias = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], AttentionMetadata]


class StaticInputs:
    """The numbers of one pass on the host and on the device, and its `ForwardBatch`, which is made of the latter."""

    def __init__(self, sizes: Sizes, device: torch.device, cache: KVCache, make: _MakeMetadata) -> None:
        self.sizes = sizes
        if sizes.cached or sizes.written:
            # Before anything is captured: a graph must not own the cache's memory.
            cache.allocated()
        counts = {
            "ids": sizes.tokens,
            "positions": sizes.tokens,
            "last": sizes.pairs,
            "prefill": sizes.tasks * TASK_FIELDS,
            "last_token": sizes.pairs * TASK_FIELDS,
            "ranges": sizes.ranges * RANGE_FIELDS,
            "read_slots": sizes.cached,
            "written_rows": sizes.written,
            "written_slots": sizes.written,
        }
        spaces = [-(-count // _ALIGNMENT) * _ALIGNMENT for count in counts.values()]
        # From pinned memory the device copies by itself, and nobody waits.
        self._host = torch.zeros(sum(spaces), dtype=torch.int32, pin_memory=device.type == "cuda")
        self._sent = torch.empty_like(self._host, device=device)
        self._arrays = dict(zip(counts, torch.split(self._host, spaces), strict=True))
        parted = zip(counts.items(), torch.split(self._sent, spaces), strict=True)
        sent = {name: part[:count] for (name, count), part in parted}
        self.forward_batch = ForwardBatch(
            ids=sent["ids"],
            positions=sent["positions"],
            last=sent["last"],
            attention=make(
                sent["prefill"].view(-1, TASK_FIELDS),
                sent["last_token"].view(-1, TASK_FIELDS),
                sent["ranges"].view(-1, RANGE_FIELDS),
            ),
            prefix_kv=PrefixKV(cache, sent["read_slots"], sent["written_rows"], sent["written_slots"]),
        )

    def write(self, metadata: Mapping[str, NDArray[np.integer]], padding: Mapping[str, int]) -> None:
        """Fill in and send. What is left is ``padding`` or 0: the first token again, and tasks without queries."""
        for name, numbers in metadata.items():
            array = self._arrays[name].numpy()
            array[: len(numbers)] = numbers
            array[len(numbers) :] = padding.get(name, 0)
        self._sent.copy_(self._host, non_blocking=True)


class CapturePool:
    """Where graphs are captured: a stream of their own, and memory that all of them work in, one after another."""

    def __init__(self) -> None:
        self.stream: torch.cuda.Stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self.handle = torch.cuda.graph_pool_handle()


class CapturedGraph:
    """The pass of one bucketed size."""

    def __init__(self, inputs: StaticInputs) -> None:
        self.inputs = inputs
        self._has_run = False
        self._graph: torch.cuda.CUDAGraph | None = None
        self._scores = torch.empty(0)

    def run(self, model: Run, pool: CapturePool) -> torch.Tensor:
        """Scores of the inputs as they are now."""
        if not self._has_run:
            # Many a size comes once; and kernels have to be compiled and loaded before a capture.
            self._has_run = True
            return model(self.inputs.forward_batch)
        if not self._graph:
            self._graph = self._capture(model, pool)
        self._graph.replay()
        return self._scores

    def _capture(self, model: Run, pool: CapturePool) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        pool.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(pool.stream):
            # Other threads may do with the card what they like meanwhile: load the next model, for one.
            graph.capture_begin(pool=pool.handle, capture_error_mode="thread_local")
            try:
                self._scores = model(self.inputs.forward_batch)
            except BaseException:
                with suppress(RuntimeError):
                    graph.capture_end()
                raise
            graph.capture_end()
        torch.cuda.current_stream().wait_stream(pool.stream)
        return graph
