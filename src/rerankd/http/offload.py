"""Work that grows with a body, off the event loop: a request of megabytes must not hold up the others.

The interpreter runs one thread at a time, so that nothing gets faster; but it changes threads every few
milliseconds, and the event loop goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

INLINE_BYTES = 32 * 1024
"""Work on no more than this is done at once: it takes less than handing it over and back under load."""

_THREADS = 4
"""As many large bodies are read beside each other; a small one behind them need not wait for all."""


class Offload:
    """A few threads for decoding and rendering."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, "rerankd-json")

    async def run(self, size: int, work: Callable[[], T]) -> T:
        """The result of ``work``, which handles about ``size`` bytes."""
        if size <= INLINE_BYTES:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)
