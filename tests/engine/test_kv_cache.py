"""Keys and values that earlier batches left in the KV cache: the same scores for fewer tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.engine.cuda_on_cpu import cuda_on_cpu
from tests.engine.layouts import FEW, in_formats
from tests.unit.engine.native.forests import two_levels

from rerankd.core.prefix_cache import PrefixCache
from rerankd.core.prefix_tree import PrefixTree, separate
from rerankd.engine.base import Batch, Engine, EngineOptions, EngineOutOfMemory, HeadSpec
from rerankd.engine.native.cpu.attention_varlen import VarlenAttention
from rerankd.engine.native.engine import NativeEngine

Score = Callable[[Batch], np.ndarray]

BOUNDS = {"float32": 1e-5, "bfloat16": 1e-2, "float16": 1e-2, "int8": 4e-2}
"""Largest difference of a probability, as between two layouts of one batch (``test_agreement.py``)."""
SLOTS = 512


def loaded(folder: Path, dtype: str = "float32") -> NativeEngine:
    head = HeadSpec("words", positive=9, negative=8)
    options = EngineOptions(folder, head, dtype=dtype, device="cpu", threads=1, prefix_cache_tokens=SLOTS)  # type: ignore[arg-type]
    engine = NativeEngine(options)
    engine.load()
    return engine


def probability(scores: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-scores.astype(np.float64)))


class Caching:
    """Prompts as the core gives them to an engine: behind what is cached of them."""

    def __init__(self, score: Score) -> None:
        self._score = score
        self._tree = PrefixTree(PrefixCache(SLOTS))
        self.computed = 0

    def score(self, requests: list[tuple[np.ndarray, list[np.ndarray]]]) -> np.ndarray:
        """The probabilities of requests of (prefix, tails)."""
        for prefix, tails in requests:
            end = self._tree.insert(prefix)
            for tail in tails:
                self._tree.add_pair(end, tail)
        batch = self._tree.layout()
        scores = self._score(batch)
        self._tree.finish(succeeded=bool(np.isfinite(scores).all()))
        self.computed += batch.tokens
        return probability(scores)


class Traffic:
    """Random requests under three templates, two of which begin alike, and some under none."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        first = self.ids(75)
        self.templates = [first, np.concatenate([first[:40], self.ids(30)]), self.ids(50)]
        self.queries = [self.ids(20) for _ in range(3)]

    def ids(self, length: int) -> np.ndarray:
        return self._rng.integers(0, 512, length).astype(np.int32)

    def request(self) -> tuple[np.ndarray, list[np.ndarray]]:
        rng = self._rng
        begin = self.templates[int(rng.integers(3))] if rng.random() < 0.9 else self.ids(int(rng.integers(90)))
        query = self.queries[int(rng.integers(3))] if rng.random() < 0.3 else self.ids(int(rng.integers(1, 30)))
        return np.concatenate([begin, query]), [self.ids(int(rng.integers(1, 90))) for _ in range(rng.integers(1, 5))]

    def batches(self, count: int) -> Iterator[list[tuple[np.ndarray, list[np.ndarray]]]]:
        for _ in range(count):
            yield [self.request() for _ in range(int(self._rng.integers(1, 5)))]


def prompts_of(requests: list[tuple[np.ndarray, list[np.ndarray]]]) -> list[np.ndarray]:
    return [np.concatenate([prefix, tail]) for prefix, tails in requests for tail in tails]


@pytest.fixture
def traffic(rng: np.random.Generator) -> Traffic:
    return Traffic(rng)


@pytest.mark.parametrize(
    ("dtype", "attention"),
    [
        *((dtype, "in C") for dtype in BOUNDS),
        ("float32", "padded"),
        *(pytest.param(dtype, "padded", marks=pytest.mark.thorough) for dtype in BOUNDS if dtype != "float32"),
    ],
)
def test_scores_are_those_of_whole_prompts(
    dtype: str, attention: str, small_checkpoint: Path, traffic: Traffic, monkeypatch: pytest.MonkeyPatch
) -> None:
    if attention == "padded":
        monkeypatch.setattr(VarlenAttention, "supports", lambda *_: False)
    engine, tokens = loaded(small_checkpoint, dtype), 0
    caching = Caching(engine.score)
    for requests in traffic.batches(10):
        prompts = prompts_of(requests)
        expected = probability(engine.score(separate(prompts)))
        assert np.abs(caching.score(requests) - expected).max() <= BOUNDS[dtype]
        tokens += sum(len(prefix) + sum(map(len, tails)) for prefix, tails in requests)
    assert caching.computed < 0.8 * tokens, "less than with sharing inside of each request alone"


@in_formats(["float32", "bfloat16"], FEW)
def test_so_are_those_of_packed_tokens(
    dtype: str, checkpoint: Path, traffic: Traffic, make_engine: Callable[..., Engine]
) -> None:
    caching = Caching(cuda_on_cpu(checkpoint, dtype, slots=SLOTS))
    whole = make_engine("native", checkpoint).score
    for requests in traffic.batches(12):
        expected = probability(whole(separate(prompts_of(requests))))
        assert np.abs(caching.score(requests) - expected).max() <= BOUNDS[dtype]


@pytest.mark.parametrize("dtype", BOUNDS)
def test_a_request_scores_the_same_from_the_cache_alone_and_in_a_crowd(
    dtype: str, small_checkpoint: Path, traffic: Traffic
) -> None:
    caching = Caching(loaded(small_checkpoint, dtype).score)
    needle = (traffic.templates[0], [traffic.ids(90)])
    cold = caching.score([needle])[0]
    for requests in traffic.batches(10):
        caching.score(requests)
    alone = caching.score([needle])[0]
    assert abs(alone - cold) <= min(2e-3, BOUNDS[dtype])
    for _ in range(5):
        crowd = [traffic.request() for _ in range(5)]
        assert abs(caching.score([*crowd, needle])[-1] - alone) <= min(2e-3, BOUNDS[dtype])


def written(slots: int) -> Batch:
    """A prefix of that many tokens, all of them to be cached, and two tails."""
    batch = two_levels((slots, [20, 30]))
    batch.slots[:slots] = np.arange(slots)
    batch.token_ids[:] = np.arange(len(batch.token_ids)) % 512
    return batch


def cached(batch: Batch) -> Batch:
    """The same prompts, their prefix read from the cache."""
    is_cached = batch.cached.copy()
    is_cached[0] = True
    return Batch(batch.token_ids, batch.offsets, batch.parents, batch.leaves, is_cached, batch.slots)


def test_a_pass_that_failed_leaves_the_slots_that_it_read_alone(
    small_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = loaded(small_checkpoint)
    expected = engine.score(written(50))
    model = engine._model
    assert model is not None

    def failing(batch: object) -> torch.Tensor:
        model(batch)  # type: ignore[arg-type]
        raise RuntimeError("something else")

    with monkeypatch.context() as patch:
        patch.setattr(engine, "_model", failing)
        with pytest.raises(RuntimeError):
            engine.score(cached(written(50)))
    assert np.abs(engine.score(cached(written(50))) - expected).max() <= 1e-4


def test_a_pass_that_ran_out_of_memory_gives_the_cache_s_memory_back(
    small_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = loaded(small_checkpoint)
    expected = engine.score(written(50))

    def failing(_: object) -> torch.Tensor:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(engine, "_model", failing)
        with pytest.raises(EngineOutOfMemory):
            engine.score(written(50))
    assert engine._backend.kv_cache._tensor is None
    assert np.array_equal(engine.score(written(50)), expected)


def test_warm_up_and_health_write_nothing(small_checkpoint: Path) -> None:
    engine = loaded(small_checkpoint)
    engine.warm_up()
    assert engine.health()
    assert engine._backend.kv_cache._tensor is None
    assert engine.info.kv_cache_slots == SLOTS


def test_a_closed_engine_holds_no_cache(small_checkpoint: Path) -> None:
    engine = loaded(small_checkpoint)
    engine.score(written(50))
    engine.close()
    assert engine._backend.kv_cache._tensor is None
