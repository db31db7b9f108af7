"""The one thread that touches the engine."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")


class EngineThread:
    """Runs calls one after another on one daemon thread, so that a hung engine cannot hold the process's end.

    (``concurrent.futures`` joins its threads at exit.)
    """

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="rerankd-engine", daemon=True)
        self._thread.start()

    async def call(self, function: Callable[..., T], *args: Any) -> T:
        """``function(*args)`` on the engine's thread; cancelling the caller does not stop the call itself."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def run() -> None:
            try:
                result = function(*args)
            except Exception as error:
                _post(loop, _settle, future.set_exception, future, error)
            except BaseException as error:
                # SystemExit and its like would end the event loop too; its owner shall hear of it in words.
                reason = RuntimeError(f"{type(error).__name__} on the engine's thread")
                _post(loop, _settle, future.set_exception, future, reason)
            else:
                _post(loop, _settle, future.set_result, future, result)

        self._calls.put(run)
        return await future

    def end(self) -> None:
        """End the thread after the calls that are under way."""
        self._calls.put(None)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
            # Until the next call comes, nothing may keep this one's arguments alive.
            del call


def _post(loop: asyncio.AbstractEventLoop, function: Callable[..., None], *args: Any) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(function, *args)


def _settle(settle: Callable[[Any], None], future: asyncio.Future[Any], value: Any) -> None:
    if not future.done():
        settle(value)
