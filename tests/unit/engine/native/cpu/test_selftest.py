"""Kernels that are wrong, or not there, are not used, and the engine says so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.checkpoints import Layout, write_checkpoint
from tests.unit.engine.native.forests import two_levels

from rerankd.engine.base import EngineOptions, EngineOutOfMemory, HeadSpec
from rerankd.engine.native.activations import AmxPackedActivations, QuantizedTensor
from rerankd.engine.native.cpu.library import ISA_VARIABLE, CpuKernels, KernelsUnavailable
from rerankd.engine.native.cpu.selftest import usable_kernels
from rerankd.engine.native.engine import NativeEngine

BOUNDS = {"float32": 1e-5, "bfloat16": 1e-2, "int8": 4e-2}
"""Largest difference of a probability between the kernels and torch, as of the engine from the reference."""


@pytest.fixture(autouse=True)
def not_kept() -> Iterator[None]:
    usable_kernels.cache_clear()
    yield
    usable_kernels.cache_clear()


def loaded(folder: Path, dtype: str) -> NativeEngine:
    engine = NativeEngine(EngineOptions(folder=folder, head=HeadSpec("words", 9, 8), device="cpu", dtype=dtype))
    engine.load()
    return engine


def probabilities(engine: NativeEngine) -> np.ndarray:
    scores = engine.score(two_levels((10, [5, 40]), (0, [7, 70])))
    return 1 / (1 + np.exp(-scores.astype(np.float64)))


@pytest.mark.promise("F1", "F4")
@pytest.mark.parametrize("dtype", BOUNDS)
def test_without_kernels_the_engine_runs_on_torch_and_says_so(
    tmp_path: Path, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_checkpoint(tmp_path, Layout(), dtype=torch.bfloat16)
    fast = loaded(folder, dtype)
    assert fast.info.kernels == usable_kernels().isa
    usable_kernels.cache_clear()
    monkeypatch.setenv(ISA_VARIABLE, "none")
    plain = loaded(folder, dtype)
    assert plain.info.kernels == "torch"
    assert "torch alone: RERANKD_CPU_ISA is none" in plain.info.details
    expected, found = probabilities(plain), probabilities(fast)
    assert np.ptp(expected) > 0.05, "scores that are all alike would prove nothing"
    assert np.abs(found - expected).max() <= BOUNDS[dtype]
    assert (found != expected).any(), "the two did not compute the same way"


@pytest.mark.promise("F13")
@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("silu_and_mul", None),
        ("add_rms_norm", None),
        ("qk_norm_rope", 4),
        ("attention", 3),
        ("gemm_packed", 2),
        ("gemm", 2),
    ],
)
def test_kernels_that_do_not_give_what_torch_gives_are_not_used(
    name: str, place: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernels = usable_kernels()
    if (name == "gemm_packed" and not kernels.has_amx) or (name == "gemm" and not kernels.has_avx2):
        pytest.skip(f"{kernels.isa} has no {name}")
    right = getattr(CpuKernels, name)

    def wrong(self: CpuKernels, *arguments: Any) -> Any:
        """The right values but for one, and that of the largest size alone."""
        returned = right(self, *arguments)
        written = returned if place is None else arguments[place]
        if isinstance(written, AmxPackedActivations):
            written = written.tiles.view(torch.bfloat16)
        elif isinstance(written, QuantizedTensor):
            written = written.values
        if name not in ("attention", "qk_norm_rope") or written.shape[-1] == 128:
            written.view(-1)[0] += 10
        return returned

    usable_kernels.cache_clear()
    monkeypatch.setattr(CpuKernels, name, wrong)
    with pytest.raises(KernelsUnavailable, match=f"{kernels.isa} kernels do not give what torch gives: {name}"):
        usable_kernels()


@pytest.mark.promise("F11")
def test_a_kernel_without_memory_is_a_batch_that_does_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What C returns then is shown by ``driver.c``; here, what the engine makes of it."""
    engine = loaded(write_checkpoint(tmp_path, Layout(), dtype=torch.float32), "float32")
    expected = probabilities(engine)
    with monkeypatch.context() as patched:
        patched.setattr(CpuKernels, "_call", no_memory)
        with pytest.raises(EngineOutOfMemory, match="scratch memory"):
            probabilities(engine)
    assert np.array_equal(probabilities(engine), expected), "the engine goes on"


def no_memory(self: CpuKernels, name: str, *arguments: Any) -> None:
    raise MemoryError(f"scratch memory of the kernel {name}")
