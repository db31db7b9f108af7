"""Where each tensor of a checkpoint lies, read from the headers of its safetensors files; no tensor is loaded.

The format: eight bytes with the header's length, the header as JSON (name -> dtype, shape, offsets behind the
header), the tensors' bytes. https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from rerankd.checkpoint_files import INDEX, require_safetensors
from rerankd.errors import ConfigurationError
from rerankd.files import UnreadableFile, read_json_object

_SINGLE = "model.safetensors"
_SHOWN_CHARACTERS = 100
"""Of a tensor's name, or of what the library says, in an error."""
_ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2}


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor on the disk.

    Attributes:
        file: the safetensors file.
        dtype: ``F32``, ``F16`` or ``BF16``.
        offset: of the first byte, from the beginning of the file.
        size: in bytes.
    """

    file: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int
    size: int

    def part(self, index: int, parts: int) -> StoredTensor:
        """One of ``parts`` equal runs of rows, as a tensor of its own."""
        rows = self.shape[0] // parts
        size = self.size // parts
        return StoredTensor(self.file, self.dtype, (rows, *self.shape[1:]), self.offset + index * size, size)

    def read(self) -> NDArray[np.float32]:
        """The numbers as float32, shape ``shape``."""
        kind = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16}[self.dtype]
        count = math.prod(self.shape)
        numbers = np.fromfile(self.file, dtype=kind, count=count, offset=self.offset).reshape(self.shape)
        if self.dtype == "BF16":
            # bfloat16 is the upper half of a float32.
            return (numbers.astype(np.uint32) << 16).view(np.float32)
        return numbers.astype(np.float32)


class StoredWeights(Mapping[str, StoredTensor]):
    """The tensors of a folder by name.

    Raises:
        ConfigurationError: no safetensors (pickled weights are refused), or a file that is incomplete.
    """

    def __init__(self, folder: Path) -> None:
        self._tensors: dict[str, StoredTensor] = {}
        for file in _files(folder):
            self._tensors |= _header(file)

    def __getitem__(self, name: str) -> StoredTensor:
        if name not in self._tensors:
            raise ConfigurationError(f"the checkpoint has no tensor {name!r}")
        return self._tensors[name]

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    @property
    def parameters(self) -> int:
        """Numbers in all tensors."""
        return sum(math.prod(tensor.shape) for tensor in self._tensors.values())


def has_weights(folder: Path) -> bool:
    """Whether the folder holds safetensors under their released names."""
    return (folder / _SINGLE).is_file() or (folder / INDEX).is_file()


def _files(folder: Path) -> list[Path]:
    if not (folder / INDEX).is_file():
        return [folder / _SINGLE]
    try:
        shards = read_json_object(folder / INDEX)["weight_map"].values()
        return sorted({folder / Path(shard).name for shard in shards})
    except UnreadableFile:
        raise
    except (KeyError, AttributeError, TypeError):
        raise ConfigurationError(f"{folder / INDEX} is not an index of safetensors files") from None


def _header(file: Path) -> dict[str, StoredTensor]:
    require_safetensors(file)
    try:
        # The library checks what a header says of itself: its length, the offsets, the size of the file.
        with safe_open(file, framework="np"):
            pass
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            rows = json.loads(stream.read(length))
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error)[:_SHOWN_CHARACTERS]
        raise ConfigurationError(f"{file} is not a complete safetensors file: {reason}") from None
    return {
        name: _stored(file, 8 + length, name, row["dtype"], row["shape"], row["data_offsets"])
        for name, row in rows.items()
        if name != "__metadata__"
    }


def _stored(file: Path, base: int, name: str, dtype: str, shape: list[int], offsets: tuple[int, int]) -> StoredTensor:
    if dtype not in _ITEM_BYTES and not name.endswith("position_ids"):
        raise ConfigurationError(
            f"{name[:_SHOWN_CHARACTERS]!r} is stored as {dtype}; the onnx engine reads float32, bfloat16 and float16"
        )
    begin, end = offsets
    return StoredTensor(file, dtype, tuple(shape), base + begin, end - begin)
