"""The onnx engine against transformers, and on the embedded model against the native engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from tests.encoder_checkpoints import LAYOUTS, SMALL, transformers_logits

from rerankd.checkpoint import Checkpoint
from rerankd.core.prefix_tree import separate
from rerankd.engine.base import Batch, EngineOptions, HeadSpec
from rerankd.engine.onnx import source as source_module
from rerankd.engine.onnx.convert import MAX_DIFFERENCE, convert
from rerankd.engine.onnx.engine import OnnxEngine
from rerankd.engine.onnx.probe import signed_products_are_exact
from rerankd.engine.onnx.quantize import QMAX, ZERO_POINT, quantize_rows
from rerankd.engine.onnx.source import Source
from rerankd.engine.registry import create_engine
from rerankd.errors import ConfigurationError
from rerankd.model_hub import resolve_checkpoint

SEPARATOR = 3
LENGTHS = [2, 5, 40, 63, 64, 65, 66, 128, 129, 130, 200, 200, 201, 300, 500, 512]
"""Around the window of local layers and its multiples, equal ones, and as long as the model can read."""


def batch_of(prompts: list[np.ndarray]) -> Batch:
    return separate(prompts)


def random_prompts(
    lengths: list[int], seed: int = 1, low: int = 4, high: int = SMALL["vocab_size"]
) -> list[np.ndarray]:
    """``[CLS] query [SEP] document [SEP]`` of random words."""
    rng = np.random.default_rng(seed)
    prompts = []
    for length in lengths:
        ids = rng.integers(low, high, length).astype(np.int32)
        ids[[0, length // 3, -1]] = (2, SEPARATOR, SEPARATOR)
        prompts.append(ids)
    return prompts


def open_engine(folder: Path, dtype: str = "float32") -> OnnxEngine:
    options = EngineOptions(folder, HeadSpec("linear"), dtype=dtype, device="cpu", threads=1, separator=SEPARATOR)
    engine = OnnxEngine(options)
    engine.load()
    return engine


@pytest.fixture(scope="session", params=LAYOUTS)
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return LAYOUTS[request.param].write(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return LAYOUTS["bert"].write(tmp_path_factory.mktemp("bert"))


def test_scores_are_those_of_transformers(encoder: Path) -> None:
    prompts = random_prompts(LENGTHS)
    scores = open_engine(encoder).score(batch_of(prompts))
    expected = transformers_logits(encoder, prompts, SEPARATOR)
    assert expected.std() > 0.05
    assert np.abs(scores - expected).max() <= 1e-4


def test_scores_do_not_depend_on_who_is_in_the_batch(encoder: Path) -> None:
    engine = open_engine(encoder)
    prompts = random_prompts(LENGTHS)
    together = engine.score(batch_of(prompts))
    alone = np.array([engine.score(batch_of([prompt]))[0] for prompt in prompts])
    assert np.abs(together - alone).max() <= 1e-5


@pytest.mark.parametrize(
    "encoder",
    [pytest.param(name, marks=() if name in ("bert", "modernbert") else pytest.mark.thorough) for name in LAYOUTS],
    indirect=True,
    scope="session",
)
def test_int8_keeps_the_order(encoder: Path) -> None:
    prompts = random_prompts([int(length) for length in np.random.default_rng(2).integers(20, 120, 150)])
    exact = open_engine(encoder).score(batch_of(prompts))
    rounded = open_engine(encoder, "int8").score(batch_of(prompts))
    assert not np.array_equal(exact, rounded)
    ranks = [np.argsort(np.argsort(scores)) for scores in (exact, rounded)]
    assert np.corrcoef(ranks)[0, 1] >= 0.995


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_weights_are_read_exactly(tmp_path: Path, dtype: torch.dtype) -> None:
    folder = LAYOUTS["bert"].write(tmp_path, dtype)
    prompts = random_prompts(LENGTHS)
    scores = open_engine(folder).score(batch_of(prompts))
    assert np.abs(scores - transformers_logits(folder, prompts, SEPARATOR)).max() <= 1e-4


@pytest.mark.parametrize("exact", [True, False])
def test_eight_bit_weights_are_signed_where_their_products_are_exact_and_never_in_a_file(
    encoder: Path, monkeypatch: pytest.MonkeyPatch, exact: bool
) -> None:
    monkeypatch.setattr(source_module, "signed_products_are_exact", lambda: exact)

    def formats(**portable: bool) -> set[int]:
        graph = Source.find(encoder, "int8").graph(512, **portable).graph
        assert isinstance(graph, bytes)
        weights = [one for one in onnx.load_from_string(graph).graph.initializer if one.name.endswith(".int8")]
        assert weights
        return {weight.data_type for weight in weights}

    assert formats() == {onnx.TensorProto.INT8 if exact else onnx.TensorProto.UINT8}
    assert formats(portable=True) == {onnx.TensorProto.UINT8}


def test_signed_weights_give_the_scores_of_unsigned_ones(encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not signed_products_are_exact():
        pytest.skip("this processor adds products of u8 and s8 in sixteen bits")
    batch = batch_of(random_prompts(LENGTHS))
    signed = open_engine(encoder, "int8").score(batch)
    monkeypatch.setattr(source_module, "signed_products_are_exact", lambda: False)
    assert np.abs(signed - open_engine(encoder, "int8").score(batch)).max() <= 1e-6


@pytest.mark.parametrize("signed", [True, False])
def test_eight_bit_numbers_are_the_same_signed_and_unsigned(signed: bool) -> None:
    matrix = np.random.default_rng(0).normal(size=(5, 64)).astype(np.float32)
    matrix[2] = 0
    quantized, scales = quantize_rows(matrix, signed=signed)
    whole = quantized.astype(np.float32) - (0 if signed else ZERO_POINT)
    assert np.abs(whole).max() == QMAX
    assert np.abs(whole * scales[:, None] - matrix).max() <= np.abs(matrix).max() / QMAX / 2 + 1e-6


def test_a_graph_passes_the_checker_of_onnx(encoder: Path) -> None:
    graph = Source.find(encoder, "int8").graph(512).graph
    assert isinstance(graph, bytes)
    model = onnx.load_from_string(graph)
    for initializer in model.graph.initializer:
        # The checker looks for external data in the working folder.
        initializer.ClearField("external_data")
        if initializer.data_location == onnx.TensorProto.EXTERNAL:
            initializer.ClearField("data_location")
            size = int(np.prod(initializer.dims)) * np.dtype(np.float32).itemsize
            initializer.raw_data = bytes(size)
    onnx.checker.check_model(model)


def test_the_embedded_model_scores_as_on_the_native_engine() -> None:
    folder = resolve_checkpoint("tiny")
    prompts = random_prompts([2, 3, 50, 200, 201, 700, 2500], low=10, high=30_000)
    scores = []
    for name in ("onnx", "native"):
        engine = Checkpoint.open("tiny").engine(name, dtype="float32", device="cpu", threads=1)
        engine.load()
        scores.append(engine.score(batch_of(prompts)))
        engine.close()
    assert np.abs(scores[0] - scores[1]).max() <= 1e-4
    assert (folder / "model.safetensors").is_file()
    assert not list(folder.glob("**/*.onnx"))


def published(folder: Path, tmp_path: Path, name: str = "model.onnx", inputs: dict[str, str] | None = None) -> Path:
    """A folder as hubs publish it: config.json, and a graph that holds its weights; inputs may get other names."""
    source = Source.find(folder, "float32").graph(512)
    assert isinstance(source.graph, bytes)
    model = onnx.load_from_string(source.graph)
    onnx.external_data_helper.load_external_data_for_model(model, str(folder))
    for node in model.graph.node:
        for index, value in enumerate(node.input):
            node.input[index] = (inputs or {}).get(value, value)
    for value in model.graph.input:
        value.name = (inputs or {}).get(value.name, value.name)
    (tmp_path / "onnx").mkdir(parents=True)
    onnx.save(model, tmp_path / "onnx" / name)
    config = (folder / "config.json").read_text().replace("BertForSequence", "ElectraForSequence")
    (tmp_path / "config.json").write_text(config)
    return tmp_path


def test_a_published_graph_is_served(bert: Path, tmp_path: Path) -> None:
    prompts = random_prompts(LENGTHS)
    engine = create_engine("auto", EngineOptions(published(bert, tmp_path), HeadSpec("linear"), separator=SEPARATOR))
    engine.load()
    assert engine.info.engine == "onnx"
    assert "model.onnx" in engine.info.details
    expected = transformers_logits(bert, prompts, SEPARATOR)
    assert np.abs(engine.score(batch_of(prompts)) - expected).max() <= 1e-4


def test_the_engine_warms_up_and_says_what_it_is(bert: Path) -> None:
    engine = open_engine(bert)
    engine.warm_up()
    info = engine.info
    assert (info.engine, info.device, info.dtype) == ("onnx", "cpu", "float32")
    assert info.max_length == 512
    assert not info.shares_prefix
    assert info.max_batch_tokens >= 512
    assert info.parameters > 10_000
    assert engine.health()
    engine.close()
    with pytest.raises(Exception, match="not loaded"):
        engine.score(batch_of(random_prompts([5])))


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_a_converted_folder_is_served_without_its_weights_at_hand(bert: Path, tmp_path: Path, dtype: str) -> None:
    out = tmp_path / "out"
    assert convert(bert, out, dtype) <= MAX_DIFFERENCE[dtype]
    prompts = random_prompts(LENGTHS)
    engine = open_engine(out, dtype)
    assert "onnx" in engine.info.details
    assert np.array_equal(engine.score(batch_of(prompts)), open_engine(bert, dtype).score(batch_of(prompts)))
    with pytest.raises(ConfigurationError, match="there already"):
        convert(bert, out, dtype)
