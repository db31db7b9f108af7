"""Who scores records: the model in this process, or a running server. Answers come in the order of the requests."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

from rerankd.cli.records.fields import Scored
from rerankd.client import Client, ClientError, Query, RankedResults, Timeout
from rerankd.client.errors import NotFound, StatusError
from rerankd.errors import RerankdError
from rerankd.local_windows import WindowSize
from rerankd.reranker import Reranker
from rerankd.types import RerankRequest, Timings

WINDOW = WindowSize(documents=512, documents_first=512, characters=2_000_000)
"""Smaller than for an evaluation: what was scored is written at the end of each window."""

_CALLS_AT_ONCE = 4
_CALL_DOCUMENTS = 64
_CALL_CHARACTERS = 200_000
_CALL_SECONDS = 300.0
_PATIENCE_SECONDS = 300.0
"""How long a server may be busy or away before the run gives up, to be resumed later."""
_LONGEST_WAIT = 15.0


class RecordScorer(Protocol):
    """Scores requests in order; a request without documents has an empty answer."""

    def score(self, requests: Iterable[RerankRequest]) -> Iterator[Scored]: ...

    def close(self) -> None: ...


class LocalScorer:
    """The model in this process."""

    def __init__(self, reranker: Reranker) -> None:
        reranker.window = WINDOW
        self._reranker = reranker

    def score(self, requests: Iterable[RerankRequest]) -> Iterator[Scored]:
        asked: deque[RerankRequest] = deque()

        def noted() -> Iterator[RerankRequest]:
            for request in requests:
                asked.append(request)
                yield request

        for found in self._reranker.score_many(noted()):
            result = self._reranker.result_of(asked.popleft(), found, Timings())
            yield Scored(
                [one.score for one in result.scores],
                [one.index for one in result.ranked],
                {one.index: one.error.message for one in result.scores if one.error},
            )

    def close(self) -> None:
        self._reranker.close()


class ServerScorer:
    """A running server, asked for many records in a call and with a few calls at once.

    A server that is busy, restarting or away is waited for; a record that it refuses fails alone.

    Raises:
        RerankdError: the server refuses the key or the model, or is away for minutes.
    """

    def __init__(self, url: str, api_key: str | None, model: str | None) -> None:
        self._client = Client(url, api_key, timeout=Timeout(read=_CALL_SECONDS, total=_CALL_SECONDS), retries=0)
        self._url = url
        self._model = model

    def score(self, requests: Iterable[RerankRequest]) -> Iterator[Scored]:
        calls = _calls(requests)
        waiting: deque[Future[list[Scored]]] = deque()
        with ThreadPoolExecutor(_CALLS_AT_ONCE, thread_name_prefix="calls") as threads:
            try:
                for call in itertools.islice(calls, _CALLS_AT_ONCE):
                    waiting.append(threads.submit(self._ask, call))
                while waiting:
                    answers = waiting.popleft().result()
                    waiting.extend(threads.submit(self._ask, call) for call in itertools.islice(calls, 1))
                    yield from answers
            finally:
                threads.shutdown(cancel_futures=True)

    def _ask(self, requests: Sequence[RerankRequest]) -> list[Scored]:
        asked = [request for request in requests if request.documents]
        answers = iter(self._rank(asked) if asked else ())
        return [next(answers) if request.documents else Scored() for request in requests]

    def _rank(self, requests: Sequence[RerankRequest]) -> list[Scored]:
        queries = [Query(request.query, request.documents, request.instruction) for request in requests]
        until = time.monotonic() + _PATIENCE_SECONDS
        wait = 0.25
        while True:
            try:
                return [
                    _scored(answer, query) for answer, query in zip(self._rank_many(queries), queries, strict=True)
                ]
            except ClientError as error:
                if isinstance(error, StatusError) and 400 <= error.status < 500 and not error.retryable:
                    return self._one_by_one(requests, error)
                if not error.retryable or time.monotonic() > until:
                    raise RerankdError(f"the server at {self._url}: {error}") from None
                time.sleep(min(max(error.retry_after or 0.0, wait), _LONGEST_WAIT))
                wait *= 2

    def _rank_many(self, queries: Sequence[Query]) -> list[RankedResults | StatusError]:
        return self._client.rank_many(queries, model=self._model)

    def _one_by_one(self, requests: Sequence[RerankRequest], error: StatusError) -> list[Scored]:
        """A call that is refused as a whole, because of one of its records: each by itself."""
        if error.status in (401, 403) or isinstance(error, NotFound):
            raise RerankdError(f"the server at {self._url}: {error}") from None
        if len(requests) > 1:
            return [self._rank([request])[0] for request in requests]
        return [
            Scored(
                [None] * len(requests[0].documents), (), dict.fromkeys(range(len(requests[0].documents)), str(error))
            )
        ]

    def close(self) -> None:
        self._client.close()


def _calls(requests: Iterable[RerankRequest]) -> Iterator[list[RerankRequest]]:
    """Runs of requests that a server takes in one call."""
    call: list[RerankRequest] = []
    documents = characters = 0
    for request in requests:
        size = sum(map(len, request.documents)) + len(request.query)
        if call and (
            len(call) == _CALL_DOCUMENTS or documents >= _CALL_DOCUMENTS or characters + size > _CALL_CHARACTERS
        ):
            yield call
            call, documents, characters = [], 0, 0
        call.append(request)
        documents += len(request.documents)
        characters += size
    if call:
        yield call


def _scored(answer: RankedResults | StatusError, query: Query) -> Scored:
    if isinstance(answer, StatusError):
        return Scored([None] * len(query.documents), (), dict.fromkeys(range(len(query.documents)), answer.message))
    return Scored(
        answer.scores,
        [result.index for result in answer.results],
        {error.index: error.message or error.code for error in answer.errors},
    )
