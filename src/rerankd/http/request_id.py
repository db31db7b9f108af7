"""``X-Request-Id``: taken from the client when it is harmless, made otherwise, always returned."""

from __future__ import annotations

import re
import secrets

HEADER = b"x-request-id"

_HARMLESS = re.compile(rb"[A-Za-z0-9._:/=+@-]{1,128}")
"""No quotes, spaces or control characters: the id goes into logs and headers."""


def can_be(text: str) -> bool:
    """Whether an answer may have this id."""
    return text.isascii() and _HARMLESS.fullmatch(text.encode("ascii")) is not None


def request_id_from(given: bytes | None) -> str:
    if given is not None and _HARMLESS.fullmatch(given):
        return given.decode("ascii")
    return secrets.token_hex(16)
