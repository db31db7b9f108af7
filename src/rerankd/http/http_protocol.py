"""uvicorn's HTTP protocol with the deadlines and limits it lacks.

Measured on uvicorn 0.54: half a header or half a body stays open for ever, a header of 2 MB is accepted, and a
client that never reads its answer holds the connection until it leaves. Here

* the headers of a request have ``header_timeout_seconds`` from the connection, or from their own first byte;
* the body has ``receive_timeout_seconds`` (the handler answers 408; a handler that does not read is cut off here);
* headers are limited in bytes and in number, whether they are complete or not: 431;
* an answer that is not read is dropped after ``send_timeout_seconds``;
* bytes that are no HTTP request get an error in JSON;
* requests sent ahead of their answers (pipelining) wait as bytes, and reading pauses: what uvicorn keeps of each of
  the fourteen thousand that 256 KB hold is forty megabytes;
* an offer to upgrade the connection is passed over. Java's HTTP client makes one with its first request, and the
  parser would leave that request's body unread;
* an answer's head and body, which uvicorn writes one after the other, go out together.

A request that arrives whole, as nearly all do, sets no timer.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, cast

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from rerankd.errors import HeadersTooLarge, InvalidRequest, ReceiveTimeout, ServiceError
from rerankd.http.json_response import json_bytes
from rerankd.settings import Settings
from rerankd.wire.error_shapes import documents_error

MAX_HEADERS = 128
"""Header lines of one request; the widest client seen sends 30."""

MAX_PIPELINED = 8
"""Requests behind the one at work that are read; more than any client that pipelines sends at once."""

MAX_AHEAD_BYTES = 64 * 1024
"""Bytes beyond those requests after which the connection is not read any more until one is answered."""

_SLICE_BYTES = 1024
"""So much is parsed in one go where the end of a request may lie: the parser cannot be stopped in between."""

_HELD_BYTES = 4096
"""Of a write that waits for the next one: an answer's head has some 150."""

_UPGRADE_HEADERS = frozenset({b"upgrade", b"http2-settings"})


@dataclass(frozen=True, slots=True)
class SocketLimits:
    """What one connection may cost."""

    header_bytes: int
    header_seconds: float
    body_seconds: float
    send_seconds: float

    @classmethod
    def from_settings(cls, settings: Settings) -> SocketLimits:
        return cls(
            header_bytes=settings.max_header_bytes,
            header_seconds=settings.header_timeout_seconds,
            # A second more than the handler has, whose answer says more.
            body_seconds=settings.receive_timeout_seconds + 1,
            send_seconds=settings.send_timeout_seconds,
        )


class _Awaited(Enum):
    """What the connection has to bring next."""

    HEAD = "head"
    BODY = "body"
    NOTHING = "nothing"


class JoinedWrites:
    """A transport that keeps a small write for the next one of the same turn of the event loop and sends both in one.

    One system call and one packet for a head and its body, and no client that wakes up for the head alone.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if self._held:
            held, self._held = self._held, b""
            self._transport.writelines((held, data))
        elif len(data) > _HELD_BYTES:
            self._transport.write(data)
        else:
            self._held = data
            self._loop.call_soon(self._flush)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def get_write_buffer_size(self) -> int:
        return len(self._held) + self._transport.get_write_buffer_size()

    def _flush(self) -> None:
        if self._held and not self._transport.is_closing():
            self._transport.write(self._held)
        self._held = b""


class LimitedHttpProtocol(HttpToolsProtocol):
    """One connection; see the module."""

    def __init__(
        self,
        limits: SocketLimits,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        on_refusal: Callable[[ServiceError], None],
    ) -> None:
        super().__init__(config, server_state, app_state)
        self._limits = limits
        self._on_refusal = on_refusal
        self._awaited = _Awaited.HEAD
        self._receive_timer: asyncio.TimerHandle | None = None
        self._send_timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        """Bytes that came since the last head was complete."""
        self._head_size = 0
        """Of the head's lines so far, as they count against the limit."""
        self._body_left = 0
        self._unparsed: deque[memoryview] = deque()
        self._unparsed_bytes = 0
        self._refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(cast(asyncio.Transport, JoinedWrites(transport, self.loop)))
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._refused = True
        self._cancel_timers()
        self._unparsed.clear()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        self._unset_keepalive_if_required()
        self._unparsed.append(memoryview(data))
        self._unparsed_bytes += len(data)
        self._parse()
        if not self._refused:
            self._watch()

    def _parse(self) -> None:
        """Parse what came until enough requests wait for their turn."""
        while self._unparsed and not self._refused and len(self.pipeline) < MAX_PIPELINED:
            data = self._unparsed.popleft()
            size = self._feed(data[: max(self._body_left, _SLICE_BYTES)])
            self._unparsed_bytes -= size
            if size < len(data):
                self._unparsed.appendleft(data[size:])
            if self._awaited is _Awaited.HEAD and self._head_bytes > self._limits.header_bytes:
                self._refuse_head()
        if self._unparsed_bytes > MAX_AHEAD_BYTES:
            self.flow.pause_reading()

    def _feed(self, data: memoryview) -> int:
        """How many bytes of ``data`` the parser took."""
        if self._awaited is not _Awaited.BODY:
            self._head_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            if not self._refused:
                self._refuse(InvalidRequest("this is not a valid HTTP request"))
        except httptools.HttpParserUpgrade as upgrade:
            self._pass_over_upgrade()
            return int(upgrade.args[0])
        return len(data)

    def _pass_over_upgrade(self) -> None:
        """Read the head of the request again as if nothing had been offered; what follows goes on as it came."""
        if self.parser.get_method() == b"CONNECT":
            self._refuse(InvalidRequest("this server is no proxy"))
            return
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())]
        for name, value in self.headers:
            if name == b"connection":
                options = [option.strip() for option in value.split(b",")]
                lines.append(
                    b"connection: " + b", ".join(one for one in options if one.lower() not in _UPGRADE_HEADERS)
                )
            elif name not in _UPGRADE_HEADERS:
                lines.append(b"%b: %b" % (name, value))
        self.parser = httptools.HttpRequestParser(self)
        self._feed(memoryview(b"\r\n".join(lines) + b"\r\n\r\n"))

    def on_message_begin(self) -> None:
        self._await(_Awaited.HEAD)
        self._head_size = self._body_left = 0
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(self.headers) == MAX_HEADERS:
            self._refuse_head()
            return
        name = name.lower()
        # Blanks around a value are no part of it (RFC 9110, 5.5); the parser leaves those behind it.
        value = value.strip(b" \t")
        self._head_size += len(name) + len(value) + 4
        if name == b"content-length":
            # A length that is none, or too long for an integer, is the parser's to refuse, or the handler's.
            self._body_left = int(value) if value.isdigit() and len(value) < 19 else 0
        elif name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        if len(self.url) + self._head_size > self._limits.header_bytes:
            self._refuse_head()
        if self._refused:
            return
        self._await(_Awaited.BODY)
        self._head_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body_left -= len(body)
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._body_left = 0
        if not self._refused and not self.parser.should_upgrade():
            self._await(_Awaited.NOTHING)
            super().on_message_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_unsent(0)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch_unsent(0)
        if self._unparsed:
            self.loop.call_soon(self._parse)

    def _watch_unsent(self, unsent: int) -> None:
        if self._send_timer is None:
            self._send_timer = self.loop.call_later(self._limits.send_seconds / 2, self._check_unsent, unsent)

    def _check_unsent(self, before: int) -> None:
        """Bytes that have not moved between two looks will not be read.

        One timer a connection, whatever the number of its answers. Asking the transport to report each byte that
        stays behind (a high-water mark of zero) would cost a system call more for each answer.
        """
        self._send_timer = None
        unsent = self.transport.get_write_buffer_size()
        if unsent and unsent == before:
            self.transport.abort()
        elif unsent:
            self._watch_unsent(unsent)

    def _await(self, awaited: _Awaited) -> None:
        """Go on to the next part of a request, whose time starts anew."""
        self._awaited = awaited
        if self._receive_timer is not None:
            self._receive_timer.cancel()
            self._receive_timer = None

    def _watch(self) -> None:
        """After some bytes: set the timer of what is still to come, unless it runs already."""
        if self._receive_timer is not None:
            return
        if self._awaited is _Awaited.BODY:
            self._receive_timer = self.loop.call_later(self._limits.body_seconds, self.transport.abort)
        elif self._awaited is _Awaited.HEAD or self._is_idle():
            # Idle although bytes came: empty lines, which do not keep a connection alive.
            self._receive_timer = self.loop.call_later(self._limits.header_seconds, self._refuse_slow_head)

    def _is_idle(self) -> bool:
        return self.cycle is None or bool(self.cycle.response_complete)

    def _refuse_slow_head(self) -> None:
        self._receive_timer = None
        if not self._is_idle():
            # A request before this one is still being answered; closing now would cut it off.
            self._watch()
        elif self._head_bytes:
            seconds = self._limits.header_seconds
            self._refuse(
                ReceiveTimeout(f"the headers did not arrive within {seconds:g} seconds (header_timeout_seconds)")
            )
        else:
            self.transport.close()

    def _refuse_head(self) -> None:
        if not self._refused:
            limit = self._limits.header_bytes
            message = f"the headers are larger than {limit} bytes (max_header_bytes) or more than {MAX_HEADERS}"
            self._refuse(HeadersTooLarge(message, setting="max_header_bytes"))

    def _refuse(self, error: ServiceError) -> None:
        """Answer without a handler, and close: what follows on this connection cannot be understood."""
        self._refused = True
        self._cancel_timers()
        self._unparsed.clear()
        self._on_refusal(error)
        if not self._is_idle() and (self._awaited is not _Awaited.BODY or self.cycle.response_started):
            # A request before this one is being answered: that answer is the last.
            self.cycle.keep_alive = False
            return
        if not self._is_idle():
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.write(_response(error))
        self.transport.close()

    def _cancel_timers(self) -> None:
        for timer in (self._receive_timer, self._send_timer):
            if timer is not None:
                timer.cancel()
        self._receive_timer = self._send_timer = None


def _response(error: ServiceError) -> bytes:
    answer = documents_error(error, "")
    body = json_bytes(answer.body)
    head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
    return STATUS_LINE[answer.status] + head + body
