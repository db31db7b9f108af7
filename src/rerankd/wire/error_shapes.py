"""Errors as clients expect them: a shape and a table of statuses each, as data.

Two facts shape the tables. Clients of the documents APIs read ``detail``, ``message`` or ``error.message``,
each its own, so one object carries all three; and they crash on a 422, which some read as a list of field
errors, so what is 422 by the tree of errors is 400 for them. Text-embeddings-inference has its own statuses.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

from rerankd.errors import EmptyInput, ServiceError
from rerankd.wire.base import Json, WireResponse

DOCUMENTS_STATUS: Mapping[str, int] = MappingProxyType({"too_long": 400})
"""Statuses of the documents-shaped dialects where they differ from the error's own."""

TEI_ERRORS: Mapping[str, tuple[int, str]] = MappingProxyType(
    {
        "invalid_json": (400, "Validation"),
        "invalid_request": (422, "Validation"),
        "unauthorized": (401, "Validation"),
        "forbidden": (403, "Validation"),
        "not_found": (404, "Validation"),
        "method_not_allowed": (405, "Validation"),
        "receive_timeout": (408, "Validation"),
        "too_large": (413, "Validation"),
        "unsupported_media": (415, "Validation"),
        "too_long": (422, "Validation"),
        "headers_too_large": (431, "Validation"),
        "rate_limited": (429, "Overloaded"),
        "overloaded": (429, "Overloaded"),
        "client_closed": (499, "Validation"),
        "engine_error": (424, "Backend"),
        "non_finite_score": (424, "Backend"),
        "invalid_document": (422, "Validation"),
        "internal_error": (424, "Backend"),
        "not_ready": (503, "Unhealthy"),
        "draining": (503, "Unhealthy"),
        "engine_dead": (503, "Unhealthy"),
        "deadline_exceeded": (504, "Backend"),
    }
)
"""``code`` -> status and ``error_type`` of text-embeddings-inference."""

DASHSCOPE_CODES: Mapping[int, str] = MappingProxyType(
    {
        401: "InvalidApiKey",
        403: "AccessDenied",
        404: "NotFound",
        408: "RequestTimeOut",
        429: "Throttling",
        500: "InternalError",
        503: "ServiceUnavailable",
        504: "RequestTimeOut",
    }
)
"""Status -> ``code`` of DashScope; every other status is ``InvalidParameter``."""

OPENAI_TYPES: Mapping[int, str] = MappingProxyType(
    {
        401: "authentication_error",
        403: "permission_error",
        404: "not_found_error",
        429: "rate_limit_error",
        500: "server_error",
        503: "unavailable_error",
        504: "timeout_error",
    }
)
"""Status -> ``type`` of an OpenAI-styled error; every other status is ``invalid_request_error``."""


def documents_error(error: ServiceError, request_id: str) -> WireResponse:
    """The object that every documents-shaped client reads its own field of."""
    status = documents_status(error)
    body = {
        "id": request_id,
        "request_id": request_id,
        "code": error.code,
        "message": error.message,
        "detail": error.message,
        "error": {"message": error.message, "type": error.code, "param": error.param, "code": status},
    }
    return error_answer(error, body, status)


def voyage_error(error: ServiceError, request_id: str) -> WireResponse:
    """No ``error`` object: Voyage's Python client before 0.4 falls over one and never shows the message."""
    body = {"detail": error.message, "code": error.code, "request_id": request_id}
    return error_answer(error, body, documents_status(error))


def openai_error(error: ServiceError, request_id: str) -> WireResponse:
    """``{"error": {...}}`` alone, as vLLM, Infinity and llama.cpp answer."""
    status = documents_status(error)
    kind = OPENAI_TYPES.get(status, "invalid_request_error")
    inner = {"message": error.message, "type": kind, "param": error.param, "code": status}
    return error_answer(error, {"error": inner}, status)


def tei_error(error: ServiceError, request_id: str) -> WireResponse:
    status, kind = (400, "Empty") if isinstance(error, EmptyInput) else TEI_ERRORS[error.code]
    return error_answer(error, {"error": error.message, "error_type": kind}, status)


def weaviate_error(error: ServiceError, request_id: str) -> WireResponse:
    """Weaviate shows ``error`` and the status."""
    return error_answer(error, {"error": error.message, "code": error.code}, documents_status(error))


def dashscope_error(error: ServiceError, request_id: str) -> WireResponse:
    status = documents_status(error)
    code = DASHSCOPE_CODES.get(status, "InvalidParameter")
    return error_answer(error, {"code": code, "message": error.message, "request_id": request_id}, status)


def documents_status(error: ServiceError) -> int:
    return DOCUMENTS_STATUS.get(error.code, error.status)


def error_answer(error: ServiceError, body: Json, status: int) -> WireResponse:
    """The answer, with ``Retry-After`` in whole seconds on an error that a retry can cure."""
    if not error.retryable:
        return WireResponse(body, status)
    seconds = 1 if error.retry_after is None else max(1, math.ceil(error.retry_after))
    return WireResponse(body, status, {"Retry-After": str(seconds)})
