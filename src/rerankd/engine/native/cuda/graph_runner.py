"""Forward passes on CUDA: one copy to the card, no wait but for the scores, and small passes replayed.

A small pass is over before the host has named its kernels one after another. So the second pass of a size is
recorded, and from then on all its kernels are started at once. That passes may be of few sizes, their batches are
filled up with rows and lines that nobody looks at.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import numpy as np
import torch

from rerankd.engine.base import Batch
from rerankd.engine.native.config import ModelConfig
from rerankd.engine.native.cuda.attention_metadata import (
    Attend,
    AttentionMetadata,
    Numbers,
    Sizes,
    metadata_of,
    prefill_block,
    round_up_to_bucket,
)
from rerankd.engine.native.forward_batch import ForwardBatch
from rerankd.engine.native.kept import Beginning, Exchange, Known, Loan

_MOST_ROWS = 16_384
"""Larger passes keep the card busy for longer than the host needs to start their kernels."""
_MAX_GRAPHS = 64
_ALIGNED = 4
"""Arrays begin at multiples of so many numbers: 16 bytes, which kernels read at once."""

Run = Callable[[ForwardBatch], torch.Tensor]
_LayOut = Callable[[torch.Tensor, torch.Tensor], AttentionMetadata]


class CudaGraphRunner:
    """Plans batches for one model and runs it on them.

    Args:
        most_kept: tokens that are kept from earlier passes, at most.
        attend: what computes attention, `pieces.attend` on a card.
        most_rows: of passes that are recorded.
    """

    def __init__(
        self,
        config: ModelConfig,
        device: torch.device,
        dtype: torch.dtype,
        most_kept: int,
        attend: Attend,
        most_rows: int = _MOST_ROWS,
    ) -> None:
        self._device = device
        self._attend = attend
        self._most_rows = most_rows
        shared = config.heads // config.kv_heads
        self._block = prefill_block(shared, config.head_dim)
        self._most = self._block // shared
        self._kept_shape = (config.layers, 2, round_up_to_bucket(most_kept), config.kv_heads, config.head_dim)
        self._dtype = dtype
        self.clear()

    def clear(self) -> None:
        """Let all recordings go, and the memory they work in."""
        self._recordings: OrderedDict[Sizes, CapturedGraph] = OrderedDict()
        """Least recently used first."""
        self._kept: torch.Tensor | None = None
        """Where recorded passes find kept rows, (layers, 2, rows, kv_heads, d); keys, then values."""
        self._lent: Sequence[Known] = ()
        """What lies there."""
        self._place: CapturePool | None = None

    def plan(self, batch: Batch, loan: Loan) -> ForwardBatch:
        """Send what the pass of ``batch``, which has pairs, has to know; nobody waits for the copy."""
        sizes = Sizes.of(batch, loan, self._most)
        if sizes.wanted or sizes.rows > self._most_rows:
            sheet = StaticInputs(sizes, self._device, self._lay_out, loan.parts)
        else:
            sheet = self._recording(sizes.padded()).sheet
            self._lend(loan.parts)
        sheet.write(metadata_of(batch, loan, self._most, sheet.sizes.rows))
        return sheet.plan

    def run(self, model: Run, plan: ForwardBatch) -> torch.Tensor:
        """Scores, float32 (n,), of the pairs of the plan; others may follow, which mean nothing."""
        recording = next((one for one in self._recordings.values() if one.sheet.plan is plan), None)
        if recording is None or self._device.type != "cuda":
            return model(plan)
        with torch.cuda.device(self._device):
            self._place = self._place or CapturePool()
            return recording.run(model, self._place)

    def _recording(self, sizes: Sizes) -> CapturedGraph:
        found = self._recordings.pop(sizes, None)
        if not found:
            kept = self._rows()[:, :, : sizes.kept]
            part = Known(Beginning(np.zeros(sizes.kept, dtype=np.int32), tuple(kept)), sizes.kept)
            found = CapturedGraph(StaticInputs(sizes, self._device, self._lay_out, (part,) if sizes.kept else ()))
        self._recordings[sizes] = found
        if len(self._recordings) > _MAX_GRAPHS:
            self._recordings.popitem(last=False)
        return found

    def _lay_out(self, every: torch.Tensor, last: torch.Tensor) -> AttentionMetadata:
        return AttentionMetadata(every, last, self._attend, self._block)

    def _rows(self) -> torch.Tensor:
        if self._kept is None:
            self._kept = torch.zeros(self._kept_shape, dtype=self._dtype, device=self._device)
        return self._kept

    def _lend(self, parts: Sequence[Known]) -> None:
        """Bring kept rows where recordings look for them, unless they are there from the last time."""
        if not parts or parts == self._lent:
            return
        at = 0
        for part in parts:
            for layer, rows in zip(self._rows(), part.beginning.layers, strict=True):
                layer[:, at : at + part.tokens] = rows[:, : part.tokens]
            at += part.tokens
        self._lent = parts


class StaticInputs:
    """The numbers of one pass on the host and on the device, and its plan, which is made of the latter."""

    def __init__(self, sizes: Sizes, device: torch.device, lay_out: _LayOut, parts: Sequence[Known]) -> None:
        self.sizes = sizes
        counts = {
            "ids": sizes.rows,
            "positions": sizes.rows,
            "last": sizes.pairs,
            "every": sizes.lines * 8,
            "lasts": sizes.pairs * 8,
            "wanted": sizes.wanted,
        }
        rooms = [-(-count // _ALIGNED) * _ALIGNED for count in counts.values()]
        # From memory that the device reads by itself nobody waits for the copy.
        self._host = torch.zeros(sum(rooms), dtype=torch.int32, pin_memory=device.type == "cuda")
        self._sent = torch.empty_like(self._host, device=device)
        self._numbers = dict(zip(counts, torch.split(self._host, rooms), strict=True))
        parted = zip(counts.items(), torch.split(self._sent, rooms), strict=True)
        sent = {name: part[:count] for (name, count), part in parted}
        self.plan = ForwardBatch(
            ids=sent["ids"],
            positions=sent["positions"],
            last=sent["last"],
            attention=lay_out(sent["every"].view(-1, 8), sent["lasts"].view(-1, 8)),
            exchange=Exchange(tuple(parts), sent["wanted"] if sizes.wanted else None),
        )

    def write(self, numbers: Mapping[str, Numbers]) -> None:
        """Fill in and send. What is left is zero: the first token again, and lines without queries."""
        for name, array in numbers.items():
            place = self._numbers[name].numpy()
            place[: len(array)] = array
            place[len(array) :] = 0
        self._sent.copy_(self._host, non_blocking=True)


class CapturePool:
    """Where passes are recorded: a stream of their own, and memory that all of them work in, one after another."""

    def __init__(self) -> None:
        self.stream: torch.cuda.Stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self.pool = torch.cuda.graph_pool_handle()


class CapturedGraph:
    """The pass of one size."""

    def __init__(self, sheet: StaticInputs) -> None:
        self.sheet = sheet
        self._is_known = False
        self._graph: torch.cuda.CUDAGraph | None = None
        self._scores = torch.empty(0)

    def run(self, model: Run, place: CapturePool) -> torch.Tensor:
        """Scores of the plan as it is now."""
        if not self._is_known:
            # Many a size comes once; and what kernels need is brought along before the card may only listen.
            self._is_known = True
            return model(self.sheet.plan)
        if not self._graph:
            self._graph = self._record(model, place)
        self._graph.replay()
        return self._scores

    def _record(self, model: Run, place: CapturePool) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        place.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(place.stream):
            # Other threads may do with the card what they like meanwhile: load the next model, for one.
            graph.capture_begin(pool=place.pool, capture_error_mode="thread_local")
            try:
                self._scores = model(self.sheet.plan)
            except BaseException:
                with suppress(RuntimeError):
                    graph.capture_end()
                raise
            graph.capture_end()
        torch.cuda.current_stream().wait_stream(place.stream)
        return graph
