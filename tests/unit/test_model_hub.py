"""Names become folders, and a hub out of reach is one clear line."""

from __future__ import annotations

import functools
from pathlib import Path

import huggingface_hub
import pytest

from rerankd.engine.base import DType
from rerankd.errors import ConfigurationError
from rerankd.model_hub import present_checkpoint, resolve_checkpoint


def test_a_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    assert resolve_checkpoint(str(tmp_path)) == tmp_path


@pytest.mark.promise("P12")
def test_what_is_here_is_found_without_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = tmp_path / "models--org--name" / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("a" * 40)
    download = functools.partial(huggingface_hub.snapshot_download, cache_dir=tmp_path, endpoint="http://127.0.0.1:1")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert present_checkpoint(str(tmp_path)) == tmp_path
    assert present_checkpoint("org/name") == present_checkpoint("org/name", "a" * 40) == snapshot
    assert [present_checkpoint(name) for name in ("org/other", "./nothing", "nothing", "a b/c")] == [None] * 4
    assert present_checkpoint("org/name", "b" * 40) is None


@pytest.mark.parametrize("name", ["./nothing", "/no/such/folder", "nothing", "a/b/c"])
def test_a_path_that_is_not_there_is_never_looked_up_on_a_hub(name: str) -> None:
    with pytest.raises(ConfigurationError, match="there is no folder"):
        resolve_checkpoint(name)


def test_only_safetensors_and_json_are_taken_from_a_hub_at_the_revision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, object] = {}

    def download(name: str, **options: object) -> str:
        asked.update(options, name=name)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    (tmp_path / "config.json").write_text('{"architectures": ["Qwen3ForCausalLM"]}')
    assert resolve_checkpoint("Qwen/Qwen3-Reranker-0.6B", "abc123") == tmp_path
    assert asked["revision"] == "abc123"
    patterns = asked["allow_patterns"]
    assert isinstance(patterns, list)
    assert not any(pattern.endswith((".py", ".bin", ".pt", "*")) for pattern in patterns)


@pytest.mark.parametrize("failure", ["LocalEntryNotFoundError", "OfflineModeIsEnabled"])
def test_a_hub_out_of_reach_is_one_line_that_says_what_to_do(failure: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import errors

    def download(*_: object, **__: object) -> str:
        raise getattr(errors, failure)("a long story\nover lines")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(ConfigurationError) as caught:
        resolve_checkpoint("Qwen/Qwen3-Reranker-0.6B")
    assert "\n" not in caught.value.message
    assert "copy the model's folder" in caught.value.message


@pytest.mark.parametrize(
    ("architecture", "dtype", "fetched"),
    [
        ("DebertaV2ForSequenceClassification", "auto", ["model.onnx"]),
        ("DebertaV2ForSequenceClassification", "float16", ["model_fp16.onnx"]),
        ("DebertaV2ForSequenceClassification", "int8", ["model_quantized.onnx"]),
        ("BertForSequenceClassification", "auto", []),
        ("Qwen3ForCausalLM", "auto", []),
    ],
)
def test_of_the_published_graphs_the_one_that_is_used_is_fetched(
    architecture: str, dtype: DType, fetched: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_hub = ("model.onnx", "model_fp16.onnx", "model_quantized.onnx", "model_q4.onnx")
    revisions = []

    def download(name: str, revision: str | None, allow_patterns: list[str]) -> str:
        revisions.append(revision)
        for file in on_hub:
            if f"onnx/{file}" in allow_patterns:
                (tmp_path / "onnx").mkdir(exist_ok=True)
                (tmp_path / "onnx" / file).touch()
        return str(tmp_path)

    (tmp_path / "config.json").write_text(f'{{"architectures": ["{architecture}"]}}')
    (tmp_path / "model.safetensors").touch()
    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    resolve_checkpoint("org/encoder", "main", dtype)
    assert sorted(file.name for file in tmp_path.glob("onnx/*")) == fetched
    assert revisions[0] == "main"
    assert set(revisions[1:]) <= {tmp_path.name}
