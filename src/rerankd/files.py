"""Small files that somebody else wrote: read whole, bounded in bytes and depth, and never waited for.

A path may name a FIFO or a device, which would block or never end, a file of any size, or JSON nested deep enough to
exhaust the parser. Each of these is an :class:`UnreadableFile` with one line that names the file and the reason.
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from rerankd.errors import ConfigurationError

MAX_CONFIG_BYTES = 64 * 1024 * 1024
"""Of a settings file, a config.json or an index of shards: that of a model of 100,000 tensors has about 10 MB."""


class UnreadableFile(ConfigurationError):
    """A file that is missing, no regular file, too large, or not what its name says."""


def read_bytes(file: Path, limit: int = MAX_CONFIG_BYTES) -> bytes:
    """The content of a regular file of at most ``limit`` bytes.

    Raises:
        UnreadableFile: it is missing, may not be read, is a FIFO, device, socket or folder, or is larger.
    """
    try:
        # Opening a FIFO would wait for its writer; O_NONBLOCK does not, and changes nothing for regular files.
        descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(descriptor, "rb") as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise UnreadableFile(f"{file} is {_kind(status.st_mode)}, not a regular file")
            if status.st_size > limit:
                raise UnreadableFile(f"{file} has {status.st_size} bytes, more than the {limit} that are read")
            # One byte more than allowed: the file may grow while it is read.
            content = stream.read(limit + 1)
    except (OSError, ValueError) as error:
        # ValueError: a NUL byte in the path.
        raise UnreadableFile(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(content) > limit:
        raise UnreadableFile(f"{file} grew beyond the {limit} bytes that are read")
    return content


def read_text(file: Path, limit: int = MAX_CONFIG_BYTES) -> str:
    """The same as UTF-8 text; a byte order mark at its beginning is no part of it."""
    try:
        return read_bytes(file, limit).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UnreadableFile(f"{file} is not UTF-8 text") from None


def read_json_object(file: Path, limit: int = MAX_CONFIG_BYTES) -> dict[str, Any]:
    """The JSON object that a file holds.

    Raises:
        UnreadableFile: as :func:`read_bytes`; or it is no JSON, nested too deeply, or no object.
    """
    return json_object(read_text(file, limit), file)


def json_object(text: str, file: Path) -> dict[str, Any]:
    """The JSON object in ``text``, which was read from ``file``."""
    try:
        rows = json.loads(text)
    except RecursionError:
        raise UnreadableFile(f"{file} is JSON nested too deeply") from None
    except ValueError as error:
        raise UnreadableFile(f"{file} is not JSON: {error}") from None
    if not isinstance(rows, dict):
        raise UnreadableFile(f"{file} has to hold one JSON object")
    return rows


def require_regular(file: Path) -> os.stat_result:
    """The status of a file that a library will open by itself.

    Raises:
        UnreadableFile: it is missing, or no regular file.
    """
    try:
        status = file.stat()
    except (OSError, ValueError) as error:
        raise UnreadableFile(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableFile(f"{file} is {_kind(status.st_mode)}, not a regular file")
    return status


def cache_folder() -> Path | None:
    """Where this user's programs keep what they can make again; None for a user without a home."""
    return _user_folder("XDG_CACHE_HOME", ".cache")


def state_folder() -> Path | None:
    """Where this user's programs keep what has to outlive them; None for a user without a home."""
    return _user_folder("XDG_STATE_HOME", ".local/state")


def _user_folder(variable: str, default: str) -> Path | None:
    """Of the XDG base directories: the variable counts where it holds an absolute path."""
    named = os.environ.get(variable, "")
    try:
        base = Path(named) if Path(named).is_absolute() else Path.home() / default
    except RuntimeError:
        return None
    return base / "rerankd"


def _kind(mode: int) -> str:
    for test, name in (
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISFIFO, "a FIFO"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
        (stat.S_ISSOCK, "a socket"),
    ):
        if test(mode):
            return name
    return "a special file"
