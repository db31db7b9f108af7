"""Reading a request body: type, encoding, length and time are checked before and while the bytes arrive."""

from __future__ import annotations

import asyncio
import contextlib
import mmap
from collections.abc import Callable, Iterator, Mapping

from starlette.types import Message, Receive

from rerankd.errors import ClientClosed, InvalidRequest, Overloaded, ReceiveTimeout, TooLarge, UnsupportedMedia
from rerankd.http.request_state import RequestState
from rerankd.limits.quota import Quota
from rerankd.settings import Settings
from rerankd.wire.byte_counts import Bytes

_MAPPED_BYTES = 256 * 1024
"""A body that announces more is read into pages of its own."""

Take = Callable[[int], None]
"""Told of each part of a body as it arrives; raises when there is no room for it."""

_BROWSER_HEADERS = (b"origin", b"sec-fetch-site", b"referer")
"""What every browser sends with a POST, and pages cannot leave out."""

_LIMIT = "max_inflight_body_bytes"
_JSON_TYPES = frozenset({b"application/json", b"text/json"})


class BodyQuota:
    """The memory of the bodies at work: each has its limit, and a thousand of them are more than memory holds.

    Bytes count when they are there and not when they are announced: announcing costs a hostile client nothing.

    Args:
        limit: bytes of all bodies together; never exceeded.
        tenant_share: of it, for one caller while others hold some too.
        reserve: bytes that one caller alone leaves free for the first body of the next.
    """

    def __init__(self, limit: int, tenant_share: float, reserve: int = 0) -> None:
        self._quota = Quota("bytes", limit, tenant_share, _LIMIT, reserve=reserve, remember_seconds=0.0)

    @property
    def held(self) -> int:
        """Bytes of all bodies at work."""
        return self._quota.held

    @classmethod
    def from_settings(cls, settings: Settings) -> BodyQuota:
        limit = max(settings.max_inflight_body_bytes, settings.max_body_bytes)
        return cls(limit, settings.max_tenant_share, settings.max_body_bytes)

    @contextlib.contextmanager
    def of(self, tenant: str) -> Iterator[Take]:
        """For the time of one request; what it took is given back at the end."""
        taken = 0

        def take(size: int) -> None:
            nonlocal taken
            self._quota.take(tenant, size)
            taken += size

        try:
            yield take
        finally:
            self._quota.give_back(tenant, taken)


def in_turns(receive: Receive, turns: asyncio.Lock) -> Receive:
    """A ``receive`` whose parts take turns with those of other bodies: one in each turn of the event loop.

    A part has up to 256 KB and takes half a millisecond, nearly all of it copying. Where many clients send as fast as
    they can, each has one ready at every turn, and a small request needs ten turns. The first part comes at once.
    """
    is_first = True

    async def receive_in_turn() -> Message:
        nonlocal is_first
        if not is_first:
            async with turns:
                await asyncio.sleep(0)
        is_first = False
        return await receive()

    return receive_in_turn


async def read_body(state: RequestState, receive: Receive, take: Take, *, max_bytes: int, seconds: float) -> Bytes:
    """The whole body of a JSON request; ``state`` has its headers and is told what came of it.

    Raises:
        Overloaded: there is no room for it beside the other bodies.
        UnsupportedMedia: compressed (never inflated: a small body could grow without bound), or not JSON.
        TooLarge: more than ``max_bytes``, declared or arrived.
        ReceiveTimeout: not complete within ``seconds``.
        ClientClosed: the client left before its body was complete.
    """
    _check_media(state.headers)
    declared = _declared_length(state.headers.get(b"content-length"), max_bytes)
    try:
        async with asyncio.timeout(seconds):
            return await _collect(receive, state, take, declared, max_bytes)
    except TimeoutError:
        raise ReceiveTimeout(
            f"the body did not arrive within {seconds:g} seconds (receive_timeout_seconds)",
            setting="receive_timeout_seconds",
        ) from None


async def _collect(receive: Receive, state: RequestState, take: Take, declared: int, max_bytes: int) -> Bytes:
    """The parts of a body, each copied once where the length is known.

    Parts that are joined at the end would take twice the body, and an array that grows is copied eight times, on the
    event loop. Pages are the system's until something is written to them, so that announcing much takes no memory;
    and they go back to the system with the body, so that the heap gets no holes.
    """
    body: Bytes = _pages(declared) if declared > _MAPPED_BYTES else b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientClosed("the client left before its request was complete")
        chunk = message.get("body", b"")
        state.received_bytes += len(chunk)
        if state.received_bytes > max_bytes:
            raise _too_large(max_bytes)
        take(len(chunk))
        more = message.get("more_body", False)
        if isinstance(body, mmap.mmap):
            if state.received_bytes > declared:
                raise InvalidRequest("the body is longer than its Content-Length says")
            body.write(chunk)
        elif body:
            body += chunk
        else:
            body = bytearray(chunk) if more else chunk
        if not more:
            state.body_complete = True
            return body


def _pages(size: int) -> mmap.mmap:
    """Memory for a body; Overloaded where the system promises no more, as under a limit of address space."""
    try:
        return mmap.mmap(-1, size, access=mmap.ACCESS_COPY)
    except (OSError, MemoryError):
        raise Overloaded("there is no memory for this body beside the others", retry_after=1.0) from None


def _check_media(headers: Mapping[bytes, bytes]) -> None:
    encoding = headers.get(b"content-encoding")
    if encoding is not None and encoding.strip().lower() not in (b"", b"identity"):
        raise UnsupportedMedia("a compressed body is not read; send it without Content-Encoding")
    kind = headers.get(b"content-type")
    if kind == b"application/json":
        return
    if kind is None:
        # Weaviate and several small clients never say what they send; it has to be JSON anyway. A page in a browser
        # has to: only then does the browser ask whether the page may call here at all.
        if any(name in headers for name in _BROWSER_HEADERS):
            raise UnsupportedMedia("a page has to say Content-Type: application/json")
    elif not _is_json(kind.split(b";", 1)[0].strip().lower()):
        raise UnsupportedMedia("the body has to be JSON, with Content-Type: application/json")


def _is_json(kind: bytes) -> bool:
    return kind in _JSON_TYPES or (kind.startswith(b"application/") and kind.endswith(b"+json"))


def _declared_length(declared: bytes | None, max_bytes: int) -> int:
    """The bytes that a body is said to have; 0 where nothing is said."""
    if declared is None:
        return 0
    if not declared.isdigit():
        raise InvalidRequest("Content-Length has to be a whole number")
    if len(declared) > 18 or int(declared) > max_bytes:
        raise _too_large(max_bytes)
    return int(declared)


def _too_large(max_bytes: int) -> TooLarge:
    return TooLarge(f"the body is larger than {max_bytes} bytes (max_body_bytes)", setting="max_body_bytes")
