"""A blocking call with an end, whatever it waits for: a name, a connection, headers that come a byte at a time.

The timeouts of a socket begin anew with each byte. So the call runs in a thread of its own and is waited for; one
that is given up goes on to its own timeouts and is forgotten.
"""

from __future__ import annotations

import contextvars
import queue
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def within(seconds: float | None, work: Callable[[], T]) -> T:
    """The result of ``work``, or what it raised; TimeoutError when it takes longer. None waits for ever."""
    if seconds is None:
        return work()
    answers: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            answers.put((work(), None))
        except BaseException as error:
            answers.put((None, error))

    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(run,), name="rerankd-call", daemon=True).start()
    try:
        result, error = answers.get(timeout=max(seconds, 0.001))
    except queue.Empty:
        raise TimeoutError from None
    if error is not None:
        raise error
    return result  # type: ignore[return-value]
