"""What clients in other languages are made from: the OpenAPI document, the table of errors, and code made of both.

``errors.json`` is exported from :mod:`rerankd.errors`; the tables of the Python and the TypeScript client are
written from it, and TypeScript's wire types from ``openapi.json``. ``docs/generate.py`` writes all of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

from rerankd import errors
from rerankd.http.app import create_app
from rerankd.http.openapi import document
from rerankd.service.runtime import RerankService
from rerankd.settings import Settings
from rerankd.wire.registry import ROUTES

TYPED_PATHS = ("/rerank", "/batch_rerank")
"""Paths whose bodies and answers the TypeScript client has types of."""

_NOT_SENT = {"client_closed"}
_CLIENT_CLASSES = {"invalid_json": "InvalidRequest", "invalid_document": "InvalidRequest"}
"""Codes whose class in the clients is not the server's own; ``code`` still tells them apart."""

_AMBIGUOUS = {400: "InvalidRequest", 429: "Overloaded"}
"""What a status means where several classes have it and none is the base of the others."""

_MADE = "Made by docs/generate.py from docs/reference/{}; do not edit."


@cache
def openapi() -> dict[str, Any]:
    settings = Settings()
    return document(create_app(settings, RerankService(settings)), ROUTES)


def openapi_json() -> str:
    """The document with a line for each path, so that a difference shows which one changed."""
    whole = openapi()
    paths = ",\n".join(f"  {_compact(path)}: {_compact(item)}" for path, item in whole["paths"].items())
    rest = [f" {_compact(key)}: {_compact(value)}" for key, value in whole.items() if key != "paths"]
    return "{\n" + ",\n".join([*rest, ' "paths": {\n' + paths + "\n }"]) + "\n}\n"


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


@cache
def error_table() -> dict[str, Any]:
    """``errors``: every error that is sent; ``by_status``: the class for an answer without a known code."""
    kinds = [kind for kind in service_errors() if kind.code not in _NOT_SENT]
    rows = [
        {
            "code": kind.code,
            "status": kind.status,
            "retryable": kind.retryable,
            "class": _client_class(kind),
            "meaning": meaning(kind),
        }
        for kind in kinds
    ]
    # Every 500 without a code is a ServerError, which is no class of one code.
    by_status = {str(kind.status): _general(kind.status, kinds) for kind in kinds if kind.status != 500}
    return {"errors": rows, "by_status": by_status}


def service_errors(base: type[errors.ServiceError] = errors.ServiceError) -> list[type[errors.ServiceError]]:
    """Every kind of error that has a code of its own, by status and code."""

    def below(kind: type[errors.ServiceError]) -> Iterator[type[errors.ServiceError]]:
        for child in kind.__subclasses__():
            if child.code != kind.code:
                yield child
            yield from below(child)

    kinds = (kind for kind in below(base) if "code" in vars(kind))
    return sorted(kinds, key=lambda kind: (kind.status, kind.code))


def meaning(kind: type[errors.ServiceError]) -> str:
    return (kind.__doc__ or "").strip().splitlines()[0]


def _client_class(kind: type[errors.ServiceError]) -> str:
    return _CLIENT_CLASSES.get(kind.code, kind.__name__)


def _general(status: int, kinds: list[type[errors.ServiceError]]) -> str:
    """The class that covers all of a status."""
    if status in _AMBIGUOUS:
        return _AMBIGUOUS[status]
    classes = {_CLIENT_CLASSES.get(kind.code, kind.__name__): kind for kind in kinds if kind.status == status}
    return next(name for name, kind in classes.items() if all(issubclass(other, kind) for other in classes.values()))


def errors_json() -> str:
    table = error_table()
    rows = ",\n".join(f"  {json.dumps(row, ensure_ascii=False)}" for row in table["errors"])
    return f'{{\n "errors": [\n{rows}\n ],\n "by_status": {json.dumps(table["by_status"])}\n}}\n'


def python_errors() -> str:
    """``rerankd/client/_error_table.py``."""
    table = error_table()
    codes = [f'    "{row["code"]}": errors.{row["class"]},' for row in table["errors"]]
    statuses = [f"    {status}: errors.{name}," for status, name in table["by_status"].items()]
    return "\n".join(
        [
            f'"""Which error an answer stands for. {_MADE.format("errors.json")}"""',
            "",
            "from __future__ import annotations",
            "",
            "from collections.abc import Mapping",
            "",
            "from rerankd.client import errors",
            "",
            "BY_CODE: Mapping[str, type[errors.StatusError]] = {",
            *codes,
            "}",
            "",
            "# For answers without a known code: a proxy's own, or those of a newer server.",
            "BY_STATUS: Mapping[int, type[errors.StatusError]] = {",
            *statuses,
            "}",
            "",
        ]
    )


def typescript_errors() -> str:
    """``clients/typescript/src/generated/errors.ts``."""
    table = error_table()
    codes = [f"  {row['code']}: errors.{row['class']}," for row in table["errors"]]
    statuses = [f"  {status}: errors.{name}," for status, name in table["by_status"].items()]
    return "\n".join(
        [
            f"// {_MADE.format('errors.json')}",
            'import * as errors from "../errors.js";',
            "",
            "type StatusErrorClass = new (message: string, facts: errors.StatusFacts) => errors.StatusError;",
            "",
            "export const BY_CODE: Readonly<Record<string, StatusErrorClass>> = {",
            *codes,
            "};",
            "",
            "/** For answers without a known code: a proxy's own, or those of a newer server. */",
            "export const BY_STATUS: Readonly<Record<number, StatusErrorClass>> = {",
            *statuses,
            "};",
            "",
        ]
    )


def typescript_types() -> str:
    """``clients/typescript/src/generated/wire.ts``: the bodies and answers of :data:`TYPED_PATHS`."""
    lines = [f"// {_MADE.format('openapi.json')}"]
    for name, part in (("Bodies", _body_schema), ("Answers", _answer_schema)):
        lines += ["", f"export interface {name} {{"]
        lines += [f'  "{path}": {type_of(part(openapi()["paths"][path]["post"]), 1)};' for path in TYPED_PATHS]
        lines.append("}")
    return "\n".join([*lines, ""])


def _body_schema(operation: dict[str, Any]) -> dict[str, Any]:
    schema: dict[str, Any] = operation["requestBody"]["content"]["application/json"]["schema"]
    return schema


def _answer_schema(operation: dict[str, Any]) -> dict[str, Any]:
    schema: dict[str, Any] = operation["responses"]["200"]["content"]["application/json"]["schema"]
    return schema


_SIMPLE = {"string": "string", "integer": "number", "number": "number", "boolean": "boolean"}


def type_of(schema: dict[str, Any], depth: int = 0) -> str:
    """The TypeScript type of what an OpenAPI 3.0 schema allows."""
    found = _type_of(schema, depth)
    return f"{found} | null" if schema.get("nullable") else found


def _type_of(schema: dict[str, Any], depth: int) -> str:
    for union in ("anyOf", "oneOf"):
        if union in schema:
            return " | ".join(dict.fromkeys(type_of(option, depth) for option in schema[union]))
    if "enum" in schema:
        return " | ".join(json.dumps(value) for value in schema["enum"])
    kind = schema.get("type")
    if kind == "array":
        return f"Array<{type_of(schema.get('items', {}), depth)}>"
    if kind == "object" and "properties" in schema:
        return _interface(schema, depth)
    return "Record<string, unknown>" if kind == "object" else _SIMPLE.get(str(kind), "unknown")


def _interface(schema: dict[str, Any], depth: int) -> str:
    margin, required = "  " * (depth + 1), schema.get("required", [])
    lines = []
    for name, inner in schema["properties"].items():
        if "description" in inner:
            lines.append(f"{margin}/** {inner['description']} */")
        lines.append(f"{margin}{name}{'' if name in required else '?'}: {type_of(inner, depth + 1)};")
    return "\n".join(["{", *lines, "  " * depth + "}"])
