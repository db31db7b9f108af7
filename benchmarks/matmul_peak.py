"""What the machine's own matrix products reach: the ceiling that engines are measured against."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import torch
from torch.nn import functional

FORMATS = ("float32", "bfloat16", "int8")
_SHAPES = ((2048, 1024, 6144), (2048, 3072, 1024), (2048, 2048, 2048), (4096, 4096, 4096))
"""Rows, inputs and outputs: two of the 0.6B model's own products, and two squares."""
_TURNS = 5
_ENOUGH = 3.0
"""Seconds after which a product is not tried again: without products in a format it takes minutes."""

Product = Callable[[], object]


def peaks(threads: int = 0) -> dict[str, dict[str, object]]:
    """The best rate of each format in GFLOP/s, with the product that reached it."""
    if threads:
        torch.set_num_threads(threads)
    return {name: _best(name) for name in FORMATS}


def _best(name: str) -> dict[str, object]:
    rate, words = 0.0, ""
    with torch.inference_mode():
        for rows, size, out in _SHAPES:
            for how, product in _products(name, rows, size, out):
                found = 2.0 * rows * size * out / _seconds(product) / 1e9
                if found > rate:
                    rate, words = found, f"{how}, {rows} x {size} x {out}"
    return {"rate": rate, "product": words}


def _products(name: str, rows: int, size: int, out: int) -> Iterator[tuple[str, Product]]:
    dtype = getattr(torch, name)
    left, right = torch.ones(rows, size).to(dtype), torch.ones(out, size).to(dtype)
    if dtype == torch.int8:
        yield "onednn.qlinear", _quantised(left, right)
        return
    yield "linear", lambda: functional.linear(left, right)
    if dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported():
        packed = torch.ops.mkldnn._reorder_linear_weight(right, rows)
        yield "linear, packed", lambda: torch.ops.mkldnn._linear_pointwise(left, packed, None, "none", [], "")


def _quantised(left: torch.Tensor, right: torch.Tensor) -> Product:
    packed = torch.ops.onednn.qlinear_prepack(right, None)
    scales, zeros = torch.ones(len(right)), torch.zeros(len(right), dtype=torch.int32)
    codes = left.to(torch.uint8)
    out = torch.bfloat16 if torch.ops.mkldnn._is_mkldnn_bf16_supported() else torch.float32

    def product() -> object:
        return torch.ops.onednn.qlinear_pointwise(
            codes, 1.0, 128, packed, scales, zeros, None, 1.0, 0, out, "none", [], ""
        )

    return product


def _seconds(product: Product) -> float:
    taken: list[float] = []
    while len(taken) < _TURNS and sum(taken) < _ENOUGH:
        began = time.perf_counter()
        product()
        taken.append(time.perf_counter() - began)
    return min(taken)
