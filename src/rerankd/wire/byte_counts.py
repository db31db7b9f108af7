"""How often the characters that shape JSON stand in a body, told while other threads have the interpreter.

Each search of a text holds the interpreter until it is through: two to seven milliseconds for a body of 4 MB, and it
takes several. NumPy needs three in all, and lets go of the interpreter meanwhile. A small body is searched as it is.
All of the characters are ASCII, and no other character of UTF-8 has a byte of theirs.
"""

from __future__ import annotations

from dataclasses import dataclass
from mmap import mmap
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Bytes: TypeAlias = "bytes | bytearray | mmap"
"""The bytes of a body, which nobody changes any more."""

_BACKSLASH, _U = ord("\\"), ord("u")

_BLOCK = 64 * 1024
"""Bytes that are compared in one go: both they and what comes of it stay in the processor's cache."""


@dataclass(frozen=True, slots=True)
class ByteCounts:
    """What stands in a body, in strings and outside.

    Attributes:
        lists: ``[``.
        objects: ``{``.
        quotes: quotation marks, two a string.
        has_unicode_escape: whether ``\\u`` stands there.
    """

    lists: int
    objects: int
    quotes: int
    has_unicode_escape: bool

    @classmethod
    def of(cls, body: Bytes) -> ByteCounts:
        if len(body) <= _BLOCK:
            small = bytes(body)
            return cls(small.count(b"["), small.count(b"{"), small.count(b'"'), b"\\u" in small)
        values = np.frombuffer(body, np.uint8)
        lists = objects = quotes = 0
        escaped = False
        for start in range(0, len(values), _BLOCK):
            block = values[start : start + _BLOCK]
            lists += _count(block, b"[")
            objects += _count(block, b"{")
            quotes += _count(block, b'"')
            # An escape may lie across the end of the block.
            escaped = escaped or _has_unicode_escape(values[start : start + _BLOCK + 1])
        return cls(lists, objects, quotes, escaped)


def count_objects(body: Bytes) -> int:
    """How many ``{`` stand in a body."""
    if len(body) <= _BLOCK:
        return bytes(body).count(b"{")
    values = np.frombuffer(body, np.uint8)
    return sum([_count(values[start : start + _BLOCK], b"{") for start in range(0, len(values), _BLOCK)])


def _count(block: NDArray[np.uint8], character: bytes) -> int:
    return int(np.count_nonzero(block == character[0]))


def _has_unicode_escape(block: NDArray[np.uint8]) -> bool:
    backslashes = block[:-1] == _BACKSLASH
    return bool(backslashes.any() and (block[1:][backslashes] == _U).any())
