"""Strict JSON: bytes of a body -> a decoded value that every later layer can trust.

``json.loads`` takes what breaks a server later: NaN, 1e400, lone surrogates (the tokenizer refuses them), the
last of two equal keys. All of that is refused here, as is a byte order mark (RFC 8259 forbids to send one). An
escaped NUL is a character like any other and is accepted.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

from rerankd.errors import InvalidJSON
from rerankd.wire.base import Json

MAX_NUMBER_LENGTH = 64
"""Characters of one number: no field of any dialect needs more, and a long integer is slow to convert."""

MAX_KEYS = 1024
"""Keys of one object."""

MAX_VALUES = 50_000
"""Objects and numbers of a body, and as many lists: a thousand documents of fifty fields each. As many of them as
4 MB hold take the event loop for half a second, and a quarter of a gigabyte; strings cost next to nothing."""


def decode_json(body: bytes, max_depth: int) -> Json:
    """The value that ``body`` holds.

    Args:
        body: the bytes as they arrived; UTF-8 without a byte order mark.
        max_depth: how many arrays and objects may lie in each other.

    Raises:
        InvalidJSON: says what is wrong and at which character, never what was sent.
    """
    if body.startswith(b"\xef\xbb\xbf"):
        raise InvalidJSON("the body starts with a byte order mark; send UTF-8 without one")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidJSON(f"the body is not UTF-8 at byte {error.start}") from None
    value = _parse(text, max_depth)
    # Only an escape can bring in half a surrogate pair: UTF-8 itself cannot hold one.
    _check_depth(value, max_depth, check_text="\\ud" in text or "\\uD" in text)
    return value


def _parse(text: str, max_depth: int) -> Json:
    # The decoder tells nobody of lists. Few texts hold so many brackets; those in strings do not count.
    if text.count("[") > MAX_VALUES and _STRING.sub("", text).count("[") > MAX_VALUES:
        raise InvalidJSON(_TOO_MANY)
    try:
        return _Strict().decode(text)
    except json.JSONDecodeError as error:
        raise InvalidJSON(f"the body is not JSON at character {error.pos}: {error.msg}") from None
    except RecursionError:
        raise InvalidJSON(_too_deep(max_depth)) from None


def _check_depth(value: Json, max_depth: int, *, check_text: bool) -> None:
    """Walks level by level: one list comprehension a level is quick and needs no stack."""
    level = [value]
    for _ in range(max_depth):
        if check_text:
            _check_text(level)
        level = [child for parent in level if type(parent) in _CHILDREN for child in _CHILDREN[type(parent)](parent)]
        if not level:
            return
    if any(type(child) in _CHILDREN for child in level):
        raise InvalidJSON(_too_deep(max_depth))
    if check_text:
        _check_text(level)


def _check_text(level: list[Json]) -> None:
    keys = (key for value in level if type(value) is dict for key in value)
    for text in (*keys, *(value for value in level if type(value) is str)):
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise InvalidJSON("a string of the body holds half a surrogate pair (\\ud800 to \\udfff)") from None


_CHILDREN: dict[type, Any] = {list: list.__iter__, dict: dict.values}


_STRING = re.compile(r'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
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
