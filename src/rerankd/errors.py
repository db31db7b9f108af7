"""The error tree: every failure that a client can meet, with the facts that each layer needs.

    RerankdError
    ├── ConfigurationError          the server does not start; the message says what to change
    └── ServiceError                answered over HTTP: ``code`` in the JSON, ``status``, ``retryable``
        ├── InvalidJSON             400 invalid_json
        ├── InvalidRequest          400 invalid_request
        │   └── EmptyInput          400 invalid_request
        ├── Unauthorized            401 unauthorized
        ├── Forbidden               403 forbidden
        ├── NotFound                404 not_found
        ├── MethodNotAllowed        405 method_not_allowed
        ├── ReceiveTimeout          408 receive_timeout
        ├── TooLarge                413 too_large
        ├── UnsupportedMedia        415 unsupported_media
        ├── TooLong                 422 too_long
        ├── HeadersTooLarge         431 headers_too_large
        ├── RateLimited             429 rate_limited
        ├── Overloaded              429 overloaded
        ├── ClientClosed            499 client_closed (counted, never sent)
        ├── ScoringError            500 engine_error
        │   ├── NonFiniteScore      500 non_finite_score
        │   └── InvalidDocument     400 invalid_document
        ├── NotReady                503 not_ready
        │   ├── Draining            503 draining
        │   └── EngineDead          503 engine_dead
        └── DeadlineExceeded        504 deadline_exceeded

A message never repeats what the client sent: it names the field, the limit, the value measured and the
setting that moves the limit.
"""

from __future__ import annotations

from typing import ClassVar


class RerankdError(Exception):
    """Anything that rerankd raises on purpose."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class ConfigurationError(RerankdError):
    """The server cannot start as configured; the message says which setting to change."""


class ServiceError(RerankdError):
    """A failure that is answered to the client.

    Args:
        message: one sentence for a person; never an echo of the input.
        param: the field of the request that was wrong, if one was.
        retry_after: seconds after which a retry makes sense (``Retry-After``), for retryable errors.
        setting: the setting that moves the limit that was met; the message ends with it unless it has it already.
    """

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        retry_after: float | None = None,
        setting: str | None = None,
    ) -> None:
        super().__init__(message if setting is None or setting in message else f"{message} ({setting})")
        self.param = param
        self.retry_after = retry_after
        self.setting = setting


class InvalidJSON(ServiceError):
    """The body is not strict JSON."""

    code = "invalid_json"
    status = 400


class InvalidRequest(ServiceError):
    """A field is missing, has the wrong type or a value that makes no sense."""

    code = "invalid_request"
    status = 400


class EmptyInput(InvalidRequest):
    """A list that has to hold something holds nothing."""


class Unauthorized(ServiceError):
    """No key, or a key that is not known."""

    code = "unauthorized"
    status = 401


class Forbidden(ServiceError):
    """A known key on a route that it may not use."""

    code = "forbidden"
    status = 403


class NotFound(ServiceError):
    """No such path, or (in strict mode) no such model."""

    code = "not_found"
    status = 404


class MethodNotAllowed(ServiceError):
    """The path exists, the method does not."""

    code = "method_not_allowed"
    status = 405


class ReceiveTimeout(ServiceError):
    """Headers or body did not arrive in time."""

    code = "receive_timeout"
    status = 408
    retryable = True


class TooLarge(ServiceError):
    """Too many bytes, documents or characters."""

    code = "too_large"
    status = 413


class UnsupportedMedia(ServiceError):
    """A content encoding or content type that is not read."""

    code = "unsupported_media"
    status = 415


class TooLong(ServiceError):
    """A pair has more tokens than the model may read and truncation is off."""

    code = "too_long"
    status = 422


class HeadersTooLarge(ServiceError):
    """Too many header bytes or header lines."""

    code = "headers_too_large"
    status = 431


class RateLimited(ServiceError):
    """The caller's own rate limit is used up."""

    code = "rate_limited"
    status = 429
    retryable = True


class Overloaded(ServiceError):
    """The queue, or the caller's share of it, is full."""

    code = "overloaded"
    status = 429
    retryable = True


class ClientClosed(ServiceError):
    """The client left before the answer; counted, never sent."""

    code = "client_closed"
    status = 499


class ScoringError(ServiceError):
    """The engine failed on this pair, alone, after its neighbours were saved."""

    code = "engine_error"
    status = 500


class NonFiniteScore(ScoringError):
    """The engine's score for this pair is not a number; it is reported and never sorted."""

    code = "non_finite_score"


class InvalidDocument(ScoringError):
    """This document is no text that can be tokenised; it fails alone, beside its neighbours' scores."""

    code = "invalid_document"
    status = 400


class NotReady(ServiceError):
    """The model is still loading."""

    code = "not_ready"
    status = 503
    retryable = True


class Draining(NotReady):
    """The server is shutting down and takes no new work."""

    code = "draining"


class EngineDead(NotReady):
    """The engine is gone for good; the process ends and its supervisor starts another."""

    code = "engine_dead"


class DeadlineExceeded(ServiceError):
    """The request's deadline passed before its scores were there."""

    code = "deadline_exceeded"
    status = 504


def model_is_loading() -> NotReady:
    """The answer of a server that is not ready yet."""
    return NotReady("the model is still loading", retry_after=2)


def server_is_stopping() -> Draining:
    """The answer of a server, or of a model, that takes no new work because it ends."""
    return Draining("the server is shutting down", retry_after=1)


def engine_is_gone() -> EngineDead:
    """The answer of a server whose engine has died."""
    return EngineDead("the engine is gone and the server is about to restart", retry_after=5)
