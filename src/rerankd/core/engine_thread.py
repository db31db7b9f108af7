"""The core on a thread of its own, for an event loop: futures instead of steps, and a watchdog."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Literal

import structlog

from rerankd.core.engine_core import CoreOptions, CoreStatus, EngineCore, EngineGone, load_engine
from rerankd.core.request import Output, ScoreRequest
from rerankd.engine.base import Engine, EngineInfo
from rerankd.errors import ServiceError, engine_is_gone, model_is_loading, server_is_stopping
from rerankd.observe.metrics import EngineMetrics
from rerankd.types import Outcome

_log = structlog.get_logger(__name__)
_CLOSE_SECONDS = 2.0
_WATCH_SECONDS = 1.0

EngineState = Literal["starting", "ready", "draining", "dead", "stopped"]


def check_accepting(state: EngineState) -> None:
    """Raise the error of a state in which an engine takes no requests."""
    match state:
        case "starting":
            raise model_is_loading()
        case "draining" | "stopped":
            raise server_is_stopping()
        case "dead":
            raise engine_is_gone()


class Scores:
    """The outcomes of one request as they come in. Lives on the event loop alone."""

    __slots__ = ("_leave", "done", "ended", "missing", "outcomes", "queued", "request", "started")

    def __init__(self, request: ScoreRequest, leave: Callable[[Scores], None]) -> None:
        self.request = request
        self.outcomes: list[Outcome | None] = [None] * len(request.pairs)
        self.missing = len(request.pairs)
        self.queued = time.monotonic()
        self.started = self.ended = self.queued
        """When the first batch began that had a pair of this request, and when the last outcome came."""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when every pair has its outcome; Draining or EngineDead where the engine ended before."""
        self._leave = leave

    def __enter__(self) -> Scores:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Nobody waits for the scores any more."""
        self._leave(self)

    def take(self, output: Output) -> None:
        if self.missing == len(self.outcomes):
            self.started = output.started
        for index, outcome in output.outcomes.items():
            self.outcomes[index] = outcome
        self.missing -= len(output.outcomes)
        if not self.missing:
            self.ended = time.monotonic()
            self.settle(None)

    def settle(self, error: ServiceError | None) -> None:
        """End the waiting; who has an answer already keeps it."""
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)
            self.done.exception()  # nobody may be waiting yet, and that is no news


class EngineThread:
    """One engine and its core on a daemon thread, so that a hung engine cannot hold the process's end.

    Everything else happens on the event loop. (``concurrent.futures`` joins its threads at exit.)

    Args:
        on_output: told of every output on the event loop, before who waits for it; late ones too.
        on_death: called once, on the event loop, with the reason when the engine is gone for good.
    """

    def __init__(
        self,
        engine: Engine,
        metrics: EngineMetrics,
        options: CoreOptions,
        on_output: Callable[[Output], None],
        on_death: Callable[[str], None],
    ) -> None:
        self.state: EngineState = "starting"
        self.engine = engine
        self.info: EngineInfo
        """What the engine says of itself; known once started."""
        self._metrics = metrics
        self._options = options
        self._on_output = on_output
        self._on_death = on_death
        self._core: EngineCore
        self._waiting: dict[ScoreRequest, Scores] = {}
        self._empty = asyncio.Event()
        self._empty.set()
        self._closed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._started: asyncio.Future[EngineCore] = self._loop.create_future()
        self._watchdog: asyncio.Task[None] | None = None
        self._is_replaced = False

    @property
    def status(self) -> CoreStatus:
        return self._core.status

    @property
    def has_work(self) -> bool:
        """Has the core anything left to do, for whomever?"""
        return self._core.has_work

    @property
    def waiting(self) -> int:
        """Requests that wait or run."""
        return len(self._waiting)

    async def start(self) -> None:
        """Load and warm the engine, then take requests.

        Raises:
            Exception: whatever the engine raised; the thread has ended then.
        """
        threading.Thread(target=self._run, name="rerankd-engine", daemon=True).start()
        try:
            self._core = await asyncio.shield(self._started)
        except BaseException:
            self.state = "stopped"
            self._started.add_done_callback(_end)
            raise
        self.info = self.engine.info
        self.state = "ready"
        self._watchdog = self._loop.create_task(self._watch())

    def check_accepting(self) -> None:
        """Raise the error of an engine that takes no requests just now."""
        if self.state != "ready":
            check_accepting(self.state)

    def submit(self, request: ScoreRequest) -> Scores:
        """Queue a request.

        Returns:
            its scores, a context manager: leaving it drops the pairs that nobody else waits for and no batch has yet.

        Raises:
            NotReady, Draining, EngineDead: the engine takes none.
        """
        self.check_accepting()
        scores = self._waiting[request] = Scores(request, self._leave)
        self._core.inbox.put(("add", request))
        self._metrics.queue_requests.inc()
        self._empty.clear()
        return scores

    def _leave(self, scores: Scores) -> None:
        if self._waiting.pop(scores.request, None) is None:
            return
        if scores.missing:
            self._core.inbox.put(("abort", scores.request))
        self._metrics.queue_requests.dec()
        if not self._waiting:
            self._empty.set()

    def fail(self, reason: str) -> None:
        """The engine is known to be gone, though no pass has met it yet."""
        self._die(EngineGone(reason))

    def replace(self) -> None:
        """Another engine has taken over: whatever becomes of this one is nobody's end."""
        self._is_replaced = True

    async def drain(self) -> None:
        """Take no new requests and return when the last one has its answer; the caller limits the time."""
        if self.state == "ready":
            self.state = "draining"
        await self._empty.wait()

    async def stop(self) -> None:
        """Answer whoever still waits with an error and give the engine back."""
        if self.state == "stopped":
            return
        is_running = self.state in ("ready", "draining")
        self.state = "stopped"
        if self._watchdog is not None:
            self._watchdog.cancel()
        self._settle_all(server_is_stopping)
        self._started.add_done_callback(_end)
        if is_running:
            with contextlib.suppress(TimeoutError):  # a pass under way cannot be broken off
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await self._closed.wait()

    # On the engine's thread

    def _run(self) -> None:
        """Whatever ends the steps is told on the event loop, never swallowed."""
        try:
            try:
                load_engine(self.engine)
                core = EngineCore(self.engine, self._metrics, self._options)
            except BaseException as error:
                reason = error if isinstance(error, Exception) else RuntimeError(f"{type(error).__name__} on loading")
                self._post(self._fail_start, reason)
                return
            self._post(self._started.set_result, core)
            self._step_until_told(core)
            self.engine.close()
        except BaseException as error:
            # SystemExit and its like would end the event loop too; it shall hear of it in words.
            self._post(self._die, error)
        finally:
            self._post(self._closed.set)

    def _step_until_told(self, core: EngineCore) -> None:
        while not core.is_ending:
            if not core.has_work:
                if not core.take_in(self._options.check_seconds):
                    core.check_health()
            elif outputs := core.step():
                self._post(self._take_out, outputs)
                # Until the next ones come, nothing may keep these alive.
                del outputs

    def _post(self, function: Callable[..., object], *args: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(function, *args)

    # On the event loop

    def _fail_start(self, error: Exception) -> None:
        self._started.set_exception(error)
        self._started.exception()  # the caller may have been cancelled

    def _take_out(self, outputs: list[Output]) -> None:
        for output in outputs:
            self._on_output(output)
            if scores := self._waiting.get(output.request):
                scores.take(output)

    async def _watch(self) -> None:
        """Look whether the pass under way takes too long."""
        pause = min(_WATCH_SECONDS, self._options.engine_timeout_seconds / 10)
        while True:
            await asyncio.sleep(pause)
            status = self._core.status
            if time.monotonic() > status.overdue_at:
                self._metrics.batch_failed("hang")
                message = f"a forward pass of {status.running_tokens} tokens did not return in time"
                self._die(EngineGone(f"{message} (setting engine_timeout_seconds)"))
                return

    def _die(self, error: BaseException) -> None:
        """The thread ends on purpose in :meth:`stop` alone; any other end is the engine's death."""
        if self.state in ("stopped", "dead"):
            return
        reason = str(error) or type(error).__name__
        self.state = "dead"
        if self._watchdog is not None:
            self._watchdog.cancel()
        trace = None if isinstance(error, EngineGone) else error
        facts = {"model": self._metrics.model, "reason": reason, "was_replaced": self._is_replaced}
        _log.critical("the engine is dead", **facts, exc_info=trace)
        self._settle_all(server_is_stopping if self._is_replaced else engine_is_gone)
        if not self._is_replaced:
            self._on_death(reason)

    def _settle_all(self, error: Callable[[], ServiceError]) -> None:
        for scores in list(self._waiting.values()):
            scores.settle(error())


def _end(started: asyncio.Future[EngineCore]) -> None:
    """Tell a core to end; one that did not start has ended already."""
    if not started.cancelled() and started.exception() is None:
        started.result().inbox.put(None)
