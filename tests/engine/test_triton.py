"""The Triton kernels compute what torch's own operations do; here interpreted, on a CPU.

The interpreter cuts numbers off where cards round them: bfloat16 is held to a step alone, and eight bits not at all,
as ``test_cuda.py`` does.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from tests.engine.cuda_on_cpu import cuda_on_cpu, plain_attention

from rerankd.engine.base import Batch
from rerankd.engine.native.activations import QuantizedTensor
from rerankd.engine.native.cpu.torch_ops import TorchOps

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")

EPS = 1e-6
STEPS = {torch.float32: 1e-6, torch.bfloat16: 2**-7}
"""The largest difference of a number, as a share of it."""


@pytest.fixture(scope="module")
def triton() -> Iterator[ModuleType]:
    """The module of pieces, its kernels interpreted."""
    ours = [f"rerankd.engine.native.cuda.{name}" for name in ("kernels", "ops")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        # Triton's own functions are interpreted only if they are so from the first import on; torch's was before.
        found = (name for name in list(sys.modules) if name.split(".")[0] == "triton" or name in ours)
        for name in found:
            if not name.startswith("triton._C"):
                patch.delitem(sys.modules, name)
        # A package keeps what was imported from it, and would give it again.
        package = importlib.import_module("rerankd.engine.native.cuda")
        for name in ours:
            patch.delattr(package, name.rpartition(".")[2], raising=False)
        yield importlib.import_module(ours[1])


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def agree(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert found.dtype == expected.dtype
    step = STEPS[found.dtype]
    assert torch.allclose(found.float(), expected.float(), rtol=step, atol=step * 1e-2)


@pytest.mark.parametrize("dtype", STEPS)
@pytest.mark.parametrize("is_first", [True, False])
def test_norms(triton: ModuleType, dtype: torch.dtype, is_first: bool) -> None:
    residuals = [random(3, 160) * 5 for _ in range(2)]
    # As a product gives it: a part of wider rows.
    added = None if is_first else QuantizedTensor(random(3, 320, seed=1).bfloat16()[:, 160:])
    weight = random(160, seed=2)
    found, expected = (
        pieces.add_rms_norm(rows, added, weight, EPS, dtype)
        for pieces, rows in zip((triton.TritonOps(), TorchOps()), residuals, strict=True)
    )
    agree(found.values, expected.values)
    assert torch.equal(*residuals)


def _with_heads(product: torch.Tensor, count: int, size: int) -> QuantizedTensor:
    return QuantizedTensor(product.unflatten(1, (count, size)))


@pytest.mark.parametrize(("count", "size"), [(16, 128), (7, 64), (1, 32)])
@pytest.mark.parametrize("is_normed", [True, False])
def test_turns(triton: ModuleType, count: int, size: int, is_normed: bool) -> None:
    product = random(5, 3 + count * size).bfloat16()[:, 3:]
    heads = (
        QuantizedTensor(product).split_heads(size)
        if count == 1
        else QuantizedTensor(product.unflatten(1, (count, size)))
    )
    weight = random(count, size, seed=1) if is_normed else None
    angles = random(5, size // 2, seed=2)
    found, expected = (torch.full((5, count, size), torch.nan, dtype=torch.bfloat16) for _ in range(2))
    triton.TritonOps().qk_norm_rope(heads, weight, EPS, (angles.cos(), angles.sin()), found)
    TorchOps().qk_norm_rope(heads, weight, EPS, (angles.cos(), angles.sin()), expected)
    agree(found, expected)


@pytest.mark.parametrize("dtype", STEPS)
@pytest.mark.parametrize("width", [160, 2100])
def test_gates(triton: ModuleType, dtype: torch.dtype, width: int) -> None:
    both = random(3, 2 * width).bfloat16() * 4
    gate, up = QuantizedTensor(both[:, :width]), QuantizedTensor(both[:, width:])
    found, expected = (pieces.silu_and_mul(gate, up, dtype) for pieces in (triton.TritonOps(), TorchOps()))
    agree(found.values, expected.values)


@pytest.mark.parametrize(
    ("heads", "kv_heads", "dtype"),
    [
        *((heads, kv_heads, torch.float32) for heads, kv_heads in ((4, 2), (7, 1))),
        (4, 2, torch.float16),
        pytest.param(4, 4, torch.float32, marks=pytest.mark.thorough),
        *(pytest.param(*heads, torch.float16, marks=pytest.mark.thorough) for heads in ((4, 4), (7, 1))),
    ],
)
def test_attention_of_every_kind_of_task(triton: ModuleType, heads: int, kv_heads: int, dtype: torch.dtype) -> None:
    """Its own segment alone, behind one range of keys and behind several, and nothing."""
    ranges = [(100, 70), (1, 65), (90, 33), (2, 31), (33, 1), (140, 30)]
    tasks = [
        (0, 5, 20, 5, 0, 0),
        (5, 2, 20, 40, 3, 3),
        (7, 7, 30, 7, 0, 1),
        (14, 3, 30, 33, 1, 2),
        (17, 9, 40, 9, 2, 6),
        (0, 0, 0, 0, 0, 0),
        (26, 1, 0, 1, 0, 6),
    ]
    queries = random(27, heads, 32, seed=1).to(dtype) * 3
    keys, values = (random(170, kv_heads, 32, seed=seed).to(dtype) for seed in (2, 3))
    tables = [torch.tensor(table, dtype=torch.int32) for table in (tasks, ranges)]
    expected = plain_attention(queries, keys, values, *tables, 128)
    found = triton.attention(queries, keys, values, *tables, 128)
    assert torch.isfinite(found).all()
    assert (found.float() - expected.float()).abs().max() <= (1e-5 if dtype == torch.float32 else 2e-2)


@pytest.mark.thorough
def test_a_whole_pass(triton: ModuleType, small_checkpoint: Path) -> None:
    """A tree of three levels, in two batches: the second reads from the cache what the first has written."""
    parents, lengths = [-1, 0, 1, 1, 0, -1], [7, 4, 3, 12, 2, 5]
    first = Batch(
        token_ids=np.arange(sum(lengths), dtype=np.int32) * 7 % 512,
        offsets=np.cumsum([0, *lengths], dtype=np.int32),
        parents=np.array(parents, dtype=np.int32),
        leaves=np.array([2, 3, 4, 5], dtype=np.int32),
        cached=np.zeros(6, dtype=bool),
        slots=np.array([*range(11), *[-1] * 22], dtype=np.int32),
    )
    second = replace(first, cached=np.array([True, True, *[False] * 4]))
    score = cuda_on_cpu(
        small_checkpoint, "float32", ops=triton.TritonOps(), attention=triton.attention, max_tokens=0, slots=16
    )
    expected = cuda_on_cpu(small_checkpoint, "float32", slots=16)(first)
    assert np.abs(score(first) - expected).max() <= 1e-4
    assert np.abs(score(second) - expected).max() <= 1e-4
