"""A breaker: after some failures in a row the store is left alone, until a probe in the background succeeds.

No request pays for finding out: while the breaker is open nothing is sent but the probe.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

_log = structlog.get_logger(__name__)

FAILURES = 5
PAUSE_SECONDS = 5.0
_PROBE_SECONDS = 1.0


class Breaker:
    """Counts failures of one store and opens after :data:`FAILURES` in a row.

    Args:
        name: the store, for the log.
        probe: succeeds when the store answers; its time is limited to a second.
        pause: seconds between two probes.
        on_change: told True when the breaker opens, False when it closes.
    """

    def __init__(
        self,
        name: str,
        probe: Callable[[], Awaitable[object]],
        pause: float = PAUSE_SECONDS,
        on_change: Callable[[bool], None] | None = None,
    ) -> None:
        self._name = name
        self._probe = probe
        self._pause = pause
        self._on_change = on_change or (lambda _is_open: None)
        self._failures = 0
        self._probing: asyncio.Task[None] | None = None

    @property
    def is_open(self) -> bool:
        """Is the store to be left alone?"""
        return self._probing is not None

    def succeeded(self) -> None:
        self._failures = 0

    def failed(self, error: BaseException) -> None:
        self._failures += 1
        if self._failures >= FAILURES and self._probing is None:
            # The error's type alone: its message may hold the address with the password.
            _log.warning("store_unreachable", store=self._name, error=type(error).__name__)
            self._probing = asyncio.get_running_loop().create_task(self._wait_for_the_store())
            self._on_change(True)

    async def _wait_for_the_store(self) -> None:
        while True:
            await asyncio.sleep(self._pause)
            try:
                async with asyncio.timeout(_PROBE_SECONDS):
                    await self._probe()
            except Exception:  # noqa: S112 - whatever it is, the store does not answer yet
                continue
            self._failures = 0
            self._probing = None
            _log.info("store_answers_again", store=self._name)
            self._on_change(False)
            return

    async def close(self) -> None:
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.gather(self._probing, return_exceptions=True)
            self._probing = None
