"""The C kernels give what torch gives, for every instruction set that this processor runs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from tests.unit.engine.native.cpu.conftest import ISAS, kernels_for

from rerankd.engine.native.activations import ZERO_POINT, AmxPackedActivations, QuantizedTensor
from rerankd.engine.native.cpu import library as module
from rerankd.engine.native.cpu.library import CpuKernels, KernelsUnavailable, load_kernels
from rerankd.engine.native.cpu.linear_amx import AmxLinear, in_place, pack_int8
from rerankd.engine.native.cpu.torch_ops import TorchOps
from rerankd.errors import ConfigurationError
from rerankd.settings import load_settings

FORMATS = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.uint8: 4e-2}
"""How far values of each format may be apart: a step of rounding, of values up to about 5."""


def random(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


def whole(found: QuantizedTensor) -> torch.Tensor:
    if found.values.dtype != torch.uint8:
        return found.values.float()
    assert found.scales is not None
    return (found.values.float() - ZERO_POINT) * found.scales[:, None]


def scaled(*shape: int, dtype: torch.dtype) -> QuantizedTensor:
    return QuantizedTensor(random(*shape, dtype=dtype), random(shape[0]).abs() + 0.5)


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("added", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("width", [64, 100, 1024])
def test_add_rms_norm_is_that_of_torch(
    kernels: CpuKernels, dtype: torch.dtype, added: torch.dtype, width: int
) -> None:
    weight, more = random(width), scaled(9, width, dtype=added)
    rows = [random(9, width), random(9, width)]
    found = [
        ops.add_rms_norm(at, more, weight, 1e-6, dtype) for ops, at in zip((kernels, TorchOps()), rows, strict=True)
    ]
    assert torch.allclose(rows[0], rows[1], atol=1e-5)
    assert (whole(found[0]) - whole(found[1])).abs().max() <= FORMATS[dtype]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [32, 64, 128])
def test_qk_norm_rope_is_that_of_torch_on_a_slice_of_wider_rows(
    kernels: CpuKernels, dtype: torch.dtype, size: int
) -> None:
    wide, angles = random(7, 8 + 4 * size + 64, dtype=dtype), random(7, size // 2)
    heads = QuantizedTensor(wide[:, 8 : 8 + 4 * size], random(7).abs()).split_heads(size)
    out = [torch.empty(7, 4, size, dtype=dtype) for _ in range(2)]
    for ops, at in zip((kernels, TorchOps()), out, strict=True):
        ops.qk_norm_rope(heads, random(4, size), 1e-6, (angles.cos(), angles.sin()), at)
    assert (out[0].float() - out[1].float()).abs().max() <= FORMATS[dtype]


@pytest.mark.parametrize("dtype", FORMATS)
def test_silu_and_mul_is_that_of_torch(kernels: CpuKernels, dtype: torch.dtype) -> None:
    both = random(5, 400) * 3
    gate, up = QuantizedTensor(both[:, :200]), QuantizedTensor(both[:, 200:])
    found, expected = kernels.silu_and_mul(gate, up, dtype), TorchOps().silu_and_mul(gate, up, dtype)
    largest = float(whole(expected).abs().max())
    assert (whole(found) - whole(expected)).abs().max() <= FORMATS[dtype] * max(1.0, largest / 5)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_none_is_not_lost_in_eight_bits(kernels: CpuKernels, value: float) -> None:
    both = random(2, 128)
    both[1, 3] = value
    gate = kernels.silu_and_mul(QuantizedTensor(both[:, :64]), QuantizedTensor(both[:, 64:]), torch.uint8)
    assert gate.scales is not None
    assert torch.isfinite(gate.scales).tolist() == [True, False]


@pytest.mark.parametrize("shape", [(1, 32, 32), (33, 96, 96), (200, 1056, 64), (257, 2080, 32)])
def test_a_gemm_in_tiles_is_exact_in_float32(amx: CpuKernels, shape: tuple[int, int, int]) -> None:
    count, size, outs = shape
    rows, weight, wide = random(count, size), random(outs, size, dtype=torch.bfloat16), torch.full((count, 128), 7.0)
    amx.gemm_packed(amx.pack_activations(rows, torch.float32), in_place(weight), wide[:, 8 : 8 + outs])
    exact = rows.double() @ weight.double().t()
    error = (wide[:, 8 : 8 + outs] - exact).abs().max()
    assert error <= max(2 * (rows @ weight.float().t() - exact).abs().max(), 1e-5)
    assert (wide[:, :8] == 7).all()
    assert (wide[:, 8 + outs :] == 7).all(), "nothing beside the slice is written"


@pytest.mark.parametrize("count", [1, 2, 40])
@pytest.mark.parametrize("shape", [(1, 64, 64), (33, 192, 64), (70, 1088, 320), (200, 320, 1024)])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.bfloat16, 2e-2), (torch.uint8, 5e-2)])
def test_a_gemm_in_tiles_is_the_product_in_fewer_bits(
    amx: CpuKernels, shape: tuple[int, int, int], dtype: torch.dtype, bound: float, count: int
) -> None:
    tokens, size, outs = shape
    rows, weight = random(tokens, size), random(outs, size, dtype=torch.bfloat16)
    exact = rows @ weight.float().t()
    panels = pack_int8(weight) if dtype == torch.uint8 else in_place(weight)
    with threads(count):
        (product,) = AmxLinear(amx, [panels], torch.bfloat16)(QuantizedTensor(rows.bfloat16()))
    assert (product.values.float() - exact).abs().max() <= bound * exact.abs().max()


@pytest.mark.parametrize("count", [1, 2, 40])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, 64, 64), (33, 192, 64), (200, 1056, 96), (5, 48, 8208)])
def test_a_gemm_in_vectors_is_exact_in_float32(
    avx2: CpuKernels, shape: tuple[int, int, int], dtype: torch.dtype, count: int
) -> None:
    tokens, size, outs = shape
    rows, weight, wide = random(tokens, size), random(outs, size, dtype=dtype), torch.full((tokens, outs + 24), 7.0)
    with threads(count):
        avx2.gemm(rows, weight, wide[:, 8 : 8 + outs])
    exact = rows.double() @ weight.double().t()
    error = (wide[:, 8 : 8 + outs] - exact).abs().max()
    assert error <= max(2 * (rows @ weight.float().t() - exact).abs().max(), 1e-5)
    assert (wide[:, :8] == 7).all()
    assert (wide[:, 8 + outs :] == 7).all(), "nothing beside the slice is written"


@pytest.mark.parametrize("shape", [(1, 64, 64), (33, 192, 64), (200, 1056, 96), (5, 48, 8208)])
def test_a_gemm_in_vectors_is_exact_in_eight_bits(avx2: CpuKernels, shape: tuple[int, int, int]) -> None:
    count, size, outs = shape
    generator = torch.Generator().manual_seed(1)
    rows = torch.randint(0, 256, (count, size), generator=generator).to(torch.uint8)
    weight = torch.randint(-127, 128, (outs, size), generator=generator).to(torch.int8)
    rows[0], weight[:2], scales = 255, 127, random(outs).abs()
    out = torch.empty(count, outs)
    avx2.gemm(rows, weight, out, scales)
    sums = (rows.double() - ZERO_POINT) @ weight.double().t()
    assert torch.equal(out, sums.float() * scales)


@pytest.mark.promise("F12")
@pytest.mark.parametrize("isa", ISAS)
def test_a_kernel_that_is_not_there_says_so(isa: str) -> None:
    kernels = kernels_for(isa)
    if kernels.has_amx:
        pytest.skip("amx has every kernel")
    rows, weight = (
        AmxPackedActivations.empty(torch.Size([2, 64]), torch.float32),
        random(32, 64, dtype=torch.bfloat16),
    )
    with pytest.raises(ValueError, match=f"gemm_packed has no code .* on {isa}"):
        kernels.gemm_packed(rows, in_place(weight), torch.empty(2, 32))


@pytest.mark.promise("F12")
def test_formats_and_sizes_that_a_kernel_does_not_have_are_refused(kernels: CpuKernels) -> None:
    heads, angle = QuantizedTensor(random(1, 2048)).split_heads(2048), random(1, 1024)
    with pytest.raises(ValueError, match="qk_norm_rope"):
        kernels.qk_norm_rope(heads, None, 1e-6, (angle, angle), torch.empty(1, 1, 2048))
    wide = QuantizedTensor(random(1, module.MAX_WIDTH + 1))
    with pytest.raises(ValueError, match="silu_and_mul"):
        kernels.silu_and_mul(wide, wide, torch.float32)
    with pytest.raises(ValueError, match="add_rms_norm"):
        kernels.add_rms_norm(wide.values, None, wide.values[0], 1e-6, torch.float32)


@pytest.mark.promise("F12")
def test_a_gemm_of_sides_that_do_not_fit_is_refused(avx2: CpuKernels) -> None:
    for width, outputs in ((24, 32), (32, 24)):
        with pytest.raises(ValueError, match="gemm"):
            avx2.gemm(random(3, width), random(outputs, width), torch.empty(3, outputs))


def test_the_widest_instruction_set_is_chosen_unless_another_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    usable = module.usable_isas(module.load_library(module.LIBRARY))
    monkeypatch.delenv(module.ISA_VARIABLE, raising=False)
    assert load_kernels().isa == usable[-1]
    monkeypatch.setenv(module.ISA_VARIABLE, usable[0])
    assert load_kernels().isa == usable[0]


def test_an_instruction_set_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(module.ISA_VARIABLE, "mmx")
    with pytest.raises(ConfigurationError, match=r"RERANKD_CPU_ISA is 'mmx'; here it may be .*none"):
        load_kernels()


@pytest.mark.promise("S10")
def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KernelsUnavailable, match="installed without kernels"):
        load_kernels(tmp_path / "none.so")
    broken = tmp_path / "broken.so"
    broken.write_bytes(b"not a library")
    with pytest.raises(KernelsUnavailable, match="cannot be loaded"):
        load_kernels(broken)
    monkeypatch.setenv(module.ISA_VARIABLE, "none")
    with pytest.raises(KernelsUnavailable, match="RERANKD_CPU_ISA is none"):
        load_kernels()


@pytest.mark.promise("P10")
@pytest.mark.parametrize("share", [0.0, 0.00001, 0.0002, 0.1, 0.5, 0.9, 0.99999])
def test_a_library_that_was_cut_short_is_refused_before_the_loader_maps_it(tmp_path: Path, share: float) -> None:
    """The loader would touch pages that are not there: SIGBUS, and no process any more."""
    whole = module.LIBRARY.read_bytes()
    short = tmp_path / "short.so"
    short.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(KernelsUnavailable, match="cut short"):
        load_kernels(short)


def test_the_process_has_one_openmp_runtime() -> None:
    """Torch's: the kernels' threads and torch's are the same pool."""
    code = """if True:
        import torch
        from rerankd.engine.native.cpu.library import load_kernels
        from rerankd.engine.native.activations import QuantizedTensor
        torch.set_num_threads(3)
        rows = torch.ones(99, 64)
        torch.ones(1000, 1000) @ torch.ones(1000, 1000)
        load_kernels().silu_and_mul(QuantizedTensor(rows), QuantizedTensor(rows), torch.float32)
        files = {line.split(maxsplit=5)[-1] for line in open("/proc/self/maps") if "/" in line}
        print(*(file.strip() for file in files if "omp" in file.rsplit("/")[-1]), sep="\\n")
    """
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    (runtime,) = run.stdout.split()
    assert str(Path(torch.__file__).resolve().parent) in runtime


def test_the_variable_of_the_instruction_set_is_no_unknown_setting() -> None:
    warnings: list[str] = []
    load_settings(environ={module.ISA_VARIABLE: "baseline"}, warn=warnings.append)
    assert warnings == []
