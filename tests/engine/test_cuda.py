"""The native engine on a GPU. `make test` leaves these out; run `pytest -m gpu tests/engine`."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.engine.plain_varlen import packed_on_cpu, plain

from rerankd.engine.base import Batch, Engine, EngineOptions, Group, HeadSpec
from rerankd.engine.native.fp8 import Fp8Linear, has_fp8
from rerankd.engine.native.kept import Loan
from rerankd.engine.native.layers import Activations, in_fp8
from rerankd.engine.native.packing import Sight, pack
from rerankd.engine.native.varlen import Packed, flash, merge
from rerankd.engine.registry import create_engine

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
Groups = Callable[..., list[Group]]
CUDA = torch.device("cuda")
BOUNDS = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 1e-2, "fp8": 0.15}
"""Largest difference of a probability from the reference's; fp8 rounds to 3 bits, 64 numbers a row."""


def probability(scores: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-scores.astype(np.float64)))


def loaded(folder: Path, dtype: str, name: str = "native", device: str = "cuda", kept_tokens: int = 512) -> Engine:
    if dtype == "fp8" and not has_fp8(CUDA):
        pytest.skip("this card does not multiply in fp8")
    head = HeadSpec("words", positive=9, negative=8)
    options = EngineOptions(folder, head, dtype=dtype, device=device, kept_tokens=kept_tokens)
    engine = create_engine(name, options)
    engine.load()
    return engine


@pytest.fixture
def batch(make_groups: Groups) -> Batch:
    """Groups of many pairs, of one, and without a prefix."""
    groups = make_groups([5, 20, 60, 1, 90, 300, 900, 33] * 4)
    (alone,) = make_groups([70, 41], groups=1)
    return Batch.of([Group(alone.prefix[:0], alone.tails), *groups, Group(alone.prefix, alone.tails[:1])])


@pytest.mark.parametrize("dtype", BOUNDS)
def test_native_on_cuda_agrees_with_the_reference(dtype: str, checkpoint: Path, batch: Batch) -> None:
    expected = probability(loaded(checkpoint, "float32", "reference", "cpu").score(batch))
    found = probability(loaded(checkpoint, dtype).score(batch))
    assert np.abs(found - expected).max() <= BOUNDS[dtype]


@pytest.mark.parametrize("dtype", ["bfloat16", "fp8"])
def test_the_compiled_network_computes_what_the_plain_one_does(
    dtype: str, small_checkpoint: Path, batch: Batch
) -> None:
    """Rounded at other places, so not to the bit; in fp8 another rounding is a sixteenth of a number."""
    expected = probability(packed_on_cpu(small_checkpoint, dtype)(batch))
    found = probability(loaded(small_checkpoint, dtype).score(batch))
    assert np.abs(found - expected).max() <= {"bfloat16": 1e-2, "fp8": 0.1}[dtype]


@pytest.mark.parametrize("heads", [(16, 8), (4, 4), (32, 8), (4, 1)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_flash_attention_of_packed_rows_is_the_attention_of_the_definition(
    heads: tuple[int, int], dtype: torch.dtype, batch: Batch
) -> None:
    plan = pack(batch, Loan.of([None] * batch.groups), CUDA)
    generator = torch.Generator(CUDA).manual_seed(1)
    sizes = (heads[0], heads[1], heads[1])
    # As in the network: slices of one matrix, not tensors of their own.
    fused = torch.randn(len(plan.ids), sum(sizes), 128, generator=generator, device=CUDA).to(dtype)
    queries, keys, values = fused.split(sizes, dim=1)
    asking = queries[plan.last]
    for sight, asked in ((plan.every, queries), (plan.final, asking[plan.order])):
        for spans, part, seen in _calls(sight, asked, keys, values):
            found, sums = flash(part, *seen, spans)
            expected, expected_sums = plain(part, *seen, spans)
            assert sums.shape == expected_sums.shape, "the log-sum-exp is (heads, rows)"
            assert (found.float() - expected.float()).abs().max() <= 2e-2
            assert (sums - expected_sums).abs().max() <= 1e-2
    real, right = (Packed(plan, varlen, merge) for varlen in (flash, plain))
    for found, expected in (
        (real.every(queries, keys, values), right.every(queries, keys, values)),
        (real.last(asking, keys, values), right.last(asking, keys, values)),
    ):
        assert (found.float() - expected.float()).abs().max() <= 2e-2


def _calls(sight: Sight, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor):
    yield sight.own, queries, (keys[sight.own_keys], values[sight.own_keys])
    yield sight.shared, queries[sight.sharing], (keys[sight.shared_keys], values[sight.shared_keys])


@pytest.mark.parametrize("rows", [1, 2, 17, 1000])
@pytest.mark.parametrize("has_bias", [False, True])
def test_fp8_products_on_the_card_are_those_of_the_arithmetic(rows: int, has_bias: bool) -> None:
    if not has_fp8(CUDA):
        pytest.skip("this card does not multiply in fp8")
    generator = torch.Generator().manual_seed(1)
    weight, given = (torch.randn(count, 1024, generator=generator).bfloat16() for count in (3072, rows))
    biases = [torch.randn(3072, generator=generator).bfloat16()] if has_bias else None

    def product(device: str) -> torch.Tensor:
        added = None if biases is None else [bias.to(device) for bias in biases]
        (out,) = Fp8Linear([weight.to(device)], torch.bfloat16, added)(Activations(*in_fp8(given.to(device))))
        return out.values.cpu().float()

    expected, found = product("cpu"), product("cuda")
    assert (found - expected).norm() <= 1e-2 * expected.norm()


@pytest.mark.parametrize("is_kept", [False, True])
@pytest.mark.parametrize("dtype", ["bfloat16", "fp8"])
def test_a_pass_waits_for_the_device_once_for_its_scores(
    dtype: str, is_kept: bool, small_checkpoint: Path, batch: Batch
) -> None:
    engine = loaded(small_checkpoint, dtype, kept_tokens=2048 * is_kept)
    engine.warm_up()
    # A pass that keeps something takes a look at it; of this batch each group has something.
    for _ in range(1 + 20 * is_kept):
        engine.score(batch)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as waits:
            warnings.simplefilter("always")
            engine.score(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(waits) == 1, [str(wait.message) for wait in waits]


@pytest.mark.parametrize("dtype", ["bfloat16", "fp8"])
def test_after_warm_up_nothing_is_compiled_any_more(
    dtype: str, small_checkpoint: Path, make_groups: Groups, rng: np.random.Generator
) -> None:
    engine = loaded(small_checkpoint, dtype)
    engine.warm_up()
    with torch.compiler.set_stance("fail_on_recompile"):
        for _ in range(40):
            groups = int(rng.integers(1, 6))
            lengths = rng.integers(2, 100, int(rng.integers(groups, 20))).tolist()
            engine.score(Batch.of(alike(make_groups(lengths, groups), rng)))


def alike(groups: list[Group], rng: np.random.Generator) -> list[Group]:
    """The groups, some of them behind one template."""
    template = np.arange(50, dtype=np.int32)
    return [
        Group(np.concatenate([template[: 50 * int(rng.integers(2))], group.prefix]), group.tails) for group in groups
    ]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "fp8"])
def test_scores_on_cuda_are_those_of_an_engine_that_keeps_nothing(
    dtype: str, small_checkpoint: Path, make_groups: Groups, rng: np.random.Generator
) -> None:
    keeping, forgetful = loaded(small_checkpoint, dtype), loaded(small_checkpoint, dtype, kept_tokens=0)
    for _ in range(20):
        batch = Batch.of(alike(make_groups(rng.integers(2, 100, 8).tolist(), int(rng.integers(1, 8))), rng))
        found, expected = (probability(engine.score(batch)) for engine in (keeping, forgetful))
        assert np.abs(found - expected).max() <= {"fp8": 0.1}.get(dtype, 1e-2)


@pytest.mark.parametrize("dtype", ["bfloat16", "fp8"])
def test_a_pair_on_cuda_scores_the_same_alone_and_in_a_crowd(
    dtype: str, small_checkpoint: Path, make_groups: Groups, rng: np.random.Generator
) -> None:
    engine = loaded(small_checkpoint, dtype)
    (needle,) = make_groups([90, 30], groups=1)
    alone = probability(engine.score(Batch.of([needle])))
    for _ in range(8):
        crowd = make_groups(rng.integers(1, 160, int(rng.integers(20, 40))).tolist())
        crowded = probability(engine.score(Batch.of([*crowd, needle])))[-2:]
        assert np.abs(crowded - alone).max() <= {"bfloat16": 2e-3, "fp8": 5e-2}[dtype]


def test_warm_up_on_cuda_finds_a_budget_that_fits(checkpoint: Path) -> None:
    engine = loaded(checkpoint, "auto")
    engine.warm_up()
    assert engine.info.max_batch_tokens >= 8192
    tail = np.zeros(engine.info.max_batch_tokens // 64, dtype=np.int32)
    assert np.isfinite(engine.score(Batch.of([Group(tail[:0], (tail,) * 64)]))).all()
