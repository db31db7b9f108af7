"""``X-Request-Timeout-Ms`` (or the default) -> the moment after which an answer is worth nothing."""

from __future__ import annotations

import re
import time

from rerankd.errors import InvalidRequest

HEADER = b"x-request-timeout-ms"

_WHOLE_NUMBER = re.compile(rb"[0-9]{1,18}")


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
