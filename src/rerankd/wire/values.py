"""How one value of a body is read, whoever sent it: liberal in what is taken, strict in what it may mean.

Clients of the same API send explicit nulls, ``"true"`` for true, documents as strings, objects or one single string.
All of that is read. A value that cannot mean anything is refused with the name of its field (``where``), and is never
repeated. Each reader takes the value, which is not null, and returns what it means, or None for "not said".
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NoReturn, TypeAlias

from rerankd.errors import EmptyInput, InvalidJSON, InvalidRequest, TooLarge
from rerankd.wire.base import Json
from rerankd.wire.json_guard import MAX_NUMBER_LENGTH, decode_json

Reader: TypeAlias = Callable[[Json, str], Any]

MAX_PARTS = 1000
"""Parts of one message, and messages of one conversation."""

MAX_RANK_FIELDS = 64
"""Names of ``rank_fields``: each document is asked for each of them."""

_MAX_NUMBER = 2**31 - 1
_FLAGS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def refuse(where: str, why: str) -> NoReturn:
    raise InvalidRequest(f"{where} {why}", param=where)


def as_sent(value: Json, where: str) -> Json:
    return value


def string(value: Json, where: str) -> str:
    return value if isinstance(value, str) else refuse(where, "has to be a string")


def filled(value: Json, where: str) -> str | None:
    """A string; an empty one means that nothing was said."""
    return string(value, where) or None


def user(value: Json, where: str) -> str | None:
    """SDKs send it for purposes of their own: what is no text says nothing."""
    return value if isinstance(value, str) and value else None


def flag(value: Json, where: str) -> bool:
    word = str(value).lower() if isinstance(value, str | int) else ""
    return _FLAGS[word] if word in _FLAGS else refuse(where, "has to be true or false")


def not_flag(value: Json, where: str) -> bool:
    return not flag(value, where)


def whole(least: int = 0) -> Reader:
    """A whole number of at least ``least``; what is more than any list or text can hold is as good as that."""

    def read(value: Json, where: str) -> int:
        number = _whole(value)
        if number is None or number < least:
            refuse(where, f"has to be a whole number of at least {least}")
        return min(number, _MAX_NUMBER)

    return read


def above_zero(value: Json, where: str) -> int | None:
    """A limit of which zero, too, means that there is none."""
    limit: int = whole()(value, where)
    return limit or None


def number(value: Json, where: str) -> float:
    if isinstance(value, str) and value.isascii() and len(value) <= MAX_NUMBER_LENGTH:
        try:
            value = float(value)
        except ValueError:
            value = None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        refuse(where, "has to be a number")
    return float(value)


def numbers(most: int) -> Reader:
    """A list of numbers, null where there is none, no longer than ``most``."""

    def read(value: Json, where: str) -> tuple[float | None, ...]:
        if not isinstance(value, list):
            refuse(where, "has to be a list of numbers")
        if len(value) > most:
            refuse(where, f"has {len(value)} numbers, the limit is {most}")
        return tuple(None if item is None else number(item, f"{where}[{place}]") for place, item in enumerate(value))

    return read


def share(value: Json, where: str) -> float:
    """A number of 0 to 1."""
    found = number(value, where)
    return found if 0 <= found <= 1 else refuse(where, "has to be a number from 0 to 1")


def side(value: Json, where: str) -> Literal["left", "right"]:
    word = value.lower() if isinstance(value, str) else ""
    if word == "left":
        return "left"
    return "right" if word == "right" else refuse(where, "has to be left or right")


def choice(*words: str) -> Reader:
    """One of some words, in any case."""

    def read(value: Json, where: str) -> str:
        word = value.lower() if isinstance(value, str) else ""
        return word if word in words else refuse(where, f"has to be one of {', '.join(words)}")

    return read


def names(value: Json, where: str) -> tuple[str, ...]:
    """Names of fields, each once."""
    if not isinstance(value, list) or not value or not all(isinstance(item, str) for item in value):
        refuse(where, "has to be a list of field names")
    if len(value) > MAX_RANK_FIELDS:
        refuse(where, f"has {len(value)} names, the limit is {MAX_RANK_FIELDS}")
    return tuple(dict.fromkeys(value))


def instruction_inside(value: Json, where: str) -> str | None:
    """``instruction`` or ``instruct`` of an object."""
    if not isinstance(value, dict):
        refuse(where, "has to be a JSON object")
    for name in ("instruction", "instruct"):
        if value.get(name) is not None and (text := filled(value[name], f"{where}.{name}")):
            return text
    return None


def instruction_in_words(value: Json, where: str) -> str | None:
    """Xinference's ``kwargs``: an object, written as a JSON string."""
    if isinstance(value, dict):
        return instruction_inside(value, where)
    if not isinstance(value, str) or not value.strip():
        return None
    try:
        return instruction_inside(decode_json(value.encode(), max_depth=8).value or {}, where)
    except InvalidJSON:
        refuse(where, "has to hold a JSON object")


def text(value: Json, where: str) -> str:
    """A text as a string, as ``{"text": ...}``, or as ``{"content": ...}`` with the text parts of a message."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        if isinstance(value.get("text"), str):
            return str(value["text"])
        content = value.get("content")
        if isinstance(content, str):
            return content
        if isinstance(content, list) and content and all(_is_text_part(part) for part in content):
            return "\n".join(part["text"] for part in content)
    refuse(where, "has to be a text: a string, or an object with `text`")


def items(value: Json, where: str, most: int, setting: str | None = "max_documents") -> list[Json]:
    """One thing or a list of them, as a list that is neither empty nor longer than ``most``, which is the setting's.

    Counted before any of them is looked at.
    """
    found = value if isinstance(value, list) else [value]
    if not found:
        raise EmptyInput(f"{where} must not be empty", param=where)
    if len(found) > most:
        unit = setting.removeprefix("max_") if setting else "items"
        raise TooLarge(f"{where} has {len(found)} {unit}, the limit is {most}", param=where, setting=setting)
    return found


def texts(value: Json, where: str, most: int, rank_fields: Sequence[str] = ("text",)) -> tuple[str, ...]:
    """One text or a list of up to ``most``: strings as they are, of objects the fields by these names."""
    found = items(value, where, most)
    if set(map(type, found)) == {str}:
        return tuple(found)
    if not isinstance(value, list):
        return (_document_text(value, rank_fields, where),)
    return tuple(_document_text(item, rank_fields, f"{where}[{index}]") for index, item in enumerate(found))


def _document_text(item: Json, rank_fields: Sequence[str], where: str) -> str:
    if isinstance(item, str):
        return item
    if isinstance(item, dict):
        given = [(name, item[name]) for name in rank_fields if item.get(name) is not None]
        if given:
            # One field is the text itself; several keep their names, as Cohere lays them out.
            lines = [flat(value) if len(rank_fields) == 1 else f"{name}: {flat(value)}" for name, value in given]
            return "\n".join(lines)
    return text(item, where)


def flat(value: Json) -> str:
    """A text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _whole(value: Json) -> int | None:
    if isinstance(value, str):
        digits = value.strip()
        short = len(digits) <= MAX_NUMBER_LENGTH
        return int(digits) if short and digits.isascii() and digits.isdigit() else None
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
        return None
    return int(value)


def _is_text_part(part: Json) -> bool:
    return isinstance(part, dict) and part.get("type", "text") == "text" and isinstance(part.get("text"), str)
