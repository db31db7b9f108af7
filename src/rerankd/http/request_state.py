"""What is known of one HTTP call while it is answered; the middleware and the handler fill it in turn.

Two of its headers are read here: ``X-Request-Id``, taken from the client when it is harmless, made otherwise, and
always returned; and ``X-Request-Timeout-Ms``, which says, or else the default, when an answer is worth nothing.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from starlette.types import Scope

from rerankd.errors import InvalidRequest
from rerankd.types import Stage
from rerankd.wire.base import Dialect

SCOPE_KEY = "rerankd.state"
REQUEST_ID = b"x-request-id"
DEADLINE = b"x-request-timeout-ms"

_HARMLESS = re.compile(rb"[A-Za-z0-9._:/=+@-]{1,128}")
"""No quotes, spaces or control characters: the id goes into logs and headers."""
_WHOLE_NUMBER = re.compile(rb"[0-9]{1,18}")


@dataclass(slots=True)
class RequestState:
    """The facts of a call that its log line, its metrics and its error shape are made from: never texts."""

    request_id: str
    headers: dict[bytes, bytes] = field(default_factory=dict)
    """By lower-case name; of several lines of one name the first."""
    started: float = field(default_factory=time.monotonic)
    route: str = "unmatched"
    """The route's template; a raw path would let a client invent metric labels."""
    tenant: str = ""
    model: str = ""
    """The served name that answered."""
    experiment: str = ""
    """The experiment and the arm that answered."""
    dialect: Dialect | None = None
    status: int = 0
    code: str = ""
    received_bytes: int = 0
    body_complete: bool = False
    documents: int = 0
    queries: int = 0
    tokens: int = 0
    cached: int = 0
    response_headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    """Added to whatever response is sent: rate limits, retry hints."""
    stages: list[Stage] = field(default_factory=list)
    """The parts of its way, in the order of their ends."""


def state_of(scope: Scope) -> RequestState:
    state: RequestState = scope[SCOPE_KEY]
    return state


def first_headers(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """The headers by name, of several lines of one name the first."""
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        found.setdefault(name, value)
    return found


def can_be_request_id(text: str) -> bool:
    """Whether an answer may have this id."""
    return text.isascii() and _HARMLESS.fullmatch(text.encode("ascii")) is not None


def request_id_from(given: bytes | None) -> str:
    if given is not None and _HARMLESS.fullmatch(given):
        return given.decode("ascii")
    return secrets.token_hex(16)


def deadline_from(given: bytes | None, default_seconds: float, max_seconds: float) -> float:
    """``time.monotonic()`` of the deadline; what the client asks for is capped at ``max_seconds``.

    Raises:
        InvalidRequest: the header is no whole number of milliseconds, or zero.
    """
    seconds = default_seconds
    if given is not None:
        if not _WHOLE_NUMBER.fullmatch(given) or not int(given):
            raise InvalidRequest(
                "X-Request-Timeout-Ms has to be a whole number of milliseconds from 1", param="X-Request-Timeout-Ms"
            )
        seconds = int(given) / 1000
    return time.monotonic() + min(seconds, max_seconds)
