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

_BACKSLASH, _QUOTE, _U = b'\\"u'

_BLOCK = 64 * 1024
"""Bytes that are compared in one go: both they and what comes of it stay in the processor's cache."""


@dataclass(frozen=True, slots=True)
class ByteCounts:
    """What stands in a body, in strings and outside.

    Attributes:
        lists: ``[``.
        objects: ``{``.
        quotes: quotation marks, two a string and those within strings.
        escaped_quotes: those behind a backslash.
        has_unicode_escape: whether ``\\u`` stands there.
        has_escaped_backslash: whether two backslashes in a row do.
    """

    lists: int = 0
    objects: int = 0
    quotes: int = 0
    escaped_quotes: int = 0
    has_unicode_escape: bool = False
    has_escaped_backslash: bool = False

    @classmethod
    def of(cls, body: Bytes) -> ByteCounts:
        if len(body) <= _BLOCK:
            return cls._of_small(bytes(body))
        values = np.frombuffer(body, np.uint8)
        blocks = [cls._of_block(values[start : start + _BLOCK + 1]) for start in range(0, len(values), _BLOCK)]
        return cls(
            sum([block.lists for block in blocks]),
            sum([block.objects for block in blocks]),
            sum([block.quotes for block in blocks]),
            sum([block.escaped_quotes for block in blocks]),
            any(block.has_unicode_escape for block in blocks),
            any(block.has_escaped_backslash for block in blocks),
        )

    @classmethod
    def _of_small(cls, body: bytes) -> ByteCounts:
        return cls(
            body.count(b"["),
            body.count(b"{"),
            body.count(b'"'),
            body.count(b'\\"'),
            b"\\u" in body,
            b"\\\\" in body,
        )

    @classmethod
    def _of_block(cls, values: NDArray[np.uint8]) -> ByteCounts:
        """Of one block; the first byte of the next says what the last backslash escapes."""
        block = values[:_BLOCK]
        lists, objects, quotes = _count(block, b"["), _count(block, b"{"), _count(block, b'"')
        backslashes = values[:-1] == _BACKSLASH
        if not backslashes.any():
            return cls(lists, objects, quotes)
        escaped = values[1:]
        return cls(
            lists,
            objects,
            quotes,
            int(np.count_nonzero(backslashes & (escaped == _QUOTE))),
            bool((backslashes & (escaped == _U)).any()),
            bool((backslashes & (escaped == _BACKSLASH)).any()),
        )

    @property
    def string_quotes(self) -> int:
        """Quotation marks at the ends of strings; where backslashes are escaped too, those within strings as well."""
        return self.quotes if self.has_escaped_backslash else self.quotes - self.escaped_quotes


def count_objects(body: Bytes) -> int:
    """How many ``{`` stand in a body."""
    if len(body) <= _BLOCK:
        return bytes(body).count(b"{")
    values = np.frombuffer(body, np.uint8)
    return sum([_count(values[start : start + _BLOCK], b"{") for start in range(0, len(values), _BLOCK)])


def _count(block: NDArray[np.uint8], character: bytes) -> int:
    return int(np.count_nonzero(block == character[0]))
