"""The kernels for every instruction set, each skipped where the processor lacks it."""

from __future__ import annotations

import shutil

import pytest

from rerankd.engine.native.cpu.library import LIBRARY, CpuKernels, load_library, usable_isas

ISAS = ("baseline", "avx2", "avx512", "avx512_bf16", "amx", "neon")


def kernels_for(isa: str) -> CpuKernels:
    if not LIBRARY.exists() and shutil.which("cc") is None:
        pytest.skip("there is no C compiler that could build the kernels")
    library = load_library(LIBRARY)
    if isa not in usable_isas(library):
        pytest.skip(f"this processor does not run {isa}")
    return CpuKernels(library, isa)


@pytest.fixture(params=ISAS)
def kernels(request: pytest.FixtureRequest) -> CpuKernels:
    return kernels_for(request.param)


@pytest.fixture
def avx2() -> CpuKernels:
    return kernels_for("avx2")


@pytest.fixture
def amx() -> CpuKernels:
    return kernels_for("amx")
