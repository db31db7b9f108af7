"""What a call of the client can raise, and which of it the client itself tries again.

ClientError
├── ConnectionFailed            no connection, or it broke off                       retried
├── CallTimeout
│   ├── ConnectTimeout          no connection in time                                retried
│   ├── WriteTimeout            the request could not be sent in time
│   ├── ReadTimeout             no answer in time
│   └── PoolTimeout             all connections of this client stayed busy
├── InvalidResponse             an answer that is not rerankd's
└── StatusError                 an error answer: ``status``, ``code``, ``request_id``
    ├── InvalidRequest          400 invalid_json, invalid_request
    ├── Unauthorized            401 unauthorized
    ├── Forbidden               403 forbidden
    ├── NotFound                404 not_found
    ├── MethodNotAllowed        405 method_not_allowed
    ├── ReceiveTimeout          408 receive_timeout                                  retried
    ├── TooLarge                413 too_large
    ├── UnsupportedMedia        415 unsupported_media
    ├── TooLong                 422 too_long
    ├── HeadersTooLarge         431 headers_too_large
    ├── RateLimited             429 rate_limited                                     retried
    ├── Overloaded              429 overloaded                                       retried
    ├── NotReady                503 not_ready                                        retried
    │   ├── Draining            503 draining                                         retried
    │   └── EngineDead          503 engine_dead                                      retried
    ├── DeadlineExceeded        504 deadline_exceeded
    └── ServerError             500 and every other 5xx
        └── ScoringError        500 engine_error
            └── NonFiniteScore  500 non_finite_score
"""

from __future__ import annotations

from typing import ClassVar


class ClientError(Exception):
    """Anything that a call raises on purpose."""

    retryable: ClassVar[bool] = False
    retry_after: float | None = None
    """Seconds that the server asked to wait before the next try."""


class ConnectionFailed(ClientError):
    """The server could not be reached, or the connection broke off."""

    retryable = True


class CallTimeout(ClientError):
    """One phase of a call took longer than its :class:`~rerankd.client.Timeout` allows."""


class ConnectTimeout(CallTimeout):
    """No connection in time; nothing was sent."""

    retryable = True


class WriteTimeout(CallTimeout):
    """The server did not take the request in time."""


class ReadTimeout(CallTimeout):
    """The server did not answer in time; it may still be scoring."""


class PoolTimeout(CallTimeout):
    """Every connection of this client stayed busy."""


class InvalidResponse(ClientError):
    """The answer is not one of rerankd: another service, or a proxy's own page."""


class StatusError(ClientError):
    """The server answered with an error.

    Attributes:
        status: the HTTP status; 0 for an item of ``rank_many`` that failed alone.
        code: the server's word for the error, "" when the answer came from something else.
        param: the field of the request that was wrong, if the server named one.
        request_id: the server's id of this call, for its log.
        retry_after: seconds that the server asked to wait.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        code: str = "",
        param: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code
        self.param = param
        self.request_id = request_id
        self.retry_after = retry_after


class InvalidRequest(StatusError):
    """A field is missing, has the wrong type or a value that makes no sense."""


class Unauthorized(StatusError):
    """No API key, or one that the server does not know."""


class Forbidden(StatusError):
    """This API key may not use this route."""


class NotFound(StatusError):
    """No such route or model: often a wrong ``base_url``."""


class MethodNotAllowed(StatusError):
    """The route exists, the method does not: often a wrong ``base_url``."""


class ReceiveTimeout(StatusError):
    """The server did not receive the whole request in time."""

    retryable = True


class TooLarge(StatusError):
    """Too many bytes, documents or characters; the message names the limit and its setting."""


class UnsupportedMedia(StatusError):
    """A content type or encoding that the server does not read."""


class TooLong(StatusError):
    """A query and document have more tokens than the model may read, and truncation is off."""


class HeadersTooLarge(StatusError):
    """Too many header bytes."""


class RateLimited(StatusError):
    """This caller's own rate limit is used up."""

    retryable = True


class Overloaded(StatusError):
    """The server's queue is full."""

    retryable = True


class NotReady(StatusError):
    """The server is there, its model is not."""

    retryable = True


class Draining(NotReady):
    """The server is shutting down; another replica may answer."""


class EngineDead(NotReady):
    """The engine is gone; a supervisor starts another."""


class DeadlineExceeded(StatusError):
    """The call's own time was over before its scores were there; more of it is the caller's choice."""


class ServerError(StatusError):
    """The server, or a proxy before it, failed."""


class ScoringError(ServerError):
    """The model failed on this request."""


class NonFiniteScore(ScoringError):
    """The model's score is not a number."""
