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
from typing import NamedTuple, TypeAlias, TypeVar

from rerankd.cores import usable_cores
from rerankd.errors import Draining, InvalidDocument
from rerankd.prompt.build import PromptBuilder, PromptLimits, RequestPrompts
from rerankd.prompt.fair_semaphore import FairSemaphore, Waiter
from rerankd.prompt.passages import ChunkRule, Split
from rerankd.prompt.tokenizer import SLICE_CHARACTERS, slices
from rerankd.types import PairPrompt

_MAX_THREADS = 4
_Result = TypeVar("_Result")
_Item = TypeVar("_Item")
_Pairs = list[PairPrompt | InvalidDocument]
_Work: TypeAlias = Callable[[RequestPrompts, Sequence[str], int, Callable[[], bool]], list[_Item]]
"""Makes something of each of some documents, the first of which has that place; asks whether anybody still waits."""


class _Asked(NamedTuple):
    """What the documents of a request have in common."""

    query: str
    instruction: str
    limits: PromptLimits
    tenant: str


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
        size = len(query) + len(instruction) + sum(map(len, documents))
        if may_be_here and size <= self._at_once and not self._is_closed:
            return self.builder.begin(query, instruction, limits).pairs(documents, indices)

        def work(prompts: RequestPrompts, part: Sequence[str], start: int, has_left: Callable[[], bool]) -> _Pairs:
            return prompts.pairs(part, indices[start : start + len(part)], has_left)

        return await self._each(_Asked(query, instruction, limits, tenant), documents, work)

    async def split(
        self,
        query: str,
        documents: Sequence[str],
        instruction: str,
        limits: PromptLimits,
        rule: ChunkRule,
        *,
        tenant: str = "",
    ) -> list[Split]:
        """The passages of a query's documents; see :meth:`RequestPrompts.split` for errors, else as :meth:`build`."""

        def work(prompts: RequestPrompts, part: Sequence[str], start: int, left: Callable[[], bool]) -> list[Split]:
            return prompts.split(part, rule, left)

        return await self._each(_Asked(query, instruction, limits, tenant), documents, work)

    async def _each(self, asked: _Asked, documents: Sequence[str], work: _Work[_Item]) -> list[_Item]:
        """What ``work`` makes of the documents, in the threads, some of them at a time."""
        parts = list(slices(documents))
        sizes = [sum(map(len, part)) for part in parts]
        sizes[0] += len(asked.query) + len(asked.instruction)
        has_left = threading.Event()

        def first() -> tuple[RequestPrompts, list[_Item]]:
            prompts = self.builder.begin(asked.query, asked.instruction, asked.limits)
            return prompts, work(prompts, parts[0], 0, has_left.is_set)

        def more(prompts: RequestPrompts, part: Sequence[str], start: int) -> Callable[[], list[_Item]]:
            return lambda: work(prompts, part, start, has_left.is_set)

        waiter = Waiter(asked.tenant, sum(sizes))
        try:
            prompts, items = await self._run(waiter, sizes[0], first)
            if len(parts) == 1:
                return items
            starts = itertools.accumulate(map(len, parts))
            jobs = [
                self._run(waiter, size, more(prompts, part, start))
                for size, part, start in zip(sizes[1:], parts[1:], starts, strict=False)
            ]
            for found in await asyncio.gather(*jobs, return_exceptions=True):
                # Where several parts failed, the error of the first, whichever came first in time.
                if isinstance(found, BaseException):
                    raise found
                items.extend(found)
            return items
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
