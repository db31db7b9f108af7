"""What is known of one HTTP call while it is answered; the middleware and the handler fill it in turn."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from starlette.types import Scope

from rerankd.types import Stage
from rerankd.wire.base import Dialect

SCOPE_KEY = "rerankd.state"


@dataclass(slots=True)
class RequestState:
    """The facts of a call that its log line, its metrics and its error shape are made from: never texts."""

    request_id: str
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


def header(scope: Scope, name: bytes) -> bytes | None:
    """The first header of that (lower-case) name."""
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value)
    return None
