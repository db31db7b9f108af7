"""The native engine's side of the contract: what it says of itself, and how it fails."""

from __future__ import annotations

import gc
import os
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.checkpoints import Layout, write_checkpoint

from rerankd.core.prefix_tree import separate
from rerankd.engine.base import EngineFault, EngineOptions, EngineOutOfMemory, HeadSpec
from rerankd.engine.native.engine import NativeEngine
from rerankd.errors import ConfigurationError

LAYOUT = Layout(vocab_size=16, hidden_size=16, intermediate_size=16, num_hidden_layers=2, head_dim=8)
ONE = np.array([1], dtype=np.int32)
BATCH = separate([ONE, ONE])


@pytest.fixture
def engine(tmp_path: Path) -> NativeEngine:
    folder = write_checkpoint(tmp_path, LAYOUT)
    engine = NativeEngine(EngineOptions(folder=folder, head=HeadSpec("words", 1, 0), device="cpu", threads=1))
    engine.load()
    return engine


def fail_with(engine: NativeEngine, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def model(*_: object) -> torch.Tensor:
        raise error

    monkeypatch.setattr(engine, "_model", model)


def test_warm_up_finds_a_budget_and_info_tells_it(engine: NativeEngine) -> None:
    engine.warm_up()
    assert 512 <= engine.info.max_batch_tokens <= 8192
    assert (engine.info.dtype, engine.info.device, engine.info.max_length) == ("float32", "cpu", 40_960)
    assert engine.info.parameters == sum(tensor.numel() for tensor in _stored(engine)), (
        "every tensor of the checkpoint is read once"
    )


def test_closing_lets_the_weights_go_at_once(engine: NativeEngine) -> None:
    model = weakref.ref(engine._model)
    gc.disable()
    try:
        engine.close()
        assert model() is None
    finally:
        gc.enable()


def _stored(engine: NativeEngine) -> list[torch.Tensor]:
    from safetensors.torch import load_file

    return list(load_file(engine._options.folder / "model.safetensors").values())


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), EngineOutOfMemory),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), EngineOutOfMemory),
        (MemoryError(), EngineOutOfMemory),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), EngineFault),
        (RuntimeError("shapes cannot be multiplied"), RuntimeError),
    ],
)
def test_failures_of_torch_become_those_of_the_contract(
    engine: NativeEngine, error: Exception, kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_with(engine, error, monkeypatch)
    with pytest.raises(kind) as caught:
        engine.score(BATCH)
    assert type(caught.value) is kind
    assert caught.value.__context__ is None, "the traceback of the failed pass would keep its tensors alive"


def test_an_engine_that_ran_out_of_memory_scores_the_next_batch(
    engine: NativeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = engine.score(BATCH)
    with monkeypatch.context() as patch:
        fail_with(engine, MemoryError(), patch)
        with pytest.raises(EngineOutOfMemory):
            engine.score(BATCH)
    assert np.array_equal(engine.score(BATCH), before)


def test_a_closed_engine_is_a_fault(engine: NativeEngine) -> None:
    engine.close()
    with pytest.raises(EngineFault):
        engine.score(BATCH)


def test_weights_of_the_computed_format_are_mapped_and_not_copied(engine: NativeEngine) -> None:
    from rerankd.engine.native.safetensors_reader import SafetensorsCheckpoint

    files = SafetensorsCheckpoint(engine._options.folder)
    name = "model.embed_tokens.weight"
    first, second = (files.tensor(name, LAYOUT.vocab_size, LAYOUT.hidden_size) for _ in range(2))
    assert first.data_ptr() == second.data_ptr()


@pytest.mark.promise("P4")
def test_weights_that_are_replaced_by_renaming_stay_those_that_were_loaded(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "served", LAYOUT, dtype=torch.float32)
    options = EngineOptions(folder=folder, head=HeadSpec("words", 1, 0), dtype="float32", device="cpu", threads=1)
    engine = NativeEngine(options)
    engine.load()
    before = engine.score(BATCH)
    other = write_checkpoint(tmp_path / "other", LAYOUT, dtype=torch.float32, seed=1)
    os.replace(other / "model.safetensors", folder / "model.safetensors")
    assert np.array_equal(engine.score(BATCH), before)
    renewed = NativeEngine(options)
    renewed.load()
    assert not np.array_equal(renewed.score(BATCH), before)


@pytest.mark.promise("S5")
@pytest.mark.parametrize("length", [1, 2, 128])
def test_pairs_may_be_shorter_than_what_warm_up_tries(tmp_path: Path, length: int) -> None:
    folder = write_checkpoint(tmp_path, LAYOUT)
    options = EngineOptions(
        folder=folder, head=HeadSpec("words", 1, 0), device="cpu", threads=1, max_pair_tokens=length
    )
    engine = NativeEngine(options)
    engine.load()
    engine.warm_up()
    assert engine.health()


@pytest.mark.promise("S5")
def test_so_may_the_checkpoint_s_own_longest_pair(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, replace(LAYOUT, max_position_embeddings=100))
    engine = NativeEngine(EngineOptions(folder=folder, head=HeadSpec("words", 1, 0), device="cpu", threads=1))
    engine.load()
    engine.warm_up()
    assert engine.info.max_length == 100


@pytest.mark.promise("S7")
@pytest.mark.parametrize(
    "name", ["model.norm.weight", "model.layers.0.mlp.up_proj.weight", "model.embed_tokens.weight"]
)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_warm_up_refuses_weights_that_give_no_finite_scores(tmp_path: Path, name: str, value: float) -> None:
    from safetensors.torch import load_file, save_file

    file = write_checkpoint(tmp_path, LAYOUT) / "model.safetensors"
    tensors = load_file(file)
    tensors[name].view(-1)[3] = value
    save_file(tensors, file)
    engine = NativeEngine(EngineOptions(folder=tmp_path, head=HeadSpec("words", 1, 0), device="cpu", threads=1))
    engine.load()
    with pytest.raises(ConfigurationError, match="not finite"):
        engine.warm_up()


@pytest.mark.promise("S4")
def test_a_prompt_longer_than_the_table_of_positions_is_an_error_that_says_so(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, LAYOUT)
    engine = NativeEngine(
        EngineOptions(folder=folder, head=HeadSpec("words", 1, 0), device="cpu", threads=1, max_pair_tokens=8)
    )
    engine.load()
    assert np.isfinite(engine.score(separate([np.zeros(8, dtype=np.int32)]))).all()
    with pytest.raises(ValueError, match="made for 8"):
        engine.score(separate([np.zeros(9, dtype=np.int32)]))


@pytest.mark.parametrize("token", [-1, 16])
def test_an_id_that_the_model_does_not_know_is_an_error_that_says_so(engine: NativeEngine, token: int) -> None:
    with pytest.raises(ValueError, match="another model"):
        engine.score(separate([np.array([1, token, 1], dtype=np.int32)]))
