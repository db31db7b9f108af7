"""Engine ``auto``: native where torch is there for a decoder, else onnx, else one line that says what to install."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rerankd.engine import registry
from rerankd.engine.base import EngineOptions, HeadSpec
from rerankd.errors import ConfigurationError
from rerankd.model_hub import resolve_checkpoint


@pytest.fixture
def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_is_installed", lambda package: package != "torch")


def folder_of(tmp_path: Path, architecture: str) -> Path:
    sizes = {"vocab_size": 151_669, "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28}
    heads = {"num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128}
    config = {"architectures": [architecture], **sizes, **heads}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").touch()
    return tmp_path


def test_with_torch_decoders_are_native_and_encoders_onnx(tmp_path: Path) -> None:
    assert registry.choose_engine(resolve_checkpoint("tiny")) == "native"
    assert registry.choose_engine(folder_of(tmp_path, "Qwen3ForCausalLM")) == "native"
    assert registry.choose_engine(folder_of(tmp_path, "BertForSequenceClassification")) == "onnx"


@pytest.mark.usefixtures("without_torch")
def test_without_torch_the_embedded_model_runs_on_onnx() -> None:
    assert registry.choose_engine(resolve_checkpoint("tiny")) == "onnx"


@pytest.mark.usefixtures("without_torch")
@pytest.mark.parametrize("architecture", ["Qwen3ForCausalLM", "Qwen3ForSequenceClassification"])
@pytest.mark.parametrize("engine", ["auto", "native", "reference"])
def test_without_torch_a_large_decoder_says_what_to_install(tmp_path: Path, architecture: str, engine: str) -> None:
    options = EngineOptions(folder_of(tmp_path, architecture), HeadSpec("linear"))
    with pytest.raises(ConfigurationError, match=r"pip install 'rerankd\[torch\]'"):
        registry.create_engine(engine, options)


def test_an_unknown_architecture_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"LlamaForX.*Qwen3ForCausalLM.*BertForSequenceClassification"):
        registry.choose_engine(folder_of(tmp_path, "LlamaForX"))
