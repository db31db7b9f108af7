"""Handlers in flight: each runs until it ends, its client leaves or the server gives it up.

The listener reads the same ``receive`` as the handler did, so the body has to be read before. Starlette's
``request.is_disconnected`` is of no use here: somebody has to wait, not to ask.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from starlette.types import Receive

from rerankd.errors import ClientClosed, ServiceError

T = TypeVar("T")


_LISTEN_AFTER_SECONDS = 0.02
"""Most answers are there by then, and a task that waits for the client's end is a tenth of their cost."""


class CancelScope:
    """Ends one handler's task for a reason that can be answered; listens for its client's end."""

    def __init__(self, task: asyncio.Task[object], receive: Receive) -> None:
        self._task = task
        self._receive = receive
        self._listener: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(_LISTEN_AFTER_SECONDS, self._listen)
        self.reason: ServiceError | None = None

    def cancel(self, reason: ServiceError) -> None:
        if self.reason is None:
            self.reason = reason
            self._task.cancel()

    def close(self) -> None:
        """The handler has ended."""
        self._timer.cancel()
        if self._listener is not None:
            self._listener.cancel()

    def _listen(self) -> None:
        self._listener = asyncio.create_task(self._cancel_when_client_leaves())

    async def _cancel_when_client_leaves(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.cancel(ClientClosed("the client left before its answer was there"))


class InFlight:
    """All handlers that are at work just now."""

    def __init__(self) -> None:
        self._scopes: set[CancelScope] = set()
        self.idle = asyncio.Event()
        """Set while no handler is at work."""
        self.idle.set()

    def __len__(self) -> int:
        return len(self._scopes)

    async def run(self, work: Awaitable[T], receive: Receive) -> T:
        """The result of ``work``, which is cancelled when nobody wants it any more.

        Raises:
            ClientClosed: the client left.
            ServiceError: the reason given to :meth:`give_up`.
        """
        task = asyncio.current_task()
        assert task is not None, "handlers run in tasks"
        cancel_scope = CancelScope(task, receive)
        self._scopes.add(cancel_scope)
        self.idle.clear()
        try:
            return await work
        except asyncio.CancelledError:
            if cancel_scope.reason is None:
                raise
            task.uncancel()
            raise cancel_scope.reason from None
        finally:
            cancel_scope.close()
            self._scopes.discard(cancel_scope)
            if not self._scopes:
                self.idle.set()

    def give_up(self, reason: ServiceError) -> None:
        """Answer every handler's client with ``reason`` now."""
        for scope in list(self._scopes):
            scope.cancel(reason)
