"""The Triton kernels are built for cards of every generation, which takes no card."""

from __future__ import annotations

import importlib.util
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

import pytest

from rerankd.engine.native.cuda.attention_metadata import LAST_TOKEN_BLOCK, prefill_block

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")

GENERATIONS = [80, 89, 90, 100]
"""Ampere, Ada, Hopper, Blackwell."""
LEAST_SHARED_MEMORY = 99 * 1024
"""Bytes a program may have on the smallest card from Ampere on."""
HEADS = [(2, 128), (4, 128), (1, 64), (7, 64), (2, 256)]
"""Query heads to a head of keys, and its size."""


class Built(NamedTuple):
    """A kernel's code and the bytes of shared memory that a program of it takes."""

    code: str
    shared: int


def build(kernel: str, generation: int, given: dict[str, str], constants: dict[str, Any], **options: int) -> Built:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from rerankd.engine.native.cuda import kernels

    signature = given | dict.fromkeys(constants, "constexpr")
    source = ASTSource(fn=getattr(kernels, kernel), signature=signature, constexprs=constants)
    built = triton.compile(source, target=GPUTarget("cuda", generation, 32), options=options)
    return Built(built.asm["ptx"], built.metadata.shared)


def build_attention(generation: int, shared: int, size: int, block: int) -> Built:
    from rerankd.engine.native.cuda.ops import KEYS, STAGES, WARPS

    given = dict.fromkeys(("queries", "keys", "values", "out"), "*bf16") | {"tasks": "*i32", "ranges": "*i32"}
    given |= {"query_stride": "i32", "key_stride": "i32", "scale": "fp32"}
    constants = {"GROUP": shared, "ROWS": block, "KEYS": KEYS, "HEAD_DIM": size}
    return build("attention", generation, given, constants, num_warps=WARPS, num_stages=STAGES)


Builder = Callable[..., Built]


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Builder]:
    """Calls a function in a process of its own: where Triton has built anything, it does not interpret any more."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield lambda function, *given: pool.submit(function, *given).result()


@pytest.mark.parametrize("generation", [pytest.param(80, marks=pytest.mark.slow), 90])
def test_attention_finds_room_and_multiplies_in_tensor_cores(elsewhere: Builder, generation: int) -> None:
    for block in (prefill_block(2, 128), LAST_TOKEN_BLOCK):
        kernel = elsewhere(build_attention, generation, 2, 128, block)
        assert kernel.shared <= LEAST_SHARED_MEMORY
        assert "mma.sync" in kernel.code or "wgmma" in kernel.code


@pytest.mark.slow
@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize(("shared", "size"), HEADS)
def test_attention_finds_room_for_every_kind_of_heads(
    elsewhere: Builder, shared: int, size: int, generation: int
) -> None:
    kernel = elsewhere(build_attention, generation, shared, size, prefill_block(shared, size))
    assert kernel.shared <= LEAST_SHARED_MEMORY


@pytest.mark.parametrize("out", ["*bf16", "*fp8e4nv"])
def test_what_lies_between_the_products_is_built(elsewhere: Builder, out: str) -> None:
    generation, qmax = (80, 0.0) if out == "*bf16" else (90, 448.0)
    scales = "*fp32" if qmax else out
    rows = {"residual": "*fp32", "update": "*bf16", "weight": "*fp32", "out": out, "scales": scales}
    rows |= {"update_stride": "i32", "eps": "fp32"}
    widths = {"WIDTH": 1024, "BLOCK": 1024, "QMAX": qmax}
    elsewhere(build, "add_rms_norm", generation, rows, widths | {"HAS_UPDATE": True})
    gates = {"gates": "*bf16", "ups": "*bf16", "out": out, "scales": scales, "gate_stride": "i32"}
    elsewhere(build, "silu_and_mul", generation, gates, widths)


def test_turns_are_built(elsewhere: Builder) -> None:
    given = {"heads": "*bf16", "weight": "*fp32", "cos": "*fp32", "sin": "*fp32", "out": "*bf16"}
    given |= {"heads_stride": "i32", "eps": "fp32"}
    elsewhere(build, "qk_norm_rope", 80, given, {"COUNT": 16, "BLOCK": 16, "HALF": 64, "HAS_NORM": True})
