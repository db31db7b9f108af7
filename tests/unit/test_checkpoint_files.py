"""rerankd.checkpoint_files: a folder that cannot be served says what it is and what to do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from rerankd.checkpoint import Checkpoint
from rerankd.errors import ConfigurationError
from rerankd.model_hub import resolve_checkpoint

QWEN3: dict[str, Any] = {"architectures": ["Qwen3ForCausalLM"], "vocab_size": 1000}
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:0000\nsize 1192135096\n"


def folder_of(place: Path, files: dict[str, Any]) -> Path:
    for name, content in files.items():
        file = place / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content if isinstance(content, str) else json.dumps(content))
    place.mkdir(exist_ok=True)
    return place


@pytest.mark.promise("U14")
@pytest.mark.parametrize(
    ("files", "says"),
    [
        (
            {
                "adapter_config.json": {"base_model_name_or_path": "Qwen/Qwen3-Reranker-0.6B"},
                "adapter_model.safetensors": "",
            },
            ["LoRA adapter of Qwen/Qwen3-Reranker-0.6B", "merge_and_unload"],
        ),
        ({"adapter_config.json": {"base_model_name_or_path": 5}}, ["LoRA adapter", "merge_and_unload"]),
        ({"model-q8_0.gguf": "GGUF"}, ["GGUF", "safetensors"]),
        (
            {"config.json": QWEN3, "tokenizer.json": {}, "model.safetensors": LFS},
            ["model.safetensors", "git lfs pull"],
        ),
        ({"config.json": LFS}, ["config.json", "git lfs pull"]),
        ({"config.json": QWEN3, "tokenizer.json": LFS}, ["tokenizer.json", "git lfs pull"]),
        ({"README.md": "x", "model.safetensors": ""}, ["no config.json", "README.md, model.safetensors"]),
        ({}, ["no config.json", "nothing"]),
        ({"checkpoint-500/config.json": QWEN3}, ["checkpoint-500", "give"]),
        ({"snapshots/abc/config.json": QWEN3, "refs/main": "abc"}, ["hub's cache", "snapshots"]),
        (
            {
                "config.json": QWEN3,
                "tokenizer.json": {},
                "modules.json": [
                    {"type": "sentence_transformers.models.Transformer"},
                    {"type": "sentence_transformers.models.Pooling"},
                ],
            },
            ["embedding model", "Qwen3-Reranker"],
        ),
        ({"config.json": QWEN3}, ["no tokenizer.json", "save_pretrained"]),
        (
            {"config.json": {"architectures": ["BertForSequenceClassification"]}, "tokenizer.json": {}},
            ["BertForSequenceClassification", "'template'"],
        ),
        ({"config.json": {}, "tokenizer.json": {}}, ["(none named)", "'template'"]),
        ({"config.json": {"architectures": [5, None]}, "tokenizer.json": {}}, ["(none named)"]),
        ({"config.json": {"architectures": "Qwen3"}, "tokenizer.json": {}}, ["(none named)"]),
    ],
)
def test_a_folder_says_what_it_is_and_what_to_do(tmp_path: Path, files: dict[str, Any], says: list[str]) -> None:
    folder = folder_of(tmp_path / "model", files)
    with pytest.raises(ConfigurationError) as caught:
        Checkpoint.open(str(folder))
    message = caught.value.message
    assert [part for part in (*says, str(folder)) if part not in message] == []
    assert "\n" not in message


@pytest.mark.promise("U14")
def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(resolve_checkpoint("tiny"), tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": 1000}))
    with pytest.raises(ConfigurationError, match="belongs to another checkpoint"):
        Checkpoint.open(str(folder))
