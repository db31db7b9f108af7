"""The native engine on a GPU. `make test` leaves these out; run `pytest -m gpu tests/engine`."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.engine.cuda_on_cpu import plain_attention
from tests.engine.test_kv_cache import Caching, Traffic, prompts_of
from tests.unit.engine.native.forests import two_levels

from rerankd.core.prefix_tree import batch_of, separate
from rerankd.engine.base import Batch, Engine, EngineOptions, HeadSpec
from rerankd.engine.native.activations import FP8, QuantizedTensor, quantize_fp8
from rerankd.engine.native.cpu.torch_ops import TorchOps
from rerankd.engine.native.cuda.linear import Fp8Linear, has_fp8
from rerankd.engine.registry import create_engine

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
Forest = Callable[..., Batch]
Prompts = Callable[..., list[np.ndarray]]
CUDA = torch.device("cuda")
BOUNDS = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 1e-2, "fp8": 0.15}
"""Largest difference of a probability from the reference's; fp8 rounds to 3 bits, 64 numbers a row."""


def probability(scores: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-scores.astype(np.float64)))


def loaded(
    folder: Path, dtype: str, name: str = "native", device: str = "cuda", prefix_cache_tokens: int = 512
) -> Engine:
    if dtype == "fp8" and not has_fp8(CUDA):
        pytest.skip("this card does not multiply in fp8")
    head = HeadSpec("words", positive=9, negative=8)
    options = EngineOptions(folder, head, dtype=dtype, device=device, prefix_cache_tokens=prefix_cache_tokens)
    engine = create_engine(name, options)
    engine.load()
    return engine


@pytest.fixture
def batch(make_forest: Forest) -> Batch:
    return make_forest(40, 900)


@pytest.mark.parametrize("dtype", BOUNDS)
def test_native_on_cuda_agrees_with_the_reference(dtype: str, checkpoint: Path, batch: Batch) -> None:
    expected = probability(loaded(checkpoint, "float32", "reference", "cpu").score(batch))
    found = probability(loaded(checkpoint, dtype).score(batch))
    assert np.abs(found - expected).max() <= BOUNDS[dtype]


@pytest.mark.parametrize("heads", [(16, 8), (4, 4), (32, 8), (14, 2)])
@pytest.mark.parametrize("size", [32, 128, 256])
@pytest.mark.parametrize("block", [16, 64, 128])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_attention_of_every_kind_of_task(
    heads: tuple[int, int], size: int, block: int, dtype: torch.dtype, rng: np.random.Generator
) -> None:
    from rerankd.engine.native.cuda.ops import attention

    most = block // (heads[0] // heads[1])
    tasks, ranges, first = [(0,) * 6], [], 0
    for depth, own in rng.integers(0, [4, 200], (40, 2)).tolist():
        count = int(rng.integers(1, most + 1))
        begin = len(ranges)
        ranges += rng.integers([0, 1], [1000, 200], (depth, 2)).tolist()
        tasks.append((first, count, int(rng.integers(0, 1000)), own + count, begin, len(ranges)))
        first += count
    generator = torch.Generator(CUDA).manual_seed(1)

    def random(rows: int, count: int) -> torch.Tensor:
        return torch.randn(rows, count, size, generator=generator, device=CUDA).to(dtype)

    # Rows that no task has are filled up with in the network too.
    queries, keys, values = random(first + 3, heads[0]), random(1500, heads[1]), random(1500, heads[1])
    tables = [torch.tensor(table, dtype=torch.int32, device=CUDA) for table in (tasks, ranges)]
    found = attention(queries, keys, values, *tables, block)[:first]
    expected = plain_attention(queries, keys, values, *tables, block)[:first]
    assert (found.float() - expected.float()).abs().max() <= 2e-2


@pytest.mark.parametrize("width", [1024, 2560, 9728])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, FP8])
def test_the_pieces_compute_what_torch_does(width: int, dtype: torch.dtype) -> None:
    """But for another order of sums, which may round the last step off."""
    from rerankd.engine.native.cuda.ops import TritonOps

    generator = torch.Generator(CUDA).manual_seed(1)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, device=CUDA)

    both, weight, residual = random(77, 2 * width).bfloat16(), random(width), random(77, width)
    parts = [QuantizedTensor(part) for part in both.split(width, dim=1)]
    found, expected = ([], [])
    for pieces, out in ((TritonOps(), found), (TorchOps(), expected)):
        rows = residual.clone()
        out += [
            pieces.add_rms_norm(rows, None, weight, 1e-6, dtype),
            pieces.add_rms_norm(rows, parts[1], weight, 1e-6, dtype),
        ]
        out += [QuantizedTensor(rows), pieces.silu_and_mul(*parts, dtype)]
    for left, right in zip(found, expected, strict=True):
        numbers = [part.dequantize().float() for part in (left, right)]
        step = {torch.float32: 1e-6, FP8: 2**-3}.get(left.values.dtype, 2**-7)
        assert torch.allclose(*numbers, rtol=step, atol=step * 1e-2)
        assert (numbers[0] - numbers[1]).norm() <= 2e-3 * numbers[1].norm()


@pytest.mark.parametrize("is_normed", [True, False])
@pytest.mark.parametrize("count", [8, 14, 32])
def test_the_turns_are_those_of_torch(is_normed: bool, count: int) -> None:
    from rerankd.engine.native.cuda.ops import TritonOps

    generator = torch.Generator(CUDA).manual_seed(1)
    product = torch.randn(55, (count + 4) * 128, generator=generator, device=CUDA).bfloat16()
    heads = QuantizedTensor(product[:, 256 : 256 + count * 128].unflatten(1, (count, 128)))
    weight = torch.rand(count, 128, generator=generator, device=CUDA) if is_normed else None
    angles = torch.rand(55, 64, generator=generator, device=CUDA) * 6
    found, expected = (torch.empty(55, count, 128, dtype=torch.bfloat16, device=CUDA) for _ in range(2))
    for pieces, out in ((TritonOps(), found), (TorchOps(), expected)):
        pieces.qk_norm_rope(heads, weight, 1e-6, (angles.cos(), angles.sin()), out)
    assert torch.allclose(found.float(), expected.float(), rtol=2**-7, atol=2**-9)


@pytest.mark.parametrize("dtype", ["bfloat16", "fp8"])
def test_a_captured_graph_gives_the_scores_of_its_first_run(dtype: str, small_checkpoint: Path) -> None:
    """Batches of like size in turns, each of which finds nothing of the last one."""
    batches = [two_levels((20, [count, 40, 33, 70 - count])) for count in (20, 30, 21, 31)]
    fresh = loaded(small_checkpoint, dtype)
    expected = []
    for batch in batches:
        expected.append(fresh.score(batch))
        fresh.close()
        fresh.load()
    engine = loaded(small_checkpoint, dtype)
    for _ in range(3):
        for batch, scores in zip(batches, expected, strict=True):
            assert np.array_equal(engine.score(batch), scores)
    assert any(graph._graph for graph in engine._backend._runner._graphs.values())


@pytest.mark.parametrize("rows", [1, 2, 17, 1000])
@pytest.mark.parametrize("has_bias", [False, True])
def test_fp8_products_on_the_card_are_those_of_the_arithmetic(rows: int, has_bias: bool) -> None:
    if not has_fp8(CUDA):
        pytest.skip("this card does not multiply in fp8")
    generator = torch.Generator().manual_seed(1)
    weight, given = (torch.randn(count, 1024, generator=generator).bfloat16() for count in (3072, rows))
    biases = [torch.randn(3072, generator=generator).bfloat16()] if has_bias else None

    (weights, scales), (values, row_scales) = (quantize_fp8(part.to(CUDA)) for part in (weight, given))
    expected = (values.float() * row_scales[:, None]) @ (weights.float() * scales[:, None]).T
    if biases is not None:
        expected += biases[0].to(CUDA)
    product = Fp8Linear([weight.to(CUDA)], torch.bfloat16, None if biases is None else [biases[0].to(CUDA)])
    (found,) = product(QuantizedTensor(values, row_scales))
    assert (found.values - expected).norm() <= 1e-2 * expected.norm()


@pytest.mark.parametrize("writes", [False, True])
@pytest.mark.parametrize("dtype", ["bfloat16", "fp8"])
def test_a_pass_waits_for_the_device_once_for_its_scores(
    dtype: str, writes: bool, small_checkpoint: Path, batch: Batch
) -> None:
    engine = loaded(small_checkpoint, dtype, slots=2048)
    engine.warm_up()
    if writes:
        batch.slots[:100] = np.arange(100)
    # The second pass of a size is captured.
    for _ in range(3):
        engine.score(batch)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            torch.cuda.set_sync_debug_mode("warn")
            engine.score(batch)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    waits = [str(one.message) for one in warned if "synchronizing CUDA operation" in str(one.message)]
    assert len(waits) == 1, waits


@pytest.mark.parametrize("dtype", ["bfloat16", "fp8"])
def test_after_warm_up_nothing_is_compiled_any_more(
    dtype: str, small_checkpoint: Path, rng: np.random.Generator
) -> None:
    from rerankd.engine.native.cuda import kernels

    def variants() -> int:
        return sum(
            len(device[0])
            for kernel in (kernels.add_rms_norm, kernels.qk_norm_rope, kernels.silu_and_mul, kernels.attention)
            for device in kernel.device_caches.values()
        )

    engine = loaded(small_checkpoint, dtype)
    engine.warm_up()
    before = variants()
    assert before >= 5
    caching = Caching(engine.score)
    for requests in Traffic(rng).batches(40):
        caching.score(requests)
    assert variants() == before


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "fp8"])
def test_scores_on_cuda_are_those_of_whole_prompts(
    dtype: str, small_checkpoint: Path, rng: np.random.Generator
) -> None:
    engine = loaded(small_checkpoint, dtype)
    caching = Caching(engine.score)
    for requests in Traffic(rng).batches(40):
        expected = probability(engine.score(separate(prompts_of(requests))))
        assert np.abs(caching.score(requests) - expected).max() <= {"fp8": 0.1}.get(dtype, 1e-2)


@pytest.mark.parametrize("dtype", ["bfloat16", "fp8"])
def test_a_pair_on_cuda_scores_the_same_alone_and_in_a_crowd(
    dtype: str, small_checkpoint: Path, make_prompts: Prompts, rng: np.random.Generator
) -> None:
    engine = loaded(small_checkpoint, dtype)
    needles = make_prompts([90, 30], prefixes=1)
    alone = probability(engine.score(batch_of(needles)))
    for _ in range(8):
        crowd = make_prompts(rng.integers(1, 160, int(rng.integers(20, 40))).tolist())
        crowded = probability(engine.score(batch_of([*crowd, *needles])))[-2:]
        assert np.abs(crowded - alone).max() <= {"bfloat16": 2e-3, "fp8": 5e-2}[dtype]


def test_warm_up_on_cuda_finds_a_budget_that_fits(checkpoint: Path) -> None:
    engine = loaded(checkpoint, "auto")
    engine.warm_up()
    assert engine.info.max_batch_tokens >= 8192
    prompt = np.zeros(engine.info.max_batch_tokens // 64, dtype=np.int32)
    assert np.isfinite(engine.score(separate([prompt] * 64))).all()
