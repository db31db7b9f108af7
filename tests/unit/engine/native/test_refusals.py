"""A checkpoint that the native engine cannot run is refused at start, with the reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks.checkpoints import Layout, write_checkpoint

from rerankd.engine.base import EngineOptions, HeadSpec
from rerankd.engine.native.engine import NativeEngine
from rerankd.errors import ConfigurationError

LAYOUT = Layout(vocab_size=16, hidden_size=16, intermediate_size=16, num_hidden_layers=1, head_dim=8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path, LAYOUT, shards=2)


def load(folder: Path, **options: object) -> None:
    plain = EngineOptions(folder=folder, head=HeadSpec("words", 1, 0), dtype="float32", device="cpu")
    NativeEngine(replace(plain, **options)).load()


def change(folder: Path, **values: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"architectures": ["BertModel"]}, "cannot run the architecture BertModel"),
        ({"quantization_config": {"bits": 4}}, "use --engine vllm"),
        ({"hidden_act": "gelu"}, "not gelu"),
        ({"use_sliding_window": True}, "sliding-window"),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, "yarn"),
        ({"hidden_size": 32}, "where config.json asks for"),
        ({"num_hidden_layers": 2}, "has no tensor 'model.layers.1"),
    ],
)
def test_a_config_that_is_not_understood_is_refused(folder: Path, values: dict[str, object], reason: str) -> None:
    change(folder, **values)
    with pytest.raises(ConfigurationError, match=reason):
        load(folder)


def remove_shard(folder: Path) -> None:
    (folder / "model-00002-of-00002.safetensors").unlink()


def cut_shard(folder: Path) -> None:
    shard = folder / "model-00002-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-16])


def pickle_only(folder: Path) -> None:
    for file in folder.glob("*.safetensors*"):
        file.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")


def no_weights(folder: Path) -> None:
    for file in folder.glob("*.safetensors*"):
        file.unlink()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (remove_shard, "part of the checkpoint is missing"),
        (cut_shard, "not a complete safetensors file"),
        (pickle_only, "pickled weights"),
        (no_weights, "no weights"),
    ],
)
def test_incomplete_or_pickled_weights_are_refused(folder: Path, damage: Callable[[Path], None], reason: str) -> None:
    damage(folder)
    with pytest.raises(ConfigurationError, match=reason):
        load(folder)


def test_a_folder_without_a_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"there is no .*config\.json"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"dtype": "fp8"}, "does not compute 'fp8' on cpu"),
        ({"device": "tpu"}, "there is no device|runs on cpu and cuda"),
        ({"device": "cuda:99"}, "there is no device 'cuda:99'"),
        ({"head": HeadSpec("linear")}, "score.weight"),
    ],
)
def test_options_that_do_not_fit_are_refused(folder: Path, options: dict[str, object], reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        load(folder, **options)
