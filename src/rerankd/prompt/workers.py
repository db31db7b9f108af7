"""Tokenising off the event loop, in a few threads, a slice at a time.

The tokenizer releases the interpreter lock while it works. A request is cut into slices of documents and waits in
line again after each, so that a huge request does not hold up the small ones behind it.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from rerankd.cores import usable_cores
from rerankd.errors import Draining
from rerankd.prompt.build import Prompt, PromptBuilder
from rerankd.prompt.fit import Pair, PromptLimits
from rerankd.prompt.tokenizer import slices
from rerankd.schedule.turns import Line, TurnLimits, Turns

_MOST_THREADS = 4
_Result = TypeVar("_Result")


class PromptWorkers:
    """Threads that share one builder.

    Args:
        builder: never changes, so sharing it is safe (tests compare eight threads with one).
        threads: how many; 0 means one less than the usable cores, at most four.
        limits: how much may be in here at once; more is refused.
    """

    def __init__(self, builder: PromptBuilder, threads: int = 0, limits: TurnLimits | None = None) -> None:
        # These threads are all the parallelism there is: the library's own pool would take every core.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        self.builder = builder
        self._threads = threads or min(max(usable_cores() - 1, 1), _MOST_THREADS)
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="tokenise")
        self._is_closed = False
        self._turns = Turns(self._threads, limits or TurnLimits())

    async def build(
        self,
        query: str,
        documents: Sequence[str],
        instruction: str,
        limits: PromptLimits,
        positions: Sequence[int] | None = None,
        *,
        tenant: str = "",
        deadline: float = math.inf,
    ) -> Prompt:
        """See :meth:`PromptBuilder.build`.

        Raises:
            Overloaded: too much waits, or the deadline is hopeless.
            Draining: the workers are closed.
        """
        parts = list(slices(documents))
        line = self._turns.enter(tenant, sum(map(_characters, parts)), deadline)
        try:
            if len(parts) == 1:
                return await self._run(
                    line, parts[0], lambda: self.builder.build(query, documents, instruction, limits, positions)
                )
            places = positions or range(len(documents))
            starts = itertools.accumulate((len(part) for part in parts), initial=0)
            jobs = [
                self._run(
                    line, part, functools.partial(self._pairs, query, part, instruction, limits, places[start:])
                )
                for start, part in zip(starts, parts, strict=False)
            ]
            pairs = _in_order(await asyncio.gather(*jobs, return_exceptions=True))
            return await self._run(line, (), lambda: Prompt.of(pairs))
        finally:
            self._turns.leave(line)

    def _pairs(
        self, query: str, part: Sequence[str], instruction: str, limits: PromptLimits, places: Sequence[int]
    ) -> list[Pair]:
        return self.builder.pairs(query, part, instruction, limits, places[: len(part)])

    async def _run(self, line: Line, part: Sequence[str], job: Callable[[], _Result]) -> _Result:
        return await self._turns.run(line, _characters(part), lambda: self._submit(job))

    def _submit(self, job: Callable[[], _Result]) -> asyncio.Future[_Result]:
        if self._is_closed:
            raise Draining("the model is being unloaded", retry_after=1)
        return asyncio.get_running_loop().run_in_executor(self._pool, job)

    def close(self) -> None:
        """End the threads once what they do now is done; what waits, and what comes, is refused as draining."""
        self._is_closed = True
        self._pool.shutdown(wait=False)


def _in_order(parts: Sequence[list[Pair] | BaseException]) -> list[Pair]:
    """All pairs; where several parts failed, the error of the first, whichever came first in time."""
    pairs: list[Pair] = []
    for part in parts:
        if isinstance(part, BaseException):
            raise part
        pairs.extend(part)
    return pairs


def _characters(texts: Sequence[str]) -> int:
    return sum(map(len, texts))
