"""A hash over every byte of a checkpoint, for the keys of caches and kept scores.

Reading 16 GB takes seconds, so the hash of each file is remembered beside what the file system says of the file:
size, times of the last change of content and of attributes, device and inode. The time of the attributes cannot be
set back by copying tools. A file that changed in the last seconds is hashed but not remembered: a second change
within the resolution of the clock would go unseen.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rerankd.checkpoint_files import checkpoint_files
from rerankd.errors import ConfigurationError
from rerankd.files import UnreadableFile, cache_folder, read_json_object

_FILE = "file-hashes.json"
_SHA256 = re.compile("[0-9a-f]{64}")
_MAX_REMEMBERED = 10_000
_UNSETTLED_SECONDS = 2.0
_THREADS = 4


def fingerprint(folder: Path, remembered: Path | None = None) -> str:
    """16 hexadecimal digits that change with any byte of the checkpoint's files, or their names.

    Args:
        remembered: the file with the hashes of earlier calls; None takes that of the user's cache folder.

    Raises:
        ConfigurationError: a file cannot be read.
    """
    files = checkpoint_files(folder)
    digest = hashlib.sha256()
    for file, content in zip(files, FileHashes(remembered).of(files), strict=True):
        name = str(file.relative_to(folder)).encode("utf-8", "surrogateescape")
        digest.update(len(name).to_bytes(8, "little") + name + bytes.fromhex(content))
    return digest.hexdigest()[:16]


class FileHashes:
    """SHA-256 of files, remembered in one small JSON file. Without a folder for it every file is read each time."""

    def __init__(self, remembered: Path | None = None) -> None:
        folder = cache_folder()
        self._file = remembered or (folder / _FILE if folder else None)

    def of(self, files: Sequence[Path]) -> list[str]:
        """One hash a file, in order, as 64 hexadecimal digits; several files are read at once."""
        known = self._read()
        before = [_stamp(file) for file in files]
        missing = [file for file, stamp in zip(files, before, strict=True) if stamp not in known]
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="hash") as threads:
            made = dict(zip(missing, threads.map(_hash, missing), strict=True))
        hashes = [made.get(file) or known[stamp] for file, stamp in zip(files, before, strict=True)]
        settled = {
            stamp: made[file]
            for file, stamp in zip(files, before, strict=True)
            if file in made and _is_settled(file, stamp)
        }
        if settled:
            self._write({**known, **settled})
        return hashes

    def _read(self) -> dict[str, str]:
        if self._file is None:
            return {}
        try:
            rows = read_json_object(self._file)
        except UnreadableFile:
            return {}
        return {stamp: value for stamp, value in rows.items() if isinstance(value, str) and _SHA256.fullmatch(value)}

    def _write(self, rows: Mapping[str, str]) -> None:
        """By rename, so that a reader never sees half a file; a folder that cannot be written costs time only."""
        if self._file is None:
            return
        newest = dict(list(rows.items())[-_MAX_REMEMBERED:])
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with tempfile.NamedTemporaryFile(
                "w", encoding="utf-8", dir=self._file.parent, prefix=_FILE, delete=False
            ) as stream:
                json.dump(newest, stream)
            os.replace(stream.name, self._file)
        except OSError:
            return


def _hash(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read: {error.strerror}") from None


def _stamp(file: Path) -> str:
    """What changes when a file does, as one text."""
    try:
        status = file.stat()
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read: {error.strerror}") from None
    facts = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return f"{file.resolve()}:{':'.join(map(str, facts))}"


def _is_settled(file: Path, stamp: str) -> bool:
    """Whether the file did not change while it was read, nor just before."""
    status = file.stat()
    changed = max(status.st_mtime_ns, status.st_ctime_ns) / 1e9
    return _stamp(file) == stamp and time.time() - changed >= _UNSETTLED_SECONDS
