"""What is loaded from a folder, and what is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from rerankd.engine.base import EngineOptions, HeadSpec
from rerankd.engine.onnx.engine import OnnxEngine
from rerankd.engine.onnx.source import Source
from rerankd.engine.onnx.weights import StoredWeights
from rerankd.errors import ConfigurationError
from rerankd.model_hub import resolve_checkpoint

BERT = {
    "architectures": ["BertForSequenceClassification"],
    "model_type": "bert",
    "id2label": {"0": "LABEL_0"},
    "vocab_size": 20,
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
    "type_vocab_size": 2,
}


def write(folder: Path, *, graphs: tuple[str, ...] = (), weights: bool = True, **config: Any) -> Path:
    (folder / "config.json").write_text(json.dumps({**BERT, **config}))
    if weights:
        save_file({"bert.embeddings.word_embeddings.weight": np.ones((20, 8), "f4")}, folder / "model.safetensors")
    for name in graphs:
        (folder / "onnx").mkdir(exist_ok=True)
        (folder / "onnx" / name).write_bytes(b"not a graph")
    return folder


def load(folder: Path, **options: Any) -> None:
    OnnxEngine(EngineOptions(folder, HeadSpec("linear"), device="cpu", **options)).load()


@pytest.mark.parametrize(
    ("config", "word"),
    [
        ({"id2label": {"0": "a", "1": "b", "2": "c"}}, "3 labels"),
        ({"hidden_act": "relu"}, "hidden_act"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({"vocab_size": None}, "vocab_size"),
        ({"vocab_size": 21}, "has shape"),
        ({}, "has no tensor"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(tmp_path: Path, config: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigurationError, match=word):
        load(write(tmp_path, **config))


def test_another_architecture_needs_a_published_graph(tmp_path: Path) -> None:
    folder = write(tmp_path, architectures=["DebertaV2ForSequenceClassification"])
    with pytest.raises(ConfigurationError, match="DebertaV2ForSequenceClassification"):
        Source.find(folder, "auto")
    write(tmp_path, architectures=["DebertaV2ForSequenceClassification"], graphs=("model.onnx", "model_int8.onnx"))
    assert Source.find(folder, "auto").published == folder / "onnx" / "model.onnx"
    assert Source.find(folder, "int8").published == folder / "onnx" / "model_int8.onnx"
    with pytest.raises(ConfigurationError, match=r"no graph in float16; it has model.onnx, model_int8.onnx"):
        Source.find(folder, "float16")
    with pytest.raises(ConfigurationError, match="no dtype fp8"):
        Source.find(folder, "fp8")


def test_a_file_that_is_no_graph_is_refused_in_one_line(tmp_path: Path) -> None:
    folder = write(tmp_path, graphs=("model.onnx",), weights=False)
    with pytest.raises(ConfigurationError, match="cannot load the graph") as error:
        load(folder)
    assert "\n" not in error.value.message


@pytest.mark.parametrize("damage", [b"", b"\xff" * 8, b"\x02\0\0\0\0\0\0\0{}x", b"\x08\0\0\0\0\0\0\0not json"])
def test_damaged_weights_are_refused(tmp_path: Path, damage: bytes) -> None:
    write(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(damage)
    with pytest.raises(ConfigurationError):
        load(tmp_path)


def test_pairs_are_as_long_as_positions_and_tokenizer_allow(tmp_path: Path) -> None:
    assert Source.find(write(tmp_path), "auto").max_length == 64
    roberta = write(tmp_path, model_type="xlm-roberta", pad_token_id=1, max_position_embeddings=514)
    assert Source.find(roberta, "auto").max_length == 512
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 100}))
    assert Source.find(roberta, "auto").max_length == 100
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 10**30}))
    assert Source.find(roberta, "auto").max_length == 512


def test_devices_that_are_not_there_are_refused(tmp_path: Path) -> None:
    options = EngineOptions(write(tmp_path), HeadSpec("linear"))
    for device, word in (("cuda", "onnxruntime-gpu"), ("tpu", "no device"), ("cpu:1", "no device")):
        with pytest.raises(ConfigurationError, match=word):
            OnnxEngine(EngineOptions(options.folder, options.head, device=device))


def test_tensors_are_read_where_their_file_has_them() -> None:
    weights = StoredWeights(resolve_checkpoint("tiny"))
    norm = weights["model.norm.weight"]
    assert norm.read().shape == norm.shape
    assert weights.parameters > 1_000_000
    both = weights["model.layers.0.mlp.up_proj.weight"]
    halves = [both.part(index, 2).read() for index in range(2)]
    assert np.array_equal(np.concatenate(halves), both.read())
