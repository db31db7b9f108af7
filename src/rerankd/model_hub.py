"""Where a checkpoint lies: the embedded model, a folder, or the local copy of a hub repository."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from rerankd.engine.base import DType
from rerankd.errors import ConfigurationError

EMBEDDED = "tiny"
"""Served name of the model that comes with the package."""

_PATTERNS = ("*.safetensors", "*.safetensors.index.json", "*.json", "merges.txt")
"""All that is ever taken from a hub: weights without pickle, settings, the tokenizer. Never code."""


def resolve_checkpoint(model: str, revision: str = "", dtype: DType = "auto") -> Path:
    """The folder that holds ``model``'s files.

    Args:
        model: ``tiny``, a folder, or a hub name such as ``Qwen/Qwen3-Reranker-0.6B`` (downloaded once, then
            taken from the hub's cache; ``HF_HUB_OFFLINE=1`` never asks the network).
        revision: commit, tag or branch of a hub name; empty means the newest.
        dtype: where a published graph has to be fetched, the one in this format.

    Raises:
        ConfigurationError: there is no such model, or the hub cannot be reached; the message says what to do.
    """
    local = local_checkpoint(model)
    if local:
        return local
    if _looks_like_a_path(model):
        raise ConfigurationError(f"there is no folder {model!r}; give a folder, a hub name or `{EMBEDDED}`")
    return _download(model, revision, dtype)


def local_checkpoint(model: str) -> Path | None:
    """The folder of the embedded model or of a path; None for what would have to be asked of a hub."""
    if model == EMBEDDED:
        return _embedded()
    folder = Path(model).expanduser()
    return folder if folder.is_dir() else None


def present_checkpoint(model: str, revision: str = "") -> Path | None:
    """As :func:`local_checkpoint`, and for a hub name what the hub's cache has of it. Asks no network.

    The hub may have a newer revision by now: only :func:`resolve_checkpoint` says which folder it is.
    """
    local = local_checkpoint(model)
    if local or _looks_like_a_path(model):
        return local
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model, revision=revision or None, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, OSError):
        return None


def _embedded() -> Path:
    folder = Path(str(resources.files("rerankd"))) / "models" / EMBEDDED
    if not (folder / "config.json").is_file():
        raise ConfigurationError(f"this build of rerankd carries no embedded model; there is no {folder}/config.json")
    return folder


def _looks_like_a_path(model: str) -> bool:
    return model.startswith((".", "/", "~")) or model.count("/") != 1 or "\\" in model


def _download(model: str, revision: str, dtype: DType) -> Path:
    # Imported here: it costs 0.3 s that a local checkpoint need not pay.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    from rerankd.engine.onnx.source import published_graphs

    try:
        folder = Path(snapshot_download(model, revision=revision or None, allow_patterns=list(_PATTERNS)))
        for name in published_graphs(folder, dtype):
            # One of many variants, each as large as the weights; of the same commit as the rest.
            snapshot_download(model, revision=folder.name, allow_patterns=[f"onnx/{name}", f"onnx/{name}_data"])
            if (folder / "onnx" / name).is_file():
                break
        return folder
    except RevisionNotFoundError:
        reason = f"{model!r} has no revision {revision!r}"
    except GatedRepoError:
        reason = f"{model!r} asks for a login; run `hf auth login` or set HF_TOKEN"
    except (RepositoryNotFoundError, HFValidationError):
        reason = f"there is no model {model!r}; give a folder, a hub name or `{EMBEDDED}`"
    except (LocalEntryNotFoundError, OSError):
        reason = (
            f"the hub cannot be reached and {model!r} is not in its cache; copy the model's folder here and give "
            f"its path, set HF_ENDPOINT to a mirror, or serve `{EMBEDDED}`"
        )
    raise ConfigurationError(reason)
