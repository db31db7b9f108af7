"""The OpenAPI document: FastAPI's own part for the GET routes, the dialects' own data for the rest.

It is written as OpenAPI 3.0.3, which generators of clients read most widely; the dialects' schemas, which are
JSON Schema of today, are translated where the two differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

import rerankd
from rerankd.wire.base import Json
from rerankd.wire.openapi import describe
from rerankd.wire.registry import Route

VERSION = "3.0.3"

_DESCRIPTION = """A reranking server for the Qwen3-Reranker models that speaks the dialects of many clients.

Every response carries `X-Request-Id`. `X-Request-Timeout-Ms` sets a request's deadline, `Cache-Control: no-cache`
has every document scored anew."""

_KEY = {
    "type": "http",
    "scheme": "bearer",
    "description": "An API key, where the server has any; `api-key` and `x-api-key` headers do as well.",
}


def document(app: FastAPI, routes: Sequence[Route], root_path: str = "") -> dict[str, Any]:
    """The whole document.

    Args:
        root_path: where a proxy shows the server.
    """
    described = get_openapi(
        title="rerankd",
        version=rerankd.__version__,
        description=_DESCRIPTION,
        openapi_version=VERSION,
        routes=app.routes,
    )
    paths: dict[str, Any] = {}
    for route in routes:
        paths.setdefault(route.path, {})["post"] = _operation(route)
    for path, operations in described.get("paths", {}).items():
        for verb, operation in operations.items():
            paths.setdefault(path, {})[verb] = operation | _path_parameters(path)
    described["paths"] = paths
    described["components"] = {"securitySchemes": {"key": _KEY}}
    described["servers"] = [{"url": root_path.rstrip("/") or "/"}]
    described["security"] = [{"key": []}, {}]
    translated: dict[str, Any] = _translate(described)
    return translated


def _operation(route: Route) -> dict[str, Json]:
    operation = {"tags": [route.tag], "summary": route.summary, "operationId": f"post{route.path}", **describe(route)}
    return operation | _path_parameters(route.path)


def _path_parameters(path: str) -> dict[str, Json]:
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    described = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]
    return {"parameters": described} if described else {}


_DATA = frozenset({"example", "examples", "enum", "default"})
"""Keys whose values are data, not schemas."""


def _translate(value: Any) -> Any:
    """``"type": [..., "null"]`` -> ``nullable``, ``const`` -> ``enum``."""
    if isinstance(value, list):
        return [_translate(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    translated = {key: inner if key in _DATA else _translate(inner) for key, inner in value.items()}
    if "const" in translated:
        translated["enum"] = [translated.pop("const")]
    kinds = translated.get("type")
    if not isinstance(kinds, list):
        return translated
    named = [kind for kind in kinds if kind != "null"]
    del translated["type"]
    nullable = {"nullable": True} if "null" in kinds else {}
    if len(named) == 1:
        return {"type": named[0], **translated, **nullable}
    return {"anyOf": [{"type": kind} for kind in named], **translated, **nullable}
