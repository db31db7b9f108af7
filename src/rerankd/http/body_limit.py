"""Reading a request body: type, encoding, length and time are checked before and while the bytes arrive."""

from __future__ import annotations

import asyncio

from starlette.types import Receive, Scope

from rerankd.errors import ClientClosed, InvalidRequest, ReceiveTimeout, TooLarge, UnsupportedMedia
from rerankd.http.record import CallRecord, header, record_of

_JSON_TYPES = frozenset({b"application/json", b"text/json"})


async def read_body(scope: Scope, receive: Receive, *, max_bytes: int, seconds: float) -> bytes:
    """The whole body of a JSON request.

    Raises:
        UnsupportedMedia: compressed (never inflated: a small body could grow without bound), or not JSON.
        TooLarge: more than ``max_bytes``, declared or arrived.
        ReceiveTimeout: not complete within ``seconds``.
        ClientClosed: the client left before its body was complete.
    """
    _check_media(scope)
    _check_declared_length(scope, max_bytes)
    record = record_of(scope)
    try:
        async with asyncio.timeout(seconds):
            return await _collect(receive, record, max_bytes)
    except TimeoutError:
        raise ReceiveTimeout(
            f"the body did not arrive within {seconds:g} seconds (receive_timeout)", setting="receive_timeout"
        ) from None


async def _collect(receive: Receive, record: CallRecord, max_bytes: int) -> bytes:
    chunks: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientClosed("the client left before its request was complete")
        chunk = message.get("body", b"")
        record.received_bytes += len(chunk)
        if record.received_bytes > max_bytes:
            raise _too_large(max_bytes)
        chunks.append(chunk)
        if not message.get("more_body", False):
            record.body_complete = True
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _check_media(scope: Scope) -> None:
    encoding = header(scope, b"content-encoding")
    if encoding is not None and encoding.strip().lower() not in (b"", b"identity"):
        raise UnsupportedMedia("a compressed body is not read; send it without Content-Encoding")
    kind = header(scope, b"content-type")
    # Absent is taken as JSON: the body has to be JSON anyway, and several small clients never say so.
    if kind is not None and not _is_json(kind.split(b";", 1)[0].strip().lower()):
        raise UnsupportedMedia("the body has to be JSON, with Content-Type: application/json")


def _is_json(kind: bytes) -> bool:
    return kind in _JSON_TYPES or (kind.startswith(b"application/") and kind.endswith(b"+json"))


def _check_declared_length(scope: Scope, max_bytes: int) -> None:
    declared = header(scope, b"content-length")
    if declared is None:
        return
    if not declared.isdigit():
        raise InvalidRequest("Content-Length has to be a whole number")
    if len(declared) > 18 or int(declared) > max_bytes:
        raise _too_large(max_bytes)


def _too_large(max_bytes: int) -> TooLarge:
    return TooLarge(f"the body is larger than {max_bytes} bytes (max_body_bytes)", setting="max_body_bytes")
