"""Tokenising off the event loop, in a few threads, a slice at a time.

The tokenizer releases the interpreter lock while it works. A request is cut into slices of documents and waits in
line again after each, so that a huge request does not hold up the small ones behind it.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from rerankd.errors import Overloaded
from rerankd.prompt.build import Prompt, PromptBuilder
from rerankd.prompt.fit import Pair, PromptLimits
from rerankd.prompt.tokenizer import slices

_MOST_THREADS = 4
_Result = TypeVar("_Result")


class PromptWorkers:
    """Threads that share one builder.

    Args:
        builder: never changes, so sharing it is safe (tests compare eight threads with one).
        threads: how many; 0 means one less than the cores, at most four.
        most_waiting: requests in here at once; more are refused.
    """

    def __init__(self, builder: PromptBuilder, threads: int = 0, *, most_waiting: int = 1024) -> None:
        # These threads are all the parallelism there is: the library's own pool would take every core.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        self.builder = builder
        self._threads = threads or min(max((os.cpu_count() or 2) - 1, 1), _MOST_THREADS)
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="tokenise")
        self._most_waiting = most_waiting
        self._waiting = 0

    async def build(
        self,
        query: str,
        documents: Sequence[str],
        instruction: str,
        limits: PromptLimits,
        positions: Sequence[int] | None = None,
    ) -> Prompt:
        """See :meth:`PromptBuilder.build`; raises Overloaded too, when too many requests wait."""
        if self._waiting >= self._most_waiting:
            raise Overloaded("too many requests wait to be tokenised", retry_after=1)
        self._waiting += 1
        try:
            parts = list(slices(documents))
            if len(parts) == 1:
                return await self._run(lambda: self.builder.build(query, documents, instruction, limits, positions))
            pairs = await self._pairs(query, parts, instruction, limits, positions or range(len(documents)))
            return await self._run(lambda: Prompt.of(pairs))
        finally:
            self._waiting -= 1

    async def _pairs(
        self,
        query: str,
        parts: Sequence[Sequence[str]],
        instruction: str,
        limits: PromptLimits,
        positions: Sequence[int],
    ) -> list[Pair]:
        starts = itertools.accumulate((len(part) for part in parts), initial=0)
        jobs = [
            lambda part=part, start=start: self.builder.pairs(
                query, part, instruction, limits, positions[start : start + len(part)]
            )
            for part, start in zip(parts, starts, strict=False)
        ]
        pairs: list[Pair] = []
        for first in range(0, len(jobs), self._threads):
            window = [self._run(job) for job in jobs[first : first + self._threads]]
            for done in await asyncio.gather(*window):
                pairs.extend(done)
        return pairs

    async def _run(self, job: Callable[[], _Result]) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._pool, job)

    def close(self) -> None:
        """End the threads once what they do now is done; what waits is dropped."""
        self._pool.shutdown(wait=False, cancel_futures=True)
