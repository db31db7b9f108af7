"""What requests begin with is computed once and kept: fewer rows, the same scores, nothing of a pass that failed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.checkpoints import Layout, write_checkpoint
from safetensors.torch import load_file, save_file
from tests.engine.cuda_on_cpu import passes_on_cpu

from rerankd.engine.base import Batch, EngineFault, EngineOptions, EngineOutOfMemory, Group, HeadSpec
from rerankd.engine.native.cpu.attention_varlen import VarlenAttention
from rerankd.engine.native.engine import NativeEngine
from rerankd.engine.native.forward_batch import ForwardBatch

Score = Callable[[Batch], np.ndarray]

BOUNDS = {"float32": 1e-5, "bfloat16": 1e-2, "float16": 1e-2, "int8": 4e-2}
"""Largest difference of a probability, as between two layouts of one batch (``test_agreement.py``)."""
BAD = 500
"""A token whose embedding is no number, in `broken`."""


def loaded(folder: Path, dtype: str = "float32", kept_tokens: int = 512) -> NativeEngine:
    head = HeadSpec("words", positive=9, negative=8)
    options = EngineOptions(folder, head, dtype=dtype, device="cpu", threads=1, prefix_cache_tokens=kept_tokens)  # type: ignore[arg-type]
    engine = NativeEngine(options)
    engine.load()
    return engine


def probability(scores: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-scores.astype(np.float64)))


def rows_of(engine: NativeEngine, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows of each pass from now on."""
    rows: list[int] = []
    model = engine._model
    assert model is not None

    def counting(plan: ForwardBatch) -> torch.Tensor:
        rows.append(len(plan.ids))
        return model(plan)

    monkeypatch.setattr(engine, "_model", counting)
    return rows


class Traffic:
    """Random requests under three templates, two of which begin alike, and some under none."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        first = self.ids(75)
        self.templates = [first, np.concatenate([first[:40], self.ids(30)]), self.ids(50)]
        self.queries = [self.ids(20) for _ in range(3)]

    def ids(self, length: int) -> np.ndarray:
        return self._rng.integers(0, BAD, length).astype(np.int32)

    def request(self) -> Group:
        """One of one document, whose prefix may end anywhere, or one of several."""
        rng = self._rng
        begin = self.templates[int(rng.integers(3))] if rng.random() < 0.9 else self.ids(int(rng.integers(90)))
        query = self.queries[int(rng.integers(3))] if rng.random() < 0.3 else self.ids(int(rng.integers(1, 30)))
        prefix = np.concatenate([begin, query])
        if rng.random() < 0.5:
            whole = np.concatenate([prefix, self.ids(int(rng.integers(1, 90)))])
            cut = int(rng.integers(len(whole)))
            return Group(whole[:cut], (whole[cut:],))
        return Group(prefix, tuple(self.ids(int(rng.integers(1, 90))) for _ in range(int(rng.integers(2, 5)))))

    def batches(self, count: int) -> Iterator[Batch]:
        for _ in range(count):
            requests = [self.request() for _ in range(int(self._rng.integers(1, 5)))]
            yield Batch.of([*requests, Group(self.templates[0], ())][: len(requests) + int(self._rng.integers(2))])


@pytest.fixture
def traffic(rng: np.random.Generator) -> Traffic:
    return Traffic(rng)


@pytest.mark.parametrize("attention", ["kernels", "stacks"])
@pytest.mark.parametrize("dtype", BOUNDS)
def test_scores_are_those_of_an_engine_that_keeps_nothing(
    dtype: str, attention: str, small_checkpoint: Path, traffic: Traffic, monkeypatch: pytest.MonkeyPatch
) -> None:
    if attention == "stacks":
        monkeypatch.setattr(VarlenAttention, "supports", lambda *_: False)
    keeping, forgetful = loaded(small_checkpoint, dtype), loaded(small_checkpoint, dtype, kept_tokens=0)
    rows, all_rows = rows_of(keeping, monkeypatch), rows_of(forgetful, monkeypatch)
    for batch in traffic.batches(40):
        found, expected = probability(keeping.score(batch)), probability(forgetful.score(batch))
        assert np.abs(found - expected).max() <= BOUNDS[dtype]
    assert sum(rows) < 0.8 * sum(all_rows)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_packed_rows_give_the_scores_of_an_engine_that_keeps_nothing(
    dtype: str, checkpoint: Path, traffic: Traffic
) -> None:
    score, kept = passes_on_cpu(checkpoint, dtype, kept_tokens=512)
    fresh = loaded(checkpoint, "float32", kept_tokens=0).score
    for batch in traffic.batches(30):
        assert np.abs(probability(score(batch)) - probability(fresh(batch))).max() <= BOUNDS[dtype]
    assert len(kept._beginnings) >= 3


@pytest.mark.parametrize("dtype", BOUNDS)
def test_a_request_scores_the_same_from_kept_rows_alone_and_in_a_crowd(
    dtype: str, small_checkpoint: Path, traffic: Traffic
) -> None:
    engine = loaded(small_checkpoint, dtype)
    needle = Group(traffic.templates[0], (traffic.ids(90),))
    cold = probability(engine.score(Batch.of([needle])))[0]
    for batch in traffic.batches(20):
        engine.score(batch)
    alone = probability(engine.score(Batch.of([needle])))[0]
    assert abs(alone - cold) <= min(2e-3, BOUNDS[dtype])
    for _ in range(10):
        crowd = [traffic.request() for _ in range(5)]
        assert abs(probability(engine.score(Batch.of([*crowd, needle])))[-1] - alone) <= min(2e-3, BOUNDS[dtype])


def test_a_request_of_one_document_computes_neither_template_nor_instruction_from_the_third_on(
    small_checkpoint: Path, traffic: Traffic, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = loaded(small_checkpoint)
    rows = rows_of(engine, monkeypatch)
    for number in range(4):
        document = np.append(np.int32(number), traffic.ids(99))
        engine.score(Batch.of([Group(traffic.templates[0], (document,))]))
    assert rows == [175, 175, 100, 100]


def test_a_restarted_engine_keeps_nothing(
    small_checkpoint: Path, traffic: Traffic, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = loaded(small_checkpoint)
    batch = Batch.of([Group(traffic.templates[0], (traffic.ids(20), traffic.ids(30)))])
    for _ in range(3):
        engine.score(batch)
    engine.close()
    assert engine._kept._beginnings == []
    engine.load()
    rows = rows_of(engine, monkeypatch)
    for _ in range(3):
        engine.score(batch)
    assert rows == [125, 125, 50]


def test_warm_up_leaves_nothing_behind_and_times_what_is_computed(small_checkpoint: Path) -> None:
    engine = loaded(small_checkpoint)
    engine.warm_up()
    for _ in range(3):
        assert engine.health()
    assert (engine._kept._beginnings, len(engine._kept._recent)) == ([], 0)


def test_nothing_is_kept_of_a_pass_that_ran_out_of_memory_and_what_was_kept_makes_room(
    small_checkpoint: Path, traffic: Traffic, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = loaded(small_checkpoint)
    batch = Batch.of([Group(traffic.templates[0], (traffic.ids(20),))])
    for _ in range(2):
        engine.score(batch)
    assert len(engine._kept._beginnings) == 1

    def model(plan: ForwardBatch) -> torch.Tensor:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(engine, "_model", model)
        with pytest.raises(EngineOutOfMemory):
            engine.score(batch)
    assert engine._kept._beginnings == []
    assert np.isfinite(engine.score(batch)).all()


def test_a_pass_that_failed_is_not_learnt_from(
    small_checkpoint: Path, traffic: Traffic, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = loaded(small_checkpoint)
    batch = Batch.of([Group(traffic.templates[0], (traffic.ids(20),))])
    engine.score(batch)
    model = engine._model
    assert model is not None

    def failing(plan: ForwardBatch) -> torch.Tensor:
        model(plan)
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with monkeypatch.context() as patch:
        patch.setattr(engine, "_model", failing)
        with pytest.raises(EngineFault):
            engine.score(batch)
    assert engine._kept._beginnings == []


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in which the embedding of `BAD` is no number."""
    folder = write_checkpoint(tmp_path_factory.mktemp("broken"), replace(Layout(), tie_word_embeddings=False))
    file = folder / "model.safetensors"
    tensors = load_file(file)
    tensors["model.embed_tokens.weight"][BAD] = torch.nan
    save_file(tensors, file)
    return folder


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_a_poisoned_pair_leaves_no_bad_keys_behind(dtype: str, broken: Path, traffic: Traffic) -> None:
    engine = loaded(broken, dtype)
    poison = np.array([BAD], dtype=np.int32)
    good = Group(traffic.templates[0], (traffic.ids(20), traffic.ids(30)))
    expected = engine.score(Batch.of([good]))
    bad = Group(good.prefix, (good.tails[0], poison))
    bad_template = np.append(traffic.templates[2], poison)
    for _ in range(3):
        scores = engine.score(Batch.of([bad]))
        assert np.isfinite(scores).tolist() == [True, False]
        assert not np.isfinite(engine.score(Batch.of([Group(bad_template, good.tails)]))).any()
    assert engine._kept._beginnings == []
    for _ in range(3):
        assert np.abs(engine.score(Batch.of([good])) - expected).max() <= 0.05
    scores = engine.score(Batch.of([bad]))
    assert np.isfinite(scores).tolist() == [True, False], "what is kept is seen by a poisoned pass too"
    assert np.abs(engine.score(Batch.of([good])) - expected).max() <= 0.05
