"""Strict JSON: bytes of a body -> a decoded value that every later layer can trust.

``json.loads`` takes what breaks a server later: NaN, 1e400, lone surrogates (the tokenizer refuses them), the
last of two equal keys. All of that is refused here, as is a byte order mark (RFC 8259 forbids to send one). An
escaped NUL is a character like any other and is accepted.

One exception: half a surrogate pair in an item of a list, which is what cutting a text inside an emoji leaves, is
read as U+FFFD with a warning. A thousand documents are not refused for one of them.

Time and memory are linear in the bytes of the body, whatever they are.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from rerankd.errors import InvalidJSON
from rerankd.wire.base import Json
from rerankd.wire.byte_counts import ByteCounts, Bytes

MAX_NUMBER_LENGTH = 64
"""Characters of one number: no field of any dialect needs more, and a long integer is slow to convert."""

MAX_KEYS = 1024
"""Keys of one object."""

MAX_VALUES = 50_000
"""Objects and numbers of a body, and as many lists: a thousand documents of fifty fields each. As many of them as
4 MB hold take half a second, and a quarter of a gigabyte; strings cost next to nothing."""

MAX_STRINGS = 400_000
"""Strings of a body, keys included: a call may hold 256 queries with a thousand documents each. What is decoded in
one go holds the interpreter, and so many are some twenty milliseconds."""

MAX_NAME = 32
"""Characters of a key that a warning repeats."""

MAX_NAMED_REPAIRS = 5
"""Repaired texts that a warning names; of the others it says the number."""

_CHUNK = 64 * 1024
"""Characters looked at in one go by what would otherwise hold the interpreter for a whole body."""

_SOME = 4096
_TEXT_BYTES = sys.getsizeof("")
_STRING_BYTES = sys.getsizeof("\u00e9") + 8
_NUMBER_BYTES = sys.getsizeof(0.5) + 8
"""Either with its place in a list."""

_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Decoded:
    """A decoded body.

    Attributes:
        value: what it holds.
        size: about the bytes of memory that ``value`` takes, which may be many times those of the body.
        warnings: what was read otherwise than it was sent.
    """

    value: Json
    size: int = 0
    warnings: tuple[str, ...] = ()


def decode_json(body: Bytes, max_depth: int) -> Decoded:
    """The value that ``body`` holds.

    Args:
        body: the bytes as they arrived; UTF-8 without a byte order mark.
        max_depth: how many arrays and objects may lie in each other.

    Raises:
        InvalidJSON: says what is wrong and at which character, never what was sent.
    """
    if body[:3] == b"\xef\xbb\xbf":
        raise InvalidJSON("the body starts with a byte order mark; send UTF-8 without one")
    try:
        text = str(body, "utf-8")
    except UnicodeDecodeError as error:
        raise InvalidJSON(f"the body is not UTF-8 at byte {error.start}") from None
    decoder, counts = _Strict(), ByteCounts.of(body)
    value = _parse(decoder, text, counts, max_depth)
    if not counts.has_unicode_escape and counts.lists + counts.objects <= max_depth:
        # Few brackets cannot nest too deep, and strings without escapes are no wider than the text.
        size = _flat_bytes(text, counts.string_quotes // 2, decoder.counted)
    else:
        size = _measure(value, max_depth)
    # Only an escape can bring in half a surrogate pair: UTF-8 itself cannot hold one.
    if not counts.has_unicode_escape or ("\\ud" not in text and "\\uD" not in text):
        return Decoded(value, size)
    repairs: list[str] = []
    value = _repair(value, "", repairs, in_list=False)
    return Decoded(value, size, _warnings(repairs))


def _parse(decoder: _Strict, text: str, counts: ByteCounts, max_depth: int) -> Json:
    # The decoder tells nobody of lists and strings. Few texts hold so many brackets or quotation marks.
    too_many_strings = counts.string_quotes > 2 * MAX_STRINGS
    if too_many_strings and not counts.has_escaped_backslash:
        raise InvalidJSON(_TOO_MANY_STRINGS)
    if too_many_strings or counts.lists > MAX_VALUES:
        _refuse_too_many(text)
    try:
        return decoder.decode(text)
    except json.JSONDecodeError as error:
        raise InvalidJSON(f"the body is not JSON at character {error.pos}: {error.msg}") from None
    except RecursionError:
        raise InvalidJSON(_too_deep(max_depth)) from None


def _refuse_too_many(text: str) -> None:
    """InvalidJSON of more lists or strings than a body may hold; what stands in strings does not count."""
    quotes = lists = 0
    for plain in _without_escapes(text):
        if "[" in plain:
            # Between quotation marks the text is outside and inside of strings in turn.
            lists += sum([part.count("[") for part in plain.split('"')[quotes % 2 :: 2]])
        quotes += plain.count('"')
        if quotes > 2 * MAX_STRINGS:
            raise InvalidJSON(_TOO_MANY_STRINGS)
        if lists > MAX_VALUES:
            raise InvalidJSON(_TOO_MANY)


def _without_escapes(text: str) -> Iterator[str]:
    """The text in parts without escaped backslashes and quotation marks; others have the interpreter between them."""
    start = 0
    while start < len(text):
        part = text[start : start + _CHUNK]
        backslashes = len(part) - len(part.rstrip("\\"))
        if backslashes % 2:
            # The last one escapes what comes next.
            part = text[start : start + _CHUNK + 1]
        start += len(part)
        yield part.replace("\\\\", "").replace('\\"', "")


def _flat_bytes(text: str, strings: int, counted: int) -> int:
    """About the bytes of memory of a text's values, of which few are lists or objects: never too few."""
    return sys.getsizeof(text) + strings * _STRING_BYTES + counted * _NUMBER_BYTES


def _measure(value: Json, max_depth: int) -> int:
    """Bytes of memory of a value that nests no deeper than ``max_depth``; InvalidJSON of one that does.

    Walks level by level, some thousand values at a time: needs no stack, and lets others have the interpreter.
    """
    size, level = 0, [value]
    for _ in range(max_depth + 1):
        parents: list[Json] = []
        for start in range(0, len(level), _SOME):
            some = level[start : start + _SOME]
            size += _text_bytes([item for item in some if type(item) is str])
            others = [item for item in some if type(item) in _COUNTED]
            size += sum(map(sys.getsizeof, others))
            parents += [item for item in others if type(item) in _CHILDREN]
        if not parents:
            return size
        size += sum([_text_bytes(list(parent)) for parent in parents if type(parent) is dict])
        level = [child for parent in parents for child in _CHILDREN[type(parent)](parent)]
    raise InvalidJSON(_too_deep(max_depth))


def _text_bytes(texts: list[str]) -> int:
    """Bytes of memory of texts; nearly all are ASCII, of which asking for the size of each would take four times as
    long as decoding it."""
    wide = [text for text in texts if not text.isascii()]
    return _TEXT_BYTES * len(texts) + sum(map(len, texts)) + sum(map(sys.getsizeof, wide))


def _repair(value: Json, where: str, repairs: list[str], *, in_list: bool) -> Json:
    """The value without half surrogate pairs; ``repairs`` learns where there were any."""
    if type(value) is str:
        if not _SURROGATE.search(value):
            return value
        if not in_list:
            raise InvalidJSON("a string of the body holds half a surrogate pair (\\ud800 to \\udfff)")
        repairs.append(where)
        return _SURROGATE.sub("\ufffd", value)
    if type(value) is list:
        return [_repair(item, f"{where}[{index}]", repairs, in_list=True) for index, item in enumerate(value)]
    if type(value) is not dict:
        return value
    if any(map(_SURROGATE.search, value)):
        raise InvalidJSON("a key of the body holds half a surrogate pair (\\ud800 to \\udfff)")
    return {key: _repair(item, _below(where, key), repairs, in_list=in_list) for key, item in value.items()}


def _below(where: str, key: str) -> str:
    """The place of a value in an object; only a key that looks like the name of a field is repeated."""
    name = key if key.isidentifier() and len(key) <= MAX_NAME else "*"
    return f"{where}.{name}" if where else name


def _warnings(repairs: list[str]) -> tuple[str, ...]:
    if not repairs:
        return ()
    more = len(repairs) - MAX_NAMED_REPAIRS
    named = ", ".join(repairs[:MAX_NAMED_REPAIRS]) + (f" and {more} more" if more > 0 else "")
    return (f"half a surrogate pair was read as U+FFFD in {named}",)


_COUNTED = frozenset({list, dict, int, float})
_CHILDREN: dict[type, Any] = {list: list.__iter__, dict: dict.values}
_TOO_MANY_STRINGS = f"the body holds more than {MAX_STRINGS} strings"
_TOO_MANY = f"the body holds more than {MAX_VALUES} objects, lists or numbers"


def _too_deep(max_depth: int) -> str:
    return f"the body nests deeper than {max_depth} levels (max_json_depth)"


class _Strict:
    """One body's decoder: counts what it holds while it decodes."""

    def __init__(self) -> None:
        self._left = MAX_VALUES
        self.decode = json.JSONDecoder(
            object_pairs_hook=self._object,
            parse_int=self._integer,
            parse_float=self._number,
            parse_constant=_constant,
        ).decode

    @property
    def counted(self) -> int:
        """Objects and numbers so far."""
        return MAX_VALUES - self._left

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise InvalidJSON(_TOO_MANY)

    def _object(self, pairs: list[tuple[str, Json]]) -> dict[str, Json]:
        self._count()
        if len(pairs) > MAX_KEYS:
            raise InvalidJSON(f"an object of the body has {len(pairs)} keys; the limit is {MAX_KEYS}")
        value = dict(pairs)
        if len(value) != len(pairs):
            raise InvalidJSON("an object of the body has the same key twice")
        return value

    def _integer(self, digits: str) -> int:
        self._count()
        if len(digits) > MAX_NUMBER_LENGTH:
            raise InvalidJSON(_long_number(digits))
        return int(digits)

    def _number(self, digits: str) -> float:
        self._count()
        if len(digits) > MAX_NUMBER_LENGTH:
            raise InvalidJSON(_long_number(digits))
        value = float(digits)
        if not math.isfinite(value):
            raise InvalidJSON("a number of the body is too large")
        return value


def _long_number(digits: str) -> str:
    return f"a number of the body has {len(digits)} characters; the limit is {MAX_NUMBER_LENGTH}"


def _constant(name: str) -> NoReturn:
    raise InvalidJSON("the body holds NaN or Infinity, which JSON does not know")
