"""JSON schemas as data: the parts that the fields of ``wire.fields`` are described with."""

from __future__ import annotations

from typing import TypeAlias

from rerankd.wire.base import Json

Schema: TypeAlias = dict[str, Json]

TEXT: Schema = {"type": "string"}
_PART: Schema = {"type": "object", "required": ["text"], "properties": {"type": {"const": "text"}, "text": TEXT}}
_OBJECTS: list[Schema] = [
    {"type": "object", "required": ["text"], "properties": {"text": TEXT}},
    {
        "type": "object",
        "required": ["content"],
        "properties": {"content": {"anyOf": [TEXT, {"type": "array", "items": _PART, "minItems": 1}]}},
    },
]
TEXT_OR_OBJECT: Schema = {"anyOf": [TEXT, *_OBJECTS]}
TEXTS: Schema = {"anyOf": [TEXT, *_OBJECTS, {"type": "array", "items": TEXT_OR_OBJECT, "minItems": 1}]}


def optional(kind: str, **more: Json) -> Schema:
    """Of that type, or null, which means not given."""
    return {"type": [kind, "null"], **more}


def choice(*values: str) -> Schema:
    return {"enum": [*values, None]}


FLAG = optional("boolean")
WORDS = optional("string")
OBJECT = optional("object")
WARNINGS: Schema = {"type": "array", "items": TEXT}


def count(least: int = 0) -> Schema:
    return optional("integer", minimum=least)
