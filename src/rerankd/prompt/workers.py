"""Tokenising off the event loop, in a few threads, a slice at a time.

The tokenizer releases the interpreter lock while it works. A request is cut into slices of documents and waits for a
thread again before each, so that a huge request does not hold up the small ones behind it.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from rerankd.cores import usable_cores
from rerankd.errors import Draining, InvalidDocument
from rerankd.prompt.build import PromptBuilder, PromptLimits, RequestPrompts
from rerankd.prompt.fair_semaphore import FairSemaphore, Waiter
from rerankd.prompt.tokenizer import SLICE_CHARACTERS, slices
from rerankd.types import PairPrompt

_MAX_THREADS = 4
_Result = TypeVar("_Result")
_Pairs = list[PairPrompt | InvalidDocument]


class PromptWorkers:
    """Threads that share one builder.

    Args:
        builder: never changes, so sharing it is safe (tests compare eight threads with one).
        threads: how many; 0 means one less than the usable cores, at most four.
        at_once: characters of a request that are tokenised where they are: about a millisecond's work, less than
            another thread costs.
    """

    def __init__(self, builder: PromptBuilder, threads: int = 0, at_once: int = 2048) -> None:
        # These threads are all the parallelism there is: the library's own pool would take every core.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        self.builder = builder
        threads = threads or min(max(usable_cores() - 1, 1), _MAX_THREADS)
        self.semaphore = FairSemaphore(threads, SLICE_CHARACTERS)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="tokenise")
        self._at_once = at_once
        self._is_closed = False

    async def build(
        self,
        query: str,
        documents: Sequence[str],
        instruction: str,
        limits: PromptLimits,
        positions: Sequence[int] | None = None,
        *,
        tenant: str = "",
        may_be_here: bool = True,
    ) -> _Pairs:
        """The pairs of a query with its documents; see :class:`RequestPrompts` for errors.

        Cancelling the caller stops the threads before their next document.

        Args:
            documents: at least one text.
            positions: the documents' places in the client's request, for error messages; None means 0, 1, ...
            tenant: who asks; the threads are shared fairly between tenants.
            may_be_here: may a small request be tokenised on the event loop itself?

        Raises:
            Draining: the workers are closed.
        """
        indices = range(len(documents)) if positions is None else positions
        characters = len(query) + len(instruction) + sum(map(len, documents))
        if may_be_here and characters <= self._at_once and not self._is_closed:
            return self.builder.begin(query, instruction, limits).pairs(documents, indices)
        parts = list(slices(documents))
        sizes = [sum(map(len, part)) for part in parts]
        sizes[0] += len(query) + len(instruction)
        has_left = threading.Event()

        def first() -> tuple[RequestPrompts, _Pairs]:
            prompts = self.builder.begin(query, instruction, limits)
            return prompts, prompts.pairs(parts[0], indices[: len(parts[0])], has_left.is_set)

        def more(prompts: RequestPrompts, part: Sequence[str], start: int) -> Callable[[], _Pairs]:
            return lambda: prompts.pairs(part, indices[start : start + len(part)], has_left.is_set)

        waiter = Waiter(tenant, sum(sizes))
        try:
            prompts, pairs = await self._run(waiter, sizes[0], first)
            if len(parts) == 1:
                return pairs
            starts = itertools.accumulate(map(len, parts))
            jobs = [
                self._run(waiter, size, more(prompts, part, start))
                for size, part, start in zip(sizes[1:], parts[1:], starts, strict=False)
            ]
            for found in await asyncio.gather(*jobs, return_exceptions=True):
                # Where several parts failed, the error of the first, whichever came first in time.
                if isinstance(found, BaseException):
                    raise found
                pairs.extend(found)
            return pairs
        finally:
            has_left.set()
            self.semaphore.leave(waiter)

    async def _run(self, waiter: Waiter, size: int, job: Callable[[], _Result]) -> _Result:
        async with self.semaphore.slot(waiter, size):
            if self._is_closed:
                raise Draining("the model is being unloaded", retry_after=1)
            return await asyncio.get_running_loop().run_in_executor(self._pool, job)

    def close(self) -> None:
        """End the threads once what they do now is done; what waits, and what comes, is refused as draining."""
        self._is_closed = True
        self._pool.shutdown(wait=False)
