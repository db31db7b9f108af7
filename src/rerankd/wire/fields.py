"""The liberal reader: one way to read a field, whoever sent it.

Clients of the same API send explicit nulls, ``"true"`` for true, documents as strings, objects or one single
string, and keys that mean nothing here. All of that is read; a value that cannot mean anything is refused with
the name of its field, and is never repeated.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NoReturn

from rerankd.errors import InvalidJSON, InvalidRequest
from rerankd.wire.base import Json
from rerankd.wire.json_guard import decode_json

_FLAGS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_MAX_NUMBER = 2**31 - 1


class Fields:
    """The fields of one JSON object; null counts as not given, unknown keys are ignored."""

    def __init__(self, body: Json, where: str = "") -> None:
        if not isinstance(body, dict):
            raise InvalidRequest(f"{where or 'the body'} has to be a JSON object", param=where or None)
        self._body: Mapping[str, Json] = body
        self._where = f"{where}." if where else ""

    def __contains__(self, name: str) -> bool:
        """Whether the key is there at all, null or not: shapes are told apart by it."""
        return name in self._body

    @property
    def given(self) -> Mapping[str, Json]:
        return self._body

    def get(self, *names: str) -> Json:
        """The first of these fields that is not null, else None."""
        return next((self._body[name] for name in names if self._body.get(name) is not None), None)

    def required(self, name: str) -> Json:
        value = self._body.get(name)
        return self._refuse(name, "is missing") if value is None else value

    def inner(self, name: str) -> Fields:
        """The object in this field; an empty one where the field is not given."""
        value = self._body.get(name)
        return Fields({} if value is None else value, self._where + name)

    def text(self, name: str) -> str | None:
        value = self._body.get(name)
        return value if value is None or isinstance(value, str) else self._refuse(name, "has to be a string")

    def flag(self, name: str, default: bool | None = None) -> bool | None:
        value = self._body.get(name)
        if value is None:
            return default
        word = str(value).lower() if isinstance(value, str | int) else ""
        return _FLAGS[word] if word in _FLAGS else self._refuse(name, "has to be true or false")

    def whole(self, *names: str, least: int = 0) -> int | None:
        """The first of these fields that is not null, as a whole number of at least ``least``."""
        for name in names:
            value = self._body.get(name)
            if value is not None:
                number = _whole(value)
                if number is None or not least <= number <= _MAX_NUMBER:
                    self._refuse(name, f"has to be a whole number of at least {least}")
                return number
        return None

    def query(self, name: str) -> str:
        return _plain_text(self.required(name), self._where + name)

    def documents(self, name: str) -> tuple[tuple[str, ...], tuple[Json, ...]]:
        """The documents as texts, and as the client sent them."""
        value = self.required(name)
        names, where = self._rank_fields(), self._where + name
        if not isinstance(value, list):
            return (_document_text(value, names, where),), (value,)
        texts = tuple(_document_text(item, names, f"{where}[{index}]") for index, item in enumerate(value))
        return texts, tuple(value)

    def texts(self, name: str) -> tuple[str, ...]:
        """One or several texts; a single one counts as a list of one."""
        return self.documents(name)[0]

    def instruction(self) -> str | None:
        """The instruction by any of its names in the wild: three flat ones, and two inside other fields."""
        for fields in (self, self.inner("chat_template_kwargs"), self._keyword_arguments()):
            for name in ("instruction", "instruct"):
                if (value := fields.text(name)) is not None:
                    return value
        return None

    def side(self, *names: str) -> Literal["left", "right"]:
        value = self.get(*names)
        if value is None:
            return "right"
        side = value.lower() if isinstance(value, str) else ""
        if side == "left":
            return "left"
        return "right" if side == "right" else self._refuse(names[0], "has to be left or right")

    def _keyword_arguments(self) -> Fields:
        """Xinference's ``kwargs``: an object, written as a JSON string."""
        value = self._body.get("kwargs")
        if not isinstance(value, str) or not value.strip():
            return self.inner("kwargs") if isinstance(value, dict) else Fields({})
        try:
            return Fields(decode_json(value.encode(), max_depth=8) or {}, self._where + "kwargs")
        except InvalidJSON:
            self._refuse("kwargs", "has to hold a JSON object")

    def _rank_fields(self) -> Sequence[str]:
        value = self._body.get("rank_fields")
        if value is None:
            return ("text",)
        if not isinstance(value, list) or not value or not all(isinstance(item, str) for item in value):
            self._refuse("rank_fields", "has to be a list of field names")
        return value

    def _refuse(self, name: str, why: str) -> NoReturn:
        raise InvalidRequest(f"{self._where}{name} {why}", param=self._where + name)


def _whole(value: Json) -> int | None:
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
        return None
    return int(value)


def _document_text(item: Json, names: Sequence[str], where: str) -> str:
    if isinstance(item, str):
        return item
    if isinstance(item, dict) and any(item.get(name) is not None for name in names):
        given = [(name, item[name]) for name in names if item.get(name) is not None]
        # One field is the text itself; several keep their names, as Cohere lays them out.
        lines = [flat(value) if len(names) == 1 else f"{name}: {flat(value)}" for name, value in given]
        return "\n".join(lines)
    return _plain_text(item, where)


def flat(value: Json) -> str:
    """A text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _plain_text(value: Any, where: str) -> str:
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
    raise InvalidRequest(f"{where} has to be a text: a string, or an object with `text`", param=where)


def _is_text_part(part: Json) -> bool:
    return isinstance(part, dict) and part.get("type", "text") == "text" and isinstance(part.get("text"), str)
