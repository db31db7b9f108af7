"""The life of the process: listen, load, serve, drain, exit.

engines are imported, tokenizers read -> socket listens -> models load (livez 200, readyz 503) -> ready
SIGTERM  -> not ready at once -> ``drain_grace_seconds`` in which new requests are still taken
         -> refused with 503 -> requests in flight end -> exit 0 within ``drain_seconds``
SIGINT   -> the same without the grace: a person waits, not a load balancer
another signal while draining -> exit at once
the engine dies -> every waiter is told, exit 3 so that the supervisor starts another
the models do not load -> ConfigurationError, exit 2
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import NoReturn

import structlog

from rerankd.engine.base import EngineInfo
from rerankd.engine.registry import import_engine
from rerankd.errors import ConfigurationError, Draining
from rerankd.http.app import create_app
from rerankd.http.auth import check_address
from rerankd.http.in_flight import InFlight
from rerankd.http.listener import Listener, open_socket
from rerankd.model_hub import present_checkpoint
from rerankd.observe.logs import configure_logs
from rerankd.observe.tracing import open_tracer
from rerankd.service.lifecycle import State
from rerankd.service.models import served_sources
from rerankd.service.runtime import RerankService
from rerankd.settings import Settings

_DEATH_SECONDS = 2.0
"""For the answers of those who waited for an engine that died; then the process ends."""

_ANSWER_SECONDS = 0.5
"""Of the drain limit, for the last answers to be written."""

_FULL_COLLECTION_EVERY = 1_000
"""Collections of the middle generation, not ten: a call of many thousand documents makes a million objects, which end
without the garbage collector, and each full collection would visit all of them while the event loop waits. Young
garbage, such as the body behind an error's traceback, is collected as often as ever."""

_STOP_SECONDS = 3.0
"""For the engine to give its memory back; a hung engine never does."""

_log = structlog.get_logger(__name__)


class ExitCode(IntEnum):
    """What the process says when it ends; the command line ends with 2 where the settings are wrong."""

    DONE = 0
    FAULT = 1
    ENGINE_DEAD = 3


@dataclass(frozen=True, slots=True)
class Ready:
    """A server that has begun to answer."""

    host: str
    port: int
    seconds: float
    """That loading took."""
    engines: Mapping[str, EngineInfo]
    """By served name, the default first."""


def run(settings: Settings, on_ready: Callable[[Ready], None] | None = None) -> int:
    """Serve until a signal or a fault ends it; the exit code.

    Args:
        on_ready: told once, when the models are loaded.

    Raises:
        ConfigurationError: before anything was served: the address, the keys; or the models do not load.
    """
    check_address(settings)
    configure_logs(settings.log_format, settings.log_level)
    _allow_many_files()
    _import_engines(settings)
    service = RerankService(settings)
    service.open_checkpoints()
    _freeze()
    bound = open_socket(settings.host, settings.port)
    in_flight = InFlight()
    tracer = open_tracer()
    listener = Listener(create_app(settings, service, in_flight, tracer), settings, service.metrics)
    server = Server(settings, service, in_flight, listener, on_ready)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        code = runner.run(server.serve(bound))
        if tracer is not None:
            tracer.close()
        if not server.stopped_cleanly:
            # A thread of the engine still runs, and the interpreter would wait for it.
            _leave(code)
    return code


def _import_engines(settings: Settings) -> None:
    """Load the engines' libraries before anybody waits.

    They load with the interpreter's lock held, torch's for a second and more; while somebody asks /livez that would
    be as long as his answer takes. What cannot be loaded is said when the model is.
    """
    for source, _ in served_sources(settings).values():
        folder, engine = present_checkpoint(source.model, source.revision), source.budget.engine
        if folder or engine != "auto":
            with contextlib.suppress(ConfigurationError):
                import_engine(engine, folder or Path())


def _freeze() -> None:
    """What is there now lives as long as the process: no later collection has to look at it.

    With torch's modules that look alone takes .2 s, with the interpreter's lock held: it is done once before the
    server listens, so that the one after loading sees only what loading has made.
    """
    gc.collect()
    gc.freeze()


class Server:
    """One process's service behind one socket."""

    def __init__(
        self,
        settings: Settings,
        service: RerankService,
        in_flight: InFlight,
        listener: Listener,
        on_ready: Callable[[Ready], None] | None = None,
    ) -> None:
        self._settings = settings
        self._service = service
        self._in_flight = in_flight
        self._listener = listener
        self._on_ready = on_ready
        self._end_asked = asyncio.Event()
        self._grace = 0.0
        self._exit_by = math.inf
        self.stopped_cleanly = False
        """Whether the service gave everything back; threads may still be at work otherwise."""

    async def serve(self, bound: socket.socket) -> ExitCode:
        """Listen on a bound socket, load, and serve until a signal or a fault ends it.

        Raises:
            ConfigurationError: the models do not load.
        """
        self._loop = asyncio.get_running_loop()
        self._listen_to_signals()
        self._service.lifecycle.on_change(self._end_when_dead)
        await self._listener.open(bound)
        host, port = bound.getsockname()[:2]
        _log.info("listening", host=host, port=port)
        loading = asyncio.create_task(self._load(host, port))
        try:
            return await self._until_end(loading)
        finally:
            await self._stop(loading)

    async def _load(self, host: str, port: int) -> None:
        started = time.monotonic()
        await self._service.start()
        _freeze()
        gc.set_threshold(*gc.get_threshold()[:2], _FULL_COLLECTION_EVERY)
        models = self._service.models or ()
        engines = {model.name: model.loaded.engine.info for model in models}
        for name, info in engines.items():
            if info.device == "cpu" and info.kernels == "torch":
                _log.warning("no kernels for the CPU: it may take twice the time", model=name, engine=info.details)
        seconds = time.monotonic() - started
        _log.info(
            "ready",
            seconds=round(seconds, 2),
            models=list(engines),
            engines=[f"{info.engine} on {info.device}: {info.details}" for info in engines.values()],
        )
        if self._on_ready:
            self._on_ready(Ready(host, port, seconds, engines))

    async def _until_end(self, loading: asyncio.Task[None]) -> ExitCode:
        asked = asyncio.create_task(self._end_asked.wait())
        await asyncio.wait({loading, asked}, return_when=asyncio.FIRST_COMPLETED)
        if loading.done():
            try:
                loading.result()
            except ConfigurationError:
                raise
            except Exception as error:
                _log.error("the models did not load", exc_info=error)
                return ExitCode.FAULT
            await asked
        lifecycle = self._service.lifecycle
        if lifecycle.state is State.DEAD:
            _log.error("the engine is dead", reason=lifecycle.reason)
            await self._wait_until_idle(time.monotonic() + _DEATH_SECONDS)
            return ExitCode.ENGINE_DEAD
        await self._drain(self._grace if lifecycle.is_ready else 0.0)
        return ExitCode.DONE

    async def _drain(self, grace: float) -> None:
        """Not ready at once, a grace for load balancers to notice, then refuse and wait for the rest."""
        self._exit_by = time.monotonic() + self._settings.drain_seconds
        _log.info("draining", in_flight=len(self._in_flight), grace=grace)
        self._service.lifecycle.move_to(State.DRAINING)
        await asyncio.sleep(min(grace, self._settings.drain_seconds / 2))
        self._service.lifecycle.end_grace()
        await self._wait_until_idle(self._exit_by - _ANSWER_SECONDS)
        if self._in_flight:
            _log.warning("drain limit reached", given_up=len(self._in_flight))
            self._in_flight.give_up(Draining("the server ended before the scores were there", retry_after=1))

    async def _wait_until_idle(self, until: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(until - time.monotonic()):
                await self._in_flight.idle.wait()

    async def _stop(self, loading: asyncio.Task[None]) -> None:
        """Close the socket, let answers flush, give the models back; what hangs is left behind."""
        loaded = loading.done()
        loading.cancel()
        self._listener.close()
        await self._listener.wait_closed(_ANSWER_SECONDS)
        with contextlib.suppress(TimeoutError):
            left = self._exit_by - time.monotonic()
            async with asyncio.timeout(min(_STOP_SECONDS, max(left, _ANSWER_SECONDS))):
                await self._service.stop()
                self.stopped_cleanly = loaded
        _log.info("stopped")

    def _listen_to_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            try:
                self._loop.add_signal_handler(number, self._on_signal, number)
            except NotImplementedError:
                # Windows, where handlers run between two steps of the interpreter.
                signal.signal(number, self._on_plain_signal)

    def _on_plain_signal(self, number: int, frame: object) -> None:
        self._loop.call_soon_threadsafe(self._on_signal, signal.Signals(number))

    def _on_signal(self, number: signal.Signals) -> None:
        if self._end_asked.is_set():
            _leave(128 + number)
        self._grace = 0.0 if number is signal.SIGINT else self._settings.drain_grace_seconds
        self._end_asked.set()

    def _end_when_dead(self, state: State) -> None:
        # May come from the engine's thread.
        if state is State.DEAD:
            self._loop.call_soon_threadsafe(self._end_asked.set)


def _leave(code: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's event loop; asyncio's own on Windows, where there is none."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def _allow_many_files() -> None:
    """One connection is one file, and 1,024 is the usual default; Windows counts neither."""
    try:
        import resource
    except ImportError:
        return
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65_536 if most == resource.RLIM_INFINITY else min(most, 65_536)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
