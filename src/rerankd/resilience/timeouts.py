"""A time budget that blames the right one."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

_Result = TypeVar("_Result")


async def with_timeout(seconds: float, work: Coroutine[Any, Any, _Result]) -> _Result:
    """The result of ``work``, or TimeoutError when it takes longer.

    A busy event loop may look at an answer and at the clock in the same moment, long after the answer came;
    ``asyncio.timeout`` would drop it. Here the answer wins: the loop was late, not who answered.
    """
    task = asyncio.ensure_future(work)
    task.add_done_callback(_look_at)
    try:
        done, _ = await asyncio.wait((task,), timeout=seconds)
        if not done:
            raise TimeoutError
        return task.result()
    finally:
        task.cancel()


def _look_at(task: asyncio.Future[Any]) -> None:
    """Nobody waits for a task that was given up, and its error is no news."""
    if not task.cancelled():
        task.exception()
