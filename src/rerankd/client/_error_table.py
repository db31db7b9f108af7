"""Which error an answer stands for. Made by docs/generate.py from docs/reference/errors.json; do not edit."""

from __future__ import annotations

from collections.abc import Mapping

from rerankd.client import errors

BY_CODE: Mapping[str, type[errors.StatusError]] = {
    "invalid_document": errors.InvalidRequest,
    "invalid_json": errors.InvalidRequest,
    "invalid_request": errors.InvalidRequest,
    "unauthorized": errors.Unauthorized,
    "forbidden": errors.Forbidden,
    "not_found": errors.NotFound,
    "method_not_allowed": errors.MethodNotAllowed,
    "receive_timeout": errors.ReceiveTimeout,
    "too_large": errors.TooLarge,
    "unsupported_media": errors.UnsupportedMedia,
    "too_long": errors.TooLong,
    "overloaded": errors.Overloaded,
    "rate_limited": errors.RateLimited,
    "headers_too_large": errors.HeadersTooLarge,
    "engine_error": errors.ScoringError,
    "non_finite_score": errors.NonFiniteScore,
    "draining": errors.Draining,
    "engine_dead": errors.EngineDead,
    "not_ready": errors.NotReady,
    "deadline_exceeded": errors.DeadlineExceeded,
}

# For answers without a known code: a proxy's own, or those of a newer server.
BY_STATUS: Mapping[int, type[errors.StatusError]] = {
    400: errors.InvalidRequest,
    401: errors.Unauthorized,
    403: errors.Forbidden,
    404: errors.NotFound,
    405: errors.MethodNotAllowed,
    408: errors.ReceiveTimeout,
    413: errors.TooLarge,
    415: errors.UnsupportedMedia,
    422: errors.TooLong,
    429: errors.Overloaded,
    431: errors.HeadersTooLarge,
    503: errors.NotReady,
    504: errors.DeadlineExceeded,
}
