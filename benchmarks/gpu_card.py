"""The card itself: its best matrix products, its memory's bandwidth, what it draws; and attention alone.

python -m benchmarks.gpu_card peaks --out card.json
python -m benchmarks.gpu_card attention --out attention.json
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from tests.checkpoints import RERANKER_0_6B, RERANKER_4B, Layout

from benchmarks.workloads import WORKLOADS, Workload
from rerankd.core.prefix_tree import batch_of

_PRODUCTS = ((16384, 2560, 9728), (16384, 9728, 2560), (8192, 8192, 8192))
"""Rows, inputs and outputs: two of the 4B model's own products, and a square."""
_TURNS = 20
_SAMPLE_MS = 100
_ATTENTION = {**WORKLOADS, "large": Workload(256, 77, 33)}

Operation = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Draw:
    """What the driver said of the whole card while something ran."""

    watts: float
    """Mean."""
    memory_mb: float
    """Most in use."""


@contextlib.contextmanager
def watched() -> Iterator[Callable[[], Draw | None]]:
    """Ask the driver all the while; the function gives what it said, None where there is no driver to ask."""
    query = ["nvidia-smi", "--query-gpu=power.draw,memory.used", "--format=csv,noheader,nounits", "-i", "0"]
    lines: list[str] = []
    try:
        process = subprocess.Popen([*query, "-lms", str(_SAMPLE_MS)], stdout=subprocess.PIPE, text=True)
    except OSError:
        yield lambda: None
        return

    def read() -> None:
        for line in process.stdout or ():
            lines.append(line)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        yield lambda: _draw(lines)
    finally:
        process.terminate()
        reader.join()
        process.wait()
        if process.stdout:
            process.stdout.close()


def _draw(lines: list[str]) -> Draw | None:
    numbers = []
    for line in lines:
        with contextlib.suppress(ValueError):  # "[N/A]", where a card does not say
            watts, memory = map(float, line.split(","))
            numbers.append((watts, memory))
    if not numbers:
        return None
    return Draw(float(np.mean([watts for watts, _ in numbers])), max(memory for _, memory in numbers))


def card() -> dict[str, str]:
    """Name, driver and power limit as the driver says them."""
    fields = "name,driver_version,power.limit,clocks.max.sm,memory.total"
    with contextlib.suppress(OSError):
        asked = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader", "-i", "0"]
        said = subprocess.run(asked, capture_output=True, text=True, check=False).stdout
        return dict(zip(fields.split(","), (part.strip() for part in said.split(",")), strict=False))
    return {}


def peaks(device: str) -> dict[str, Any]:
    """The best rate of each format in TFLOP/s, with the product that reached it, and GB/s of a copy."""
    rates: dict[str, Any] = {}
    for name, make in {"bfloat16": _bfloat16, "fp8": _fp8}.items():
        for rows, size, out in _PRODUCTS:
            with contextlib.suppress(RuntimeError, AttributeError):  # no products in this format here
                seconds = timed(make(rows, size, out, device))
                rate = 2.0 * rows * size * out / seconds / 1e12
                if rate > rates.get(name, {"rate": 0.0})["rate"]:
                    rates[name] = {"rate": rate, "product": f"{rows} x {size} x {out}"}
    source = torch.empty(1 << 28, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    rates["copy GB/s"] = 2 * source.numel() / timed(lambda: target.copy_(source)) / 1e9
    return rates


def _bfloat16(rows: int, size: int, out: int, device: str) -> Operation:
    left, right = (torch.randn(n, size, device=device, dtype=torch.bfloat16) for n in (rows, out))
    return lambda: left @ right.T


def _fp8(rows: int, size: int, out: int, device: str) -> Operation:
    left, right = (torch.randn(n, size, device=device).to(torch.float8_e4m3fn) for n in (rows, out))
    scales = [torch.ones(shape, device=device) for shape in ((rows, 1), (1, out))]
    return lambda: torch._scaled_mm(
        left, right.T, scales[0], scales[1], out_dtype=torch.bfloat16, use_fast_accum=True
    )


def timed(operation: Operation) -> float:
    """Seconds of one call, median, by the card's own clock where there is one."""
    operation()
    taken = []
    for _ in range(_TURNS):
        if not torch.cuda.is_available():
            clock = time.perf_counter()
            operation()
            taken.append(time.perf_counter() - clock)
            continue
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        began.record()
        operation()
        ended.record()
        torch.cuda.synchronize()
        taken.append(began.elapsed_time(ended) / 1e3)
    return median(taken)


def attention(layout: Layout, shape: Workload, device: str) -> dict[str, float | None]:
    """Microseconds of one layer's attention over one request, the same queries, keys and values in each row.

    ``prefix tree``: the shared prefix lies there once. The others get it once for each document: FlashAttention's
    and torch's varlen kernels attend to whole sequences.
    """
    generator = torch.Generator(device).manual_seed(0)
    heads, key_heads, head_dim = layout.num_attention_heads, layout.num_key_value_heads, layout.head_dim

    def drawn(rows: int, count: int) -> torch.Tensor:
        return torch.randn(rows, count, head_dim, device=device, generator=generator).to(torch.bfloat16)

    rows = shape.prefix + shape.documents * shape.tail
    packed = [drawn(rows, count) for count in (heads, key_heads, key_heads)]
    order = torch.cat(
        [
            torch.cat([torch.arange(shape.prefix), shape.prefix + index * shape.tail + torch.arange(shape.tail)])
            for index in range(shape.documents)
        ]
    ).to(device)
    whole = [part[order].contiguous() for part in packed]
    length = shape.prefix + shape.tail
    ends = torch.arange(0, len(order) + 1, length, dtype=torch.int32, device=device)
    found: dict[str, float | None] = {"prefix tree": _microseconds(_ours(layout, shape, packed, device))}
    for name, operation in {"flash_attn varlen": _flash, "torch varlen": _torch_varlen}.items():
        try:
            found[name] = _microseconds(operation(whole, ends, length))
        except (ImportError, RuntimeError):
            found[name] = None
    return found


def _microseconds(operation: Operation) -> float:
    return timed(operation) * 1e6


def _ours(layout: Layout, shape: Workload, packed: list[torch.Tensor], device: str) -> Operation:
    from rerankd.engine.native.cuda import ops
    from rerankd.engine.native.cuda.attention_metadata import RANGE_FIELDS, TASK_FIELDS, metadata_of, prefill_block

    rng = np.random.default_rng(0)
    prefix = rng.integers(0, 1000, shape.prefix).astype(np.int32)
    # The first tokens differ, so that documents share the prefix and nothing else.
    tails = [np.r_[1000 + n, rng.integers(0, 1000, shape.tail - 1)].astype(np.int32) for n in range(shape.documents)]
    batch = batch_of([np.concatenate([prefix, tail]) for tail in tails])
    group = layout.num_attention_heads // layout.num_key_value_heads
    block = prefill_block(group, layout.head_dim)
    metadata = metadata_of(batch, block // group, shape.prefix + shape.documents * shape.tail)
    tasks, ranges = (
        torch.from_numpy(metadata[name].astype(np.int32)).view(-1, fields).to(device)
        for name, fields in (("prefill", TASK_FIELDS), ("ranges", RANGE_FIELDS))
    )
    return lambda: ops.attention(packed[0], packed[1], packed[2], tasks, ranges, block)


def _flash(whole: list[torch.Tensor], ends: torch.Tensor, length: int) -> Operation:
    from flash_attn import flash_attn_varlen_func  # type: ignore[import-not-found,unused-ignore]

    return lambda: flash_attn_varlen_func(*whole, ends, ends, length, length, causal=True)


def _torch_varlen(whole: list[torch.Tensor], ends: torch.Tensor, length: int) -> Operation:
    from torch.nn.attention.varlen import varlen_attn

    queries, keys, values = whole
    return lambda: varlen_attn(
        queries, keys, values, ends, ends, length, length, window_size=(-1, 0), enable_gqa=True
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("peaks", "attention"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    arguments = parser.parse_args()
    if arguments.what == "peaks":
        found: dict[str, Any] = {**card(), "peaks": peaks(arguments.device)}
    else:
        layouts = {"0.6B": RERANKER_0_6B, "4B": RERANKER_4B}
        found = {
            f"{name}, {key}": attention(layout, shape, arguments.device)
            for name, layout in layouts.items()
            for key, shape in _ATTENTION.items()
            if key in ("A", "B", "large")
        }
    arguments.out.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
