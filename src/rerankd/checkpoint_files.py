"""The files of a checkpoint's folder: what is expected there, and what else was found.

Everything that reads ``config.json`` reads it here. :func:`check_layout` looks at names and first bytes alone and
says what a folder is that cannot be served, and what to do about it, before anything expensive begins.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rerankd.errors import ConfigurationError
from rerankd.files import MAX_CONFIG_BYTES, UnreadableFile, read_bytes, read_json_object, require_regular

CONFIG = "config.json"
TOKENIZER = "tokenizer.json"
TEMPLATE = "template.json"
INDEX = "model.safetensors.index.json"

MAX_TOKENIZER_BYTES = 128 * 1024 * 1024
"""Of tokenizer.json; the largest known have some 35 MB."""
MAX_HEADER_BYTES = 16 * 1024 * 1024
"""Of a safetensors file, before its library makes an object of each tensor: 100,000 tensors have some 10 MB."""
_MAX_FILES = 4096
_GIT_LFS = b"version https://git-lfs"
_RERANKERS = "Qwen/Qwen3-Reranker-0.6B (or -4B, -8B)"


def read_config(folder: Path) -> dict[str, Any]:
    """config.json as it stands.

    Raises:
        ConfigurationError: there is none, it cannot be read, or it is not a JSON object.
    """
    file = folder / CONFIG
    if not file.exists():
        raise ConfigurationError(f"there is no {file}: is this the folder of a checkpoint?")
    return read_json_object(file)


def architectures(folder: Path) -> list[str]:
    """The names of the model classes that config.json gives; none where it gives none."""
    names = read_config(folder).get("architectures")
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def checkpoint_files(folder: Path) -> list[Path]:
    """Every file that can move a score: settings, tokenizer, template, weights; sorted by name.

    Raises:
        ConfigurationError: one of them is no regular file, or there are thousands of them.
    """
    found: list[Path] = []
    for place in (folder, folder / "onnx", folder / "1_LogitScore"):
        for pattern in ("*.json", "*.safetensors", "*.onnx", "*.onnx_data", "merges.txt"):
            for file in place.glob(pattern):
                found.append(file)
                if len(found) > _MAX_FILES:
                    raise ConfigurationError(f"there are more than {_MAX_FILES} files in {folder}")
    for file in found:
        require_regular(file)
    return sorted(found)


def require_safetensors(file: Path) -> None:
    """Refuse what the safetensors library would wait for, never end with, or take much memory for.

    Raises:
        ConfigurationError: it is no regular file, or its header is larger than any model's.
    """
    if not file.is_file():
        raise ConfigurationError(f"a part of the checkpoint is missing: {file}")
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read: {error.strerror}") from None
    if length > MAX_HEADER_BYTES:
        raise ConfigurationError(
            f"{file} is not a complete safetensors file: its header would take {length} bytes, more than the "
            f"{MAX_HEADER_BYTES} that are read"
        )


def check_layout(folder: Path) -> None:
    """Refuse a folder that holds something else than a checkpoint that can be served.

    Raises:
        ConfigurationError: the message says what was found and what to do next.
    """
    names = _names(folder)
    problem = _adapter(folder, names) or _without_config(folder, names) or _embedding(folder, names)
    if problem:
        raise ConfigurationError(problem)
    for name in sorted(names):
        if name.endswith((".safetensors", ".json")) and _is_lfs_pointer(folder / name):
            raise ConfigurationError(
                f"{folder / name} is a Git LFS pointer, not the file itself: run `git lfs pull` in {folder}, or "
                "download the checkpoint with `hf download`"
            )
    if TOKENIZER not in names:
        raise ConfigurationError(
            f"there is no {TOKENIZER} in {folder}: save the tokenizer there with transformers' "
            "AutoTokenizer.from_pretrained(…).save_pretrained(…)"
        )


def _names(folder: Path) -> frozenset[str]:
    names = set()
    try:
        for place, file in enumerate(folder.iterdir()):
            if place > _MAX_FILES:
                raise ConfigurationError(f"there are more than {_MAX_FILES} files in {folder}")
            names.add(file.name)
    except OSError as error:
        raise UnreadableFile(f"{folder} cannot be read: {error.strerror}") from None
    return frozenset(names)


def _adapter(folder: Path, names: frozenset[str]) -> str:
    if "adapter_config.json" not in names or CONFIG in names:
        return ""
    base = read_json_object(folder / "adapter_config.json").get("base_model_name_or_path")
    of = f" of {base[:200]}" if isinstance(base, str) and base else ""
    return (
        f"{folder} holds a LoRA adapter{of}, not a whole model: merge it with peft's merge_and_unload(), save the "
        "result with save_pretrained(), and give that folder"
    )


def _without_config(folder: Path, names: frozenset[str]) -> str:
    if CONFIG in names:
        return ""
    if any(name.endswith(".gguf") for name in names):
        return (
            f"{folder} holds GGUF weights, which rerankd does not read: give the original checkpoint in safetensors, "
            f"such as {_RERANKERS}"
        )
    for name in sorted(names):
        if (folder / name / CONFIG).is_file():
            return f"there is no {CONFIG} in {folder}, but there is one in its folder {name}: give {folder / name}"
    snapshots = folder / "snapshots"
    if snapshots.is_dir():
        return f"{folder} is a folder of the hub's cache: give one of {snapshots}, or the hub name itself"
    return f"there is no {CONFIG} in {folder}: is this the folder of a checkpoint? It holds {_listed(names)}"


def _embedding(folder: Path, names: frozenset[str]) -> str:
    if "modules.json" not in names or TEMPLATE in names:
        return ""
    # sentence-transformers lists its modules; one that pools makes vectors, not scores.
    text = read_bytes(folder / "modules.json").decode("utf-8", "replace")
    try:
        modules = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    types = (
        [str(row.get("type", "")) for row in modules if isinstance(row, dict)] if isinstance(modules, list) else []
    )
    if not any("Pooling" in kind for kind in types):
        return ""
    return (
        f"{folder} holds an embedding model (its modules.json pools token vectors), which gives no score for a pair: "
        f"give a reranker, such as {_RERANKERS}"
    )


def _is_lfs_pointer(file: Path) -> bool:
    if not file.is_file() or file.stat().st_size > 1024:
        return False
    return read_bytes(file, MAX_CONFIG_BYTES).startswith(_GIT_LFS)


def _listed(names: Iterable[str]) -> str:
    shown = sorted(names)
    more = f" and {len(shown) - 5} more" if len(shown) > 5 else ""
    return f"{', '.join(shown[:5])}{more}" if shown else "nothing"
