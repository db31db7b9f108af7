"""Tensors of a checkpoint by name, straight from its safetensors files through a memory map."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open

from rerankd.checkpoint_files import INDEX, require_safetensors
from rerankd.errors import ConfigurationError
from rerankd.files import read_json_object

_SINGLE: Final = "model.safetensors"
_FLOATS: Final = (torch.float32, torch.bfloat16, torch.float16)
_DERIVED: Final = re.compile(r"lm_head\.weight|.*\.rotary_emb\.inv_freq")
"""Tensors that may go unread: the output matrix where a score has no use for it (tied to the embedding, or a
classifier), and RoPE's frequencies, which old releases of transformers stored and which are computed here."""
_SHARD: Final = re.compile(r"[\w.-]{1,200}\.safetensors", re.ASCII)
_SHOWN_NAMES: Final = 3
_SHOWN_CHARACTERS: Final = 100
"""Of a tensor's name, or of what the library says, in an error."""


class SafetensorsCheckpoint:
    """The released layout: one ``model.safetensors``, or shards listed by an index.

    A tensor that is read is a view of the mapped file: no copy, and processes share its pages. Replace a file that is
    being served by renaming another over it; writing into it changes the weights of whoever serves it.

    Raises:
        ConfigurationError: no safetensors files (pickled weights are refused), a shard or tensor that is missing, or
            one of a shape or number format that does not fit.
    """

    def __init__(self, folder: Path) -> None:
        self._files: dict[Path, Any] = {}
        self._shards = _shards(folder)
        self._unread = set(self._shards)

    def __contains__(self, name: str) -> bool:
        return name in self._shards

    def tensor(self, name: str, *shape: int) -> torch.Tensor:
        """The tensor ``name``, which has to have this shape, as the file stores it."""
        if name not in self._shards:
            raise ConfigurationError(f"the checkpoint has no tensor {name!r}")
        tensor: torch.Tensor = self._read(name, lambda file, name: file.get_tensor(name))
        if tensor.shape != shape:
            raise ConfigurationError(f"{name!r} has shape {tuple(tensor.shape)} where config.json asks for {shape}")
        if tensor.dtype not in _FLOATS:
            raise ConfigurationError(
                f"{name!r} is stored as {tensor.dtype}; the native engine reads float32, bfloat16 and float16"
            )
        self._unread.discard(name)
        return tensor

    def require_all_read(self) -> None:
        """Refuse a checkpoint that holds more than was read: such weights would change what the model says.

        Raises:
            ConfigurationError: it names the tensors.
        """
        unread = sorted(name for name in self._unread if not _DERIVED.fullmatch(name))
        if unread:
            more = f" and {len(unread) - _SHOWN_NAMES} more" if len(unread) > _SHOWN_NAMES else ""
            shown = ", ".join(f"{name[:_SHOWN_CHARACTERS]!r}" for name in unread[:_SHOWN_NAMES])
            raise ConfigurationError(
                f"the checkpoint has tensors that config.json does not account for: {shown}{more}"
            )

    def dtypes(self, suffix: str) -> frozenset[str]:
        """The number formats, in safetensors' words (``BF16``), of the tensors whose names end so."""
        names = [name for name in self._shards if name.endswith(suffix)]
        return frozenset(self._read(name, lambda file, name: file.get_slice(name).get_dtype()) for name in names)

    def _read(self, name: str, read: Callable[[Any, str], Any]) -> Any:
        shard = self._shards[name]
        if shard not in self._files:
            self._files[shard] = _open(shard)
        try:
            return read(self._files[shard], name)
        except SafetensorError as error:
            shown, reason = name[:_SHOWN_CHARACTERS], str(error)[:_SHOWN_CHARACTERS]
            raise ConfigurationError(f"{shard} does not hold {shown!r}: {reason}") from None


def _open(file: Path) -> Any:
    require_safetensors(file)
    try:
        return safe_open(file, framework="pt", device="cpu")
    except (OSError, SafetensorError) as error:
        reason = str(error)[:_SHOWN_CHARACTERS]
        raise ConfigurationError(f"{file} is not a complete safetensors file: {reason}") from None
    except RuntimeError as error:
        # torch's own, where the address space or the memory is too small for the map.
        size, reason = file.stat().st_size, str(error).rpartition(": ")[2][:_SHOWN_CHARACTERS]
        raise ConfigurationError(f"{file} of {size} bytes cannot be mapped: {reason}") from None


def _shards(folder: Path) -> dict[str, Path]:
    """The file of each tensor."""
    if (folder / INDEX).is_file():
        return _indexed(folder)
    single = folder / _SINGLE
    if single.is_file():
        return dict.fromkeys(_open(single).keys(), single)
    if any(folder.glob("*.bin")) or any(folder.glob("*.pt")):
        raise ConfigurationError(
            f"{folder} holds pickled weights only, which can run code when read; convert them to safetensors"
        )
    raise ConfigurationError(f"there are no weights in {folder}: neither {_SINGLE} nor {INDEX}")


def _is_shard(file: object) -> bool:
    """A plain file name: an index does not lead out of its folder."""
    return isinstance(file, str) and _SHARD.fullmatch(file) is not None


def _indexed(folder: Path) -> dict[str, Path]:
    names = read_json_object(folder / INDEX).get("weight_map")
    if not isinstance(names, dict) or not all(map(_is_shard, names.values())):
        raise ConfigurationError(f"{folder / INDEX} is not an index of safetensors files in the same folder")
    files = {file: folder / file for file in set(names.values())}
    for file in sorted(files.values()):
        if not file.is_file():
            raise ConfigurationError(f"a part of the checkpoint is missing: {file}")
    return {name: files[file] for name, file in names.items()}
