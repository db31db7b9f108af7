"""Tensors of a checkpoint by name, straight from its safetensors files through a memory map."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from rerankd.errors import ConfigurationError

_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_FLOATS = (torch.float32, torch.bfloat16, torch.float16)


class WeightFiles:
    """The released layout: one ``model.safetensors``, or shards listed by an index.

    A tensor that is read is a view of the mapped file: no copy, and processes share its pages.

    Raises:
        ConfigurationError: no safetensors files (pickled weights are refused), a shard or tensor that is
            missing, or one of a shape or number format that does not fit.
    """

    def __init__(self, folder: Path) -> None:
        self._files: dict[Path, Any] = {}
        self._places = _places(folder)

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def tensor(self, name: str, *shape: int) -> torch.Tensor:
        """The tensor ``name``, which has to have this shape, as the file stores it."""
        if name not in self._places:
            raise ConfigurationError(f"the checkpoint has no tensor {name!r}")
        tensor: torch.Tensor = self._open(self._places[name]).get_tensor(name)
        if tensor.shape != shape:
            raise ConfigurationError(f"{name!r} has shape {tuple(tensor.shape)} where config.json asks for {shape}")
        if tensor.dtype not in _FLOATS:
            raise ConfigurationError(
                f"{name!r} is stored as {tensor.dtype}; the native engine reads float32, bfloat16 and float16"
            )
        return tensor

    def formats(self, ending: str) -> set[str]:
        """The number formats, in the file's words, of the tensors whose names end so."""
        names = (name for name in self._places if name.endswith(ending))
        return {self._open(self._places[name]).get_slice(name).get_dtype() for name in names}

    def _open(self, file: Path) -> Any:
        if file not in self._files:
            self._files[file] = _open(file)
        return self._files[file]


def _open(file: Path) -> Any:
    try:
        return safe_open(file, framework="pt", device="cpu")
    except FileNotFoundError:
        raise ConfigurationError(f"a part of the checkpoint is missing: {file}") from None
    except (OSError, SafetensorError) as error:
        raise ConfigurationError(f"{file} is not a complete safetensors file: {error}") from None


def _places(folder: Path) -> dict[str, Path]:
    if (folder / _INDEX).is_file():
        return _indexed(folder)
    single = folder / _SINGLE
    if single.is_file():
        return dict.fromkeys(_open(single).keys(), single)
    if any(folder.glob("*.bin")) or any(folder.glob("*.pt")):
        raise ConfigurationError(
            f"{folder} holds pickled weights only, which can run code when read; convert them to safetensors"
        )
    raise ConfigurationError(f"there are no weights in {folder}: neither {_SINGLE} nor {_INDEX}")


def _indexed(folder: Path) -> dict[str, Path]:
    try:
        names = json.loads((folder / _INDEX).read_text(encoding="utf-8"))["weight_map"]
        places = {name: folder / Path(file).name for name, file in names.items()}
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        raise ConfigurationError(f"{folder / _INDEX} is not an index of safetensors files") from None
    for file in sorted(set(places.values())):
        if not file.is_file():
            raise ConfigurationError(f"a part of the checkpoint is missing: {file}")
    return places
