"""The listening socket and its connections: uvicorn's protocol without uvicorn's server.

uvicorn's ``Server`` loads the application before it listens, ends by re-raising the signal and knows no drain; what
is left of it then is a ``create_server`` call and a Date header.
"""

from __future__ import annotations

import asyncio
import socket
import time
from email.utils import formatdate

from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.server import ServerState

from rerankd.errors import ConfigurationError, ServiceError
from rerankd.http.http_protocol import LimitedHttpProtocol, SocketLimits
from rerankd.observe.metrics import Metrics
from rerankd.settings import Settings

_BACKLOG = 2048
_POLL_SECONDS = 0.02


def open_socket(host: str, port: int) -> socket.socket:
    """A bound socket.

    Raises:
        ConfigurationError: the address is taken, or is not one of this machine's.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigurationError(f"the address {host} cannot be used: {error.strerror}") from None
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(address)
    except (OSError, OverflowError) as error:
        bound.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigurationError(
            f"port {port} of {host} cannot be used: {reason}; choose another with --port"
        ) from None
    bound.setblocking(False)
    return bound


class Listener:
    """Accepts connections for an application until it is closed."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics) -> None:
        self._config = Config(
            app,
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=max(1, round(settings.keep_alive_seconds)),
        )
        self._config.load()
        self._limits = SocketLimits.from_settings(settings)
        self._metrics = metrics
        self._state = ServerState()
        self._server: asyncio.Server | None = None
        self._clock: asyncio.TimerHandle | None = None

    async def open(self, bound: socket.socket) -> None:
        """Start to accept on a bound socket."""
        self._tick()
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self.connection, sock=bound, backlog=_BACKLOG)

    def close(self) -> None:
        """Accept nothing more; idle connections end now, busy ones with their answer."""
        if self._server is not None:
            self._server.close()
        if self._clock is not None:
            self._clock.cancel()
        for connection in list(self._state.connections):
            connection.shutdown()

    async def wait_closed(self, seconds: float) -> None:
        """Let answers reach their clients for a moment, then cut what is still open."""
        until = time.monotonic() + seconds
        while self._state.connections and time.monotonic() < until:  # noqa: ASYNC110 (uvicorn keeps a bare set)
            await asyncio.sleep(_POLL_SECONDS)
        for connection in list(self._state.connections):
            connection.transport.abort()

    def connection(self) -> LimitedHttpProtocol:
        """The protocol of one more connection."""
        return LimitedHttpProtocol(self._limits, self._config, self._state, {}, self._count_refusal)

    def _count_refusal(self, error: ServiceError) -> None:
        self._metrics.rejections.labels(error.code).inc()

    def _tick(self) -> None:
        """The Date header of the next second's responses."""
        self._state.default_headers = [(b"date", formatdate(usegmt=True).encode("ascii"))]
        self._clock = asyncio.get_running_loop().call_later(1.0, self._tick)
