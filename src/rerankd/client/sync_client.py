"""The client for ordinary code; may be shared by threads."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from rerankd.client import _core
from rerankd.client._within import within
from rerankd.client.errors import ClientError, StatusError
from rerankd.client.retry import MOST_RETRIES, Attempts, RetryBudget, check_retries
from rerankd.client.values import Document, Query, RankedResults, Timeout

T = TypeVar("T")


class Client:
    """Ranks documents with a rerankd server.

        with Client("http://127.0.0.1:8000") as client:
            for result in client.rank("capital of France", ["Berlin …", "Paris …"]).top(3):
                print(result.score, result.document.text)

    Args:
        base_url: the server's address; a path before the routes is kept.
        api_key: sent as ``Authorization: Bearer``.
        timeout: seconds by phase, and for a whole call.
        retries: 0 to 2 further attempts after 408, 429, 503 and failed connections, with jitter; all
            retries of a client together are at most a tenth of its calls.
        max_response_bytes: an answer that goes on beyond them, unpacked, is refused.
        transport: another httpx transport, for tests and for servers in the same process.

    Every call raises :class:`~rerankd.client.errors.ClientError`, whose tree that module draws.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str | None = None,
        *,
        timeout: Timeout | None = None,
        retries: int = MOST_RETRIES,
        max_response_bytes: int = _core.MAX_RESPONSE_BYTES,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._address = _core.base_address(base_url)
        self._timeout = timeout or Timeout()
        self._retries = check_retries(retries)
        self._most = max_response_bytes
        self._budget = RetryBudget()
        self._http = httpx.Client(headers=_core.default_headers(api_key), transport=transport)

    def rank(
        self,
        query: str,
        documents: Sequence[str | Document],
        instruction: str | None = None,
        top_n: int | None = None,
        model: str | None = None,
        *,
        raw_scores: bool = False,
        **options: Any,
    ) -> RankedResults:
        """Order ``documents`` by how well each answers ``query``.

        Args:
            instruction: what counts as relevant; None leaves it to the served name.
            top_n: how many results are kept; None for all.
            model: a served name; None for the server's first.
            raw_scores: logits instead of probabilities in 0..1.
            options: further fields of the request, by their names in the API: ``long_documents="chunk"``.
        """
        asked = Query(query, documents, instruction, top_n, options)
        return self._send(_core.rank_call(asked, model=model, raw_scores=raw_scores))

    def rank_many(self, queries: Sequence[Query], model: str | None = None) -> list[RankedResults | StatusError]:
        """Rank several queries in one call, scored together; a query that fails alone is its error in the list."""
        return self._send(_core.rank_many_call(queries, model=model))

    def info(self) -> dict[str, Any]:
        """What the server says of itself: served names, revisions, limits."""
        return self._send(_core.info_call())

    def _send(self, call: _core.Call[T]) -> T:
        attempts = Attempts(self._retries, self._budget, self._timeout.total)
        while True:
            try:
                return self._attempt(call, attempts.remaining)
            except ClientError as error:
                wait = attempts.wait_after(error)
                if wait is None:
                    raise
            time.sleep(wait)

    def _attempt(self, call: _core.Call[T], remaining: float | None) -> T:
        body = _core.encoded(call)
        try:
            return within(remaining, lambda: self._exchange(call, body, remaining))
        except TimeoutError:
            raise _core.total_is_over() from None
        except httpx.HTTPError as error:
            raise _core.transport_error(error) from None

    def _exchange(self, call: _core.Call[T], body: bytes | None, remaining: float | None) -> T:
        collected = _core.Collected(self._most, None if remaining is None else time.monotonic() + remaining)
        with self._http.stream(
            call.method,
            self._address + call.path,
            content=body,
            headers=_core.attempt_headers(remaining),
            timeout=_core.attempt_timeout(self._timeout, remaining),
        ) as response:
            for part in response.iter_bytes():
                collected.add(part)
        return _core.read_answer(call, response, collected.content())

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
