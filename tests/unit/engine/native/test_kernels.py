"""The C kernels give what torch gives; without a compiler the engine runs all the same."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.checkpoints import Layout, write_checkpoint
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.unit.engine.native.shapes import GROUPS, KEPT, Shape, batch_of, placed_of

from rerankd.engine.base import EngineOptions, HeadSpec
from rerankd.engine.native import engine as native
from rerankd.engine.native.activations import ZERO_POINT, AmxPackedActivations, QuantizedTensor
from rerankd.engine.native.cpu import library as module
from rerankd.engine.native.cpu.attention_sdpa import PaddedSDPA
from rerankd.engine.native.cpu.attention_varlen import VarlenAttention
from rerankd.engine.native.cpu.library import CpuKernels
from rerankd.engine.native.cpu.linear_amx import AmxLinear, in_place, pack_int8
from rerankd.engine.native.cpu.selftest import kernels
from rerankd.engine.native.cpu.torch_ops import TorchOps

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="the C kernels need a C compiler")
FORMATS = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.uint8: 4e-2}
"""How far the numbers of each format may be apart: a step of rounding, of numbers up to about 5."""


@pytest.fixture(scope="module")
def built() -> CpuKernels:
    found = kernels()
    assert found is not None, "there is a compiler, so the kernels have to build and to agree with torch"
    return found


@pytest.fixture
def no_kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    kernels.cache_clear()
    monkeypatch.setattr(module.shutil, "which", lambda _: None)
    yield
    kernels.cache_clear()


def random(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


def whole(found: QuantizedTensor) -> torch.Tensor:
    if found.values.dtype != torch.uint8:
        return found.values.float()
    assert found.scales is not None
    return (found.values.float() - ZERO_POINT) * found.scales[:, None]


def scaled(*shape: int, dtype: torch.dtype) -> QuantizedTensor:
    return QuantizedTensor(random(*shape, dtype=dtype), random(shape[0]).abs() + 0.5)


@needs_compiler
@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("added", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("width", [64, 100, 1024])
def test_norm_is_that_of_torch(built: CpuKernels, dtype: torch.dtype, added: torch.dtype, width: int) -> None:
    weight, more = random(width), scaled(9, width, dtype=added)
    rows = [random(9, width), random(9, width)]
    found = [
        pieces.add_rms_norm(at, more, weight, 1e-6, dtype)
        for pieces, at in zip((built, TorchOps()), rows, strict=True)
    ]
    assert torch.allclose(rows[0], rows[1], atol=1e-5)
    assert (whole(found[0]) - whole(found[1])).abs().max() <= FORMATS[dtype]


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_turn_is_that_of_torch_on_a_slice_of_wider_rows(built: CpuKernels, dtype: torch.dtype) -> None:
    wide, angles = random(7, 200, dtype=dtype), random(7, 16)
    heads = QuantizedTensor(wide[:, 8:136], random(7).abs()).split_heads(32)
    out = [torch.empty(7, 4, 32, dtype=dtype) for _ in range(2)]
    for pieces, at in zip((built, TorchOps()), out, strict=True):
        pieces.qk_norm_rope(heads, random(4, 32), 1e-6, (angles.cos(), angles.sin()), at)
    assert (out[0].float() - out[1].float()).abs().max() <= FORMATS[dtype]


@needs_compiler
@pytest.mark.parametrize("dtype", FORMATS)
def test_gate_is_that_of_torch(built: CpuKernels, dtype: torch.dtype) -> None:
    both = random(5, 400) * 3
    gate, up = QuantizedTensor(both[:, :200]), QuantizedTensor(both[:, 200:])
    found, expected = built.silu_and_mul(gate, up, dtype), TorchOps().silu_and_mul(gate, up, dtype)
    largest = float(whole(expected).abs().max())
    assert (whole(found) - whole(expected)).abs().max() <= FORMATS[dtype] * max(1.0, largest / 5)


@needs_compiler
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_none_is_not_lost_in_eight_bits(built: CpuKernels, value: float) -> None:
    both = random(2, 128)
    both[1, 3] = value
    gate = built.silu_and_mul(QuantizedTensor(both[:, :64]), QuantizedTensor(both[:, 64:]), torch.uint8)
    assert gate.scales is not None
    assert torch.isfinite(gate.scales).tolist() == [True, False]


@needs_compiler
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@given(GROUPS, KEPT, st.sampled_from([(4, 4, 32), (8, 2, 64), (4, 1, 128)]))
@example([(1030, [1300, 40, 513]), (0, [700])], [37, 0, 0, 0], (4, 2, 32))  # several chunks of keys, and runs
@settings(deadline=None, max_examples=40)
def test_packed_rows_attend_as_stacks_do(
    dtype: torch.dtype, bound: float, shape: Shape, kept: list[int], sizes: tuple[int, int, int]
) -> None:
    built = kernels()
    heads, kv_heads, d = sizes
    if built is None or not VarlenAttention.supports(built, dtype, d):
        pytest.skip("this processor has no AMX tiles")
    placed = placed_of(shape, kept)
    keys, values = (random(placed.computed + max(kept), kv_heads, d, dtype=dtype) for _ in range(2))
    queries = random(placed.computed, heads, d, dtype=dtype)
    packed, stacks = (
        VarlenAttention(placed, built, heads // kv_heads),
        PaddedSDPA(placed, torch.device("cpu"), torch.float32),
    )
    wide = [queries.float(), keys.float(), values.float()]
    assert (packed.prefill(queries, keys, values) - stacks.prefill(*wide)).abs().max() <= bound
    last = torch.from_numpy(placed.last)
    found = packed.last_token(queries[last], keys, values)
    assert (found - stacks.last_token(wide[0][last], *wide[1:])).abs().max() <= bound


@needs_compiler
@pytest.mark.parametrize("shape", [(1, 32, 32), (33, 96, 96), (200, 1056, 64), (257, 2080, 32)])
def test_a_product_in_tiles_is_one_in_float32(built: CpuKernels, shape: tuple[int, int, int]) -> None:
    if not built.has_amx:
        pytest.skip("this processor has no AMX tiles")
    count, size, outs = shape
    rows, weight, wide = random(count, size), random(outs, size, dtype=torch.bfloat16), torch.full((count, 128), 7.0)
    built.gemm_packed(built.pack(rows, torch.float32), in_place(weight), wide[:, 8 : 8 + outs])
    exact = rows.double() @ weight.double().t()
    error = (wide[:, 8 : 8 + outs] - exact).abs().max()
    assert error <= max(2 * (rows @ weight.float().t() - exact).abs().max(), 1e-5)
    assert (wide[:, :8] == 7).all()
    assert (wide[:, 8 + outs :] == 7).all(), "nothing beside the slice is written"


@pytest.mark.parametrize("threads", [1, 2, 40])
@pytest.mark.parametrize("shape", [(1, 64, 64), (33, 192, 64), (70, 1088, 320), (200, 320, 1024)])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.bfloat16, 2e-2), (torch.uint8, 5e-2)])
def test_a_product_in_tiles_is_the_product_in_fewer_bits(
    built: CpuKernels, shape: tuple[int, int, int], dtype: torch.dtype, bound: float, threads: int
) -> None:
    if not built.has_amx:
        pytest.skip("this processor has no AMX tiles")
    count, size, outs = shape
    rows, weight = random(count, size), random(outs, size, dtype=torch.bfloat16)
    exact = rows @ weight.float().t()
    panels = pack_int8(weight) if dtype == torch.uint8 else in_place(weight)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        (product,) = AmxLinear(built, [panels], torch.bfloat16)(QuantizedTensor(rows.bfloat16()))
    finally:
        torch.set_num_threads(before)
    assert (product.values.float() - exact).abs().max() <= bound * exact.abs().max()


@needs_compiler
@pytest.mark.parametrize("threads", [1, 2, 40])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, 64, 64), (33, 192, 64), (200, 1056, 96), (5, 48, 8208)])
def test_a_product_in_vectors_is_one_in_float32(
    built: CpuKernels, shape: tuple[int, int, int], dtype: torch.dtype, threads: int
) -> None:
    if not built.has_avx2:
        pytest.skip("this processor has no AVX2")
    count, size, outs = shape
    rows, weight, wide = random(count, size), random(outs, size, dtype=dtype), torch.full((count, outs + 24), 7.0)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        built.gemm(rows, weight, wide[:, 8 : 8 + outs])
    finally:
        torch.set_num_threads(before)
    exact = rows.double() @ weight.double().t()
    error = (wide[:, 8 : 8 + outs] - exact).abs().max()
    assert error <= max(2 * (rows @ weight.float().t() - exact).abs().max(), 1e-5)
    assert (wide[:, :8] == 7).all()
    assert (wide[:, 8 + outs :] == 7).all(), "nothing beside the slice is written"


@needs_compiler
@pytest.mark.parametrize("shape", [(1, 64, 64), (33, 192, 64), (200, 1056, 96), (5, 48, 8208)])
def test_a_product_in_vectors_is_exact_in_eight_bits(built: CpuKernels, shape: tuple[int, int, int]) -> None:
    if not built.has_avx2:
        pytest.skip("this processor has no AVX2")
    count, size, outs = shape
    generator = torch.Generator().manual_seed(1)
    rows = torch.randint(0, 256, (count, size), generator=generator).to(torch.uint8)
    weight = torch.randint(-127, 128, (outs, size), generator=generator).to(torch.int8)
    rows[0], weight[:2], scales = 255, 127, random(outs).abs()
    out = torch.empty(count, outs)
    built.gemm(rows, weight, out, scales)
    sums = (rows.double() - ZERO_POINT) @ weight.double().t()
    assert torch.equal(out, sums.float() * scales)


@pytest.mark.usefixtures("no_kernels")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_without_a_compiler_the_engine_runs_on_torch_and_says_so(tmp_path: Path, dtype: str) -> None:
    folder = write_checkpoint(tmp_path, Layout(), dtype=torch.bfloat16)
    options = EngineOptions(folder=folder, head=HeadSpec("words", 9, 8), device="cpu", dtype=dtype)
    plain = native.NativeEngine(options)
    plain.load()
    assert "no C kernels" in plain.info.details
    batch = batch_of([(10, [5, 40]), (0, [7])])
    truth = native.NativeEngine(EngineOptions(folder=folder, head=options.head, device="cpu", dtype="float32"))
    truth.load()
    assert np.abs(plain.score(batch) - truth.score(batch)).max() <= 0.2


@needs_compiler
def test_a_folder_that_others_can_write_to_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.Path, "home", lambda: tmp_path)
    folder = tmp_path / ".cache" / "rerankd" / "kernels"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    assert module._built() is None
    folder.chmod(0o700)
    assert module._built() is not None


@needs_compiler
@pytest.mark.parametrize(
    ("name", "place"),
    [("silu_and_mul", None), ("qk_norm_rope", 4), ("attention", 3), ("gemm_packed", 2), ("gemm", 2)],
)
def test_kernels_that_do_not_give_what_torch_gives_are_not_used(
    name: str, place: int | None, built: CpuKernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "gemm_packed" and not built.has_amx:
        pytest.skip("this processor has no AMX tiles")
    if name == "gemm" and not built.has_avx2:
        pytest.skip("this processor has no AVX2")
    right = getattr(CpuKernels, name)

    def wrong(self: CpuKernels, *arguments: Any) -> Any:
        """The right numbers but for one."""
        returned = right(self, *arguments)
        written = returned.values if place is None else arguments[place]
        written = written.tiles.view(torch.bfloat16) if isinstance(written, AmxPackedActivations) else written
        written.view(-1)[0] += 1.0
        return returned

    kernels.cache_clear()
    with monkeypatch.context() as patched:
        patched.setattr(CpuKernels, name, wrong)
        assert kernels() is None
    kernels.cache_clear()
