"""Whether the files of a checkpoint are whole: hashes where the hub gave them, lengths where it did not."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rerankd.checkpoint_files import CONFIG, INDEX, check_layout, checkpoint_files
from rerankd.errors import ConfigurationError
from rerankd.files import read_json_object

_SHA256 = re.compile(r"[0-9a-f]{64}")
_GIT_SHA1 = re.compile(r"[0-9a-f]{40}")
_MAX_HEADER_BYTES = 100 * 1024 * 1024
"""Of a safetensors file, as the format itself bounds it."""
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class FileCheck:
    """One file of a checkpoint.

    Attributes:
        how: what was compared: ``sha256`` or ``git sha1`` with the hub's, ``length`` with what its header says, or
            ``read`` where nothing is known to compare with.
        problem: what is wrong; empty where nothing is.
    """

    file: Path
    bytes: int
    how: str
    problem: str = ""


def check_files(folder: Path) -> list[FileCheck]:
    """Look at every byte of a checkpoint.

    Raises:
        ConfigurationError: the folder is not one of a checkpoint, or a file cannot be read.
    """
    check_layout(folder)
    checks = [_check(file) for file in checkpoint_files(folder)]
    missing = [FileCheck(folder / name, 0, "length", "it is missing") for name in _missing_shards(folder)]
    has_weights = any(check.file.suffix in (".safetensors", ".onnx") for check in checks)
    if not has_weights and not missing:
        missing.append(FileCheck(folder / "model.safetensors", 0, "length", "it is missing"))
    return checks + missing


def _check(file: Path) -> FileCheck:
    try:
        size = file.stat().st_size
        # The hub's cache keeps each file under its hash, and gives it its name by a link.
        name = file.resolve().name if file.is_symlink() else ""
        if _SHA256.fullmatch(name):
            found, how = _digest(file, hashlib.sha256()), "sha256"
        elif _GIT_SHA1.fullmatch(name):
            # How git names a file: the SHA-1 of its length and its bytes.
            header = f"blob {size}\0".encode()
            found, how = _digest(file, hashlib.sha1(header, usedforsecurity=False)), "git sha1"
        else:
            return _check_by_itself(file, size)
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read: {error.strerror}") from None
    return FileCheck(file, size, how, "" if found == name else f"its {how} is not the hub's: it is damaged")


def _check_by_itself(file: Path, size: int) -> FileCheck:
    if file.suffix == ".safetensors":
        expected = safetensors_bytes(file)
        problem = "" if size == expected else f"it has {size} bytes, and its header says {expected}: it is not whole"
        return FileCheck(file, size, "length", problem)
    if file.suffix == ".json":
        try:
            read_json_object(file)
        except ConfigurationError as error:
            return FileCheck(file, size, "read", error.message)
    return FileCheck(file, size, "read")


def safetensors_header(file: Path) -> dict[str, dict[str, object]]:
    """The tensors of a safetensors file: dtype, shape and offsets by name, from its first bytes.

    Raises:
        ConfigurationError: it is no safetensors file.
    """
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            text = stream.read(length) if length <= _MAX_HEADER_BYTES else b""
        rows = json.loads(text)
        return {name: dict(row) for name, row in rows.items() if name != "__metadata__"}
    except (OSError, ValueError, RecursionError, AttributeError, TypeError):
        raise ConfigurationError(f"{file} is not a safetensors file") from None


def safetensors_bytes(file: Path) -> int:
    """The length that a safetensors file has by its own header."""
    ends = [row.get("data_offsets") for row in safetensors_header(file).values()]
    last = max((end[1] for end in ends if isinstance(end, list) and len(end) == 2), default=0)
    with file.open("rb") as stream:
        return 8 + int.from_bytes(stream.read(8), "little") + int(last)


def _missing_shards(folder: Path) -> Iterator[str]:
    if not (folder / INDEX).is_file() or not (folder / CONFIG).is_file():
        return
    names = read_json_object(folder / INDEX).get("weight_map")
    for name in sorted({str(name) for name in names.values()} if isinstance(names, dict) else ()):
        if not (folder / name).is_file():
            yield name


def _digest(file: Path, digest: hashlib._Hash) -> str:
    with file.open("rb") as stream:
        while part := stream.read(_CHUNK_BYTES):
            digest.update(part)
    return digest.hexdigest()
