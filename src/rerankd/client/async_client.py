"""The client for asyncio; one event loop, any number of tasks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from rerankd.client import _core, _parts
from rerankd.client._calls import feedback_call, info_call, models_call
from rerankd.client.errors import ClientError, StatusError
from rerankd.client.retry import MOST_RETRIES, Attempts, RetryBudget, check_retries
from rerankd.client.values import Document, Pair, Query, RankedResults, ServedModel, Timeout

T = TypeVar("T")


class AsyncClient:
    """:class:`~rerankd.client.Client` with the same arguments, answers and errors, for ``await``.

    async with AsyncClient("http://127.0.0.1:8000") as client:
        results = await client.rank("capital of France", ["Berlin …", "Paris …"])
    """

    def __init__(
        self,
        base_url: str,
        api_key: str | None = None,
        *,
        timeout: Timeout | None = None,
        retries: int = MOST_RETRIES,
        max_response_bytes: int = _core.MAX_RESPONSE_BYTES,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._address = _core.base_address(base_url)
        self._timeout = timeout or Timeout()
        self._retries = check_retries(retries)
        self._most = max_response_bytes
        self._budget = RetryBudget()
        self._limits = _parts.KnownLimits()
        self._http = httpx.AsyncClient(headers=_core.default_headers(api_key), transport=transport)

    async def rank(
        self,
        query: str,
        documents: Sequence[str | Document],
        instruction: str | None = None,
        top_n: int | None = None,
        model: str | None = None,
        *,
        threshold: float | None = None,
        raw_scores: bool = False,
        **options: Any,
    ) -> RankedResults:
        """Order ``documents`` by how well each answers ``query``. More than one request may hold go in parts.

        Args:
            instruction: what counts as relevant; None leaves it to the served name.
            top_n: how many results are kept; None for all.
            model: a served name; None for the server's first.
            threshold: the least score of a result; ``nothing_relevant`` says whether no document reached it.
            raw_scores: logits instead of probabilities in 0..1.
            options: further fields of the request, by their names in the API: ``long_documents="chunk"``.
        """
        asked = Query(query, documents, instruction, top_n, threshold, options)
        return await self.run(_parts.rank_plan(self._limits, asked, model=model, raw_scores=raw_scores))

    async def rank_many(
        self, queries: Sequence[Query], model: str | None = None
    ) -> list[RankedResults | StatusError]:
        """Rank several queries, scored together; a query that fails alone is its error in the list."""
        return await self.run(_parts.rank_many_plan(self._limits, queries, model=model))

    async def score(
        self,
        pairs: Sequence[Pair],
        instruction: str | None = None,
        model: str | None = None,
        *,
        raw_scores: bool = False,
        **options: Any,
    ) -> list[float]:
        """The score of each (query, document), in order. A pair that has none is an error of the whole call.

        The arguments are those of :meth:`rank`.
        """
        plan = _parts.score_plan(
            self._limits, pairs, instruction=instruction, model=model, raw_scores=raw_scores, options=options
        )
        return await self.run(plan)

    async def models(self) -> tuple[ServedModel, ...]:
        """The names that the server answers to, its default first."""
        return await self.run(_parts.call_plan(models_call()))

    async def feedback(self, id: str, clicked: Sequence[int] = (), used: Sequence[int] = ()) -> None:
        """Tell what a user did with an answer of an experiment; when this returns it is on the server's disk.

        Args:
            id: ``RankedResults.id``.
            clicked, used: documents by their ``index``.
        """
        await self.run(_parts.call_plan(feedback_call(id, clicked, used)))

    async def info(self) -> dict[str, Any]:
        """What the server says of itself: served names, revisions, limits."""
        return await self.run(_parts.call_plan(info_call()))

    async def run(self, plan: _parts.Plan[T]) -> T:
        """Makes the calls of a plan, all within the time of one call."""
        until = None if self._timeout.total is None else time.monotonic() + self._timeout.total
        try:
            call = next(plan)
            while True:
                try:
                    answer = await self._send(call, until)
                except ClientError as error:
                    call = plan.throw(error)
                else:
                    call = plan.send(answer)
        except StopIteration as end:
            result: T = end.value
            return result

    async def _send(self, call: _core.Call[T], until: float | None) -> T:
        attempts = Attempts(self._retries, self._budget, _core.seconds_until(until))
        while True:
            try:
                return await self._attempt(call, attempts.remaining)
            except ClientError as error:
                wait = attempts.wait_after(error)
                if wait is None:
                    raise
            await asyncio.sleep(wait)

    async def _attempt(self, call: _core.Call[T], remaining: float | None) -> T:
        body = _core.encoded(call)
        try:
            async with asyncio.timeout(remaining):
                return await self._exchange(call, body, remaining)
        except TimeoutError:
            raise _core.total_is_over() from None
        except httpx.HTTPError as error:
            raise _core.transport_error(error) from None

    async def _exchange(self, call: _core.Call[T], body: bytes | None, remaining: float | None) -> T:
        collected = _core.Collected(self._most, until=None)
        async with self._http.stream(
            call.method,
            self._address + call.path,
            content=body,
            headers=_core.attempt_headers(remaining),
            timeout=_core.attempt_timeout(self._timeout, remaining),
        ) as response:
            async for part in response.aiter_bytes():
                collected.add(part)
        return _core.read_answer(call, response, collected.content())

    async def close(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
