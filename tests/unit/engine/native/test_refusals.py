"""A checkpoint that the native engine cannot run is refused at start, with the reason."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.checkpoints import Layout, write_checkpoint

from rerankd.engine.base import EngineOptions, HeadSpec
from rerankd.engine.native.engine import NativeEngine
from rerankd.errors import ConfigurationError

NO_SHARDS = ["../x.safetensors", "", ".", "a" * 5000 + ".safetensors", "a\n.safetensors", "a\0.safetensors", "a.bin"]
YARN = {"rope_scaling": {"type": "yarn", "factor": 4.0}}
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
        ({"hidden_act": "gelu"}, "not 'gelu'"),
        ({"use_sliding_window": True}, "sliding-window"),
        ({"use_sliding_window": False, "layer_types": ["sliding_attention"]}, "layer_types"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"rope_scaling": {"type": "linear", "factor": 4.0}}, "not 'linear'"),
        ({"rope_scaling": {"type": "yarn"}}, "does not say 'factor'"),
        ({"rope_scaling": {"type": "default", "mrope_section": [1, 2]}}, "mrope_section"),
        ({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        (
            {
                "rope_theta": None,
                "rope_parameters": {"rope_theta": 1e6},
                "rope_scaling": {"type": "yarn", "factor": 4},
            },
            "put rope_theta into rope_scaling",
        ),
        ({"hidden_size": 32}, "where config.json asks for"),
        ({"num_hidden_layers": 2}, "has no tensor 'model.layers.1"),
    ],
)
@pytest.mark.promise("S2")
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


@pytest.mark.promise("S3")
@pytest.mark.parametrize(
    "name",
    ["model.layers.0.mlp.up_proj.bias", "model.layers.0.self_attn.q_proj.bias", "model.layers.1.mlp.up_proj.weight"],
)
def test_a_tensor_that_would_be_ignored_is_refused_by_name(tmp_path: Path, name: str) -> None:
    folder = write_checkpoint(tmp_path, LAYOUT)
    add_tensor(folder, name)
    with pytest.raises(ConfigurationError, match=name.replace(".", r"\.")):
        load(folder)


@pytest.mark.parametrize("name", ["lm_head.weight", "model.layers.0.self_attn.rotary_emb.inv_freq"])
def test_a_tensor_that_is_known_to_be_of_no_use_is_not(tmp_path: Path, name: str) -> None:
    folder = write_checkpoint(tmp_path, LAYOUT)
    add_tensor(folder, name)
    load(folder)


def add_tensor(folder: Path, name: str) -> None:
    file = folder / "model.safetensors"
    save_file({**load_file(file), name: torch.zeros(16)}, file)


@pytest.mark.promise("P7")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_hidden_layers", 10**9),
        ("num_hidden_layers", 0),
        ("hidden_size", -16),
        ("hidden_size", 10**4000),
        ("intermediate_size", "sixteen"),
        ("vocab_size", True),
        ("head_dim", 7),
        ("num_key_value_heads", 3),
        ("num_attention_heads", 2.5),
        ("max_position_embeddings", 10**12),
        ("rms_norm_eps", 0),
        ("rms_norm_eps", float("nan")),
        ("rope_theta", "many"),
        ("rope_theta", 10**400),
        ("rope_scaling", [1]),
        ("rope_scaling", {"rope_type": "yarn", "factor": -1}),
        ("rope_scaling", {"rope_type": "yarn", "factor": 4, "original_max_position_embeddings": "all"}),
        ("architectures", "Qwen3ForCausalLM"),
        ("architectures", [["Qwen3ForCausalLM"]]),
        ("layer_types", 5),
    ],
)
def test_absurd_values_of_config_json_are_refused_in_one_short_line(folder: Path, name: str, value: object) -> None:
    change(folder, **{name: value})
    with pytest.raises(ConfigurationError) as caught:
        load(folder)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def deep(path: Path) -> None:
    path.write_text('{"a":' + "[" * 200_000)


def binary(path: Path) -> None:
    path.write_bytes(b"\xff\xfe{")


def large(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 30)


@pytest.mark.promise("P7")
@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json", "model-00001-of-00002.safetensors"])
@pytest.mark.parametrize("damage", [fifo, device, deep, binary, large])
def test_files_that_block_never_end_or_are_no_json_are_refused(
    folder: Path, name: str, damage: Callable[[Path], None]
) -> None:
    damage(folder / name)
    with pytest.raises(ConfigurationError) as caught:
        load(folder)
    assert len(str(caught.value)) < 400


@pytest.mark.promise("P7")
@pytest.mark.parametrize("shards", [None, 5, {"a": 5}, *({"a": name} for name in NO_SHARDS)])
def test_an_index_that_is_none_is_refused(folder: Path, shards: object) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    with pytest.raises(ConfigurationError, match="is not an index") as caught:
        load(folder)
    assert len(str(caught.value)) < 400


@pytest.mark.promise("P7")
def test_an_index_that_promises_what_a_shard_does_not_hold_is_refused(folder: Path) -> None:
    file = folder / "model.safetensors.index.json"
    index = json.loads(file.read_text())
    index["weight_map"]["x_proj.weight"] = "model-00001-of-00002.safetensors"
    file.write_text(json.dumps(index))
    with pytest.raises(ConfigurationError, match="does not hold 'x_proj"):
        load(folder)


@pytest.mark.promise("P7")
def test_an_answer_token_beyond_the_vocabulary_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="the tokenizer belongs to another model"):
        load(folder, head=HeadSpec("words", 16, 0))
