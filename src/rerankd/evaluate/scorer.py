"""Who gives the scores: a model in this process, or a server's address."""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rerankd.client import Client, ClientError, RankedResults, Timeout
from rerankd.errors import ConfigurationError, RerankdError
from rerankd.evaluate.errors import EvaluationError
from rerankd.types import LongDocuments, RerankRequest

if TYPE_CHECKING:
    from rerankd.reranker import Reranker

_CALLS_AT_ONCE = 4
_CALL_SECONDS = 300.0
_CARD = ("fingerprint", "template", "max_pair_tokens", "instruction")
_INFO = ("engine", "model_dtype", "device")
_TRUNCATED = re.compile(r"(\d{1,9}) of \d+ pairs were truncated")
"""The server's own warning."""


@dataclass(frozen=True, slots=True)
class QueryScores:
    """Raw scores (logits) of one query's documents, float64, shape (documents,); not finite where one failed."""

    scores: NDArray[np.float64]
    tokens: int
    truncated: int = 0


class Scorer(Protocol):
    """Scores many queries.

    ``identity`` says all that scores depend on beside the texts: the same words, the same scores.
    """

    @property
    def identity(self) -> Mapping[str, Any]: ...

    def score(self, requests: Iterable[RerankRequest]) -> Iterator[QueryScores]:
        """One answer a request, in order."""
        ...

    def close(self) -> None: ...


class LocalScorer:
    """A model in this process."""

    def __init__(self, reranker: Reranker) -> None:
        self._reranker = reranker

    @property
    def identity(self) -> Mapping[str, Any]:
        info = self._reranker.info
        return {
            "model": self._reranker.name,
            "revision": self._reranker.revision,
            "template": self._reranker.template.revision,
            "engine": info.engine,
            "dtype": info.dtype,
            "device": info.device.partition(":")[0],
            "max_pair_tokens": self._reranker.max_pair_tokens,
        }

    def score(self, requests: Iterable[RerankRequest]) -> Iterator[QueryScores]:
        template = self._reranker.template
        for scored in self._reranker.score_many(requests):
            logits = template.scale * scored.logits.astype(np.float64) + template.bias
            yield QueryScores(logits, scored.tokens, scored.truncated)

    def close(self) -> None:
        self._reranker.close()


class ServerScorer:
    """A running server, asked for a few queries at a time so that it can batch them."""

    def __init__(self, url: str, model: str | None, api_key: str | None = None) -> None:
        try:
            self._client = Client(url, api_key, timeout=Timeout(read=_CALL_SECONDS, total=_CALL_SECONDS))
        except ValueError as error:
            raise ConfigurationError(str(error)) from error
        self._url = url
        self._model = model

    @functools.cached_property
    def identity(self) -> Mapping[str, Any]:
        """What the server says that this model is.

        Raises:
            EvaluationError: the model is not served; a request would silently get another one.
            RerankdError: the server does not answer.
        """
        with self._errors_in_one_line():
            info = self._client.info()
        cards = info.get("models")
        cards = [card for card in cards if isinstance(card, dict)] if isinstance(cards, list) else []
        served = {str(card.get("name")): card for card in cards}
        if not served or (self._model and self._model not in served):
            raise EvaluationError(
                f"there is no {self._model or 'model'} at {self._url}; it serves {', '.join(served)}"
            )
        card = served[self._model or next(iter(served))]
        missing = [name for name in _CARD if name not in card] + [name for name in _INFO if name not in info]
        if missing:
            raise EvaluationError(f"the server at {self._url} does not say its {missing[0]}; is it a rerankd server?")
        return {
            "model": card["name"],
            "revision": card["fingerprint"],
            "template": card["template"],
            "engine": info["engine"],
            "dtype": info["model_dtype"],
            "device": str(info["device"]).partition(":")[0],
            "max_pair_tokens": card["max_pair_tokens"],
            "default_instruction": card["instruction"],
            "server": self._url,
        }

    def score(self, requests: Iterable[RerankRequest]) -> Iterator[QueryScores]:
        waiting: deque[Future[RankedResults]] = deque()
        requests = iter(requests)
        with ThreadPoolExecutor(_CALLS_AT_ONCE, thread_name_prefix="calls") as threads:
            try:
                for request in itertools.islice(requests, _CALLS_AT_ONCE):
                    waiting.append(threads.submit(self._rank, request))
                while waiting:
                    results = waiting.popleft().result()
                    waiting.extend(threads.submit(self._rank, request) for request in itertools.islice(requests, 1))
                    yield _query_scores(results)
            finally:
                threads.shutdown(cancel_futures=True)

    def _rank(self, request: RerankRequest) -> RankedResults:
        with self._errors_in_one_line():
            return self._client.rank(
                request.query,
                request.documents,
                request.instruction,
                model=self._model,
                raw_scores=True,
                **_options(request.long_documents),
            )

    @contextlib.contextmanager
    def _errors_in_one_line(self) -> Iterator[None]:
        try:
            yield
        except ClientError as error:
            raise RerankdError(f"the server at {self._url}: {error}") from error

    def close(self) -> None:
        self._client.close()


def _options(wish: LongDocuments) -> dict[str, Any]:
    """A wish as fields of a request."""
    fields = {"long_documents": wish.mode, "chunk_aggregation": wish.aggregation, "chunk_tokens": wish.chunk_tokens}
    return {name: value for name, value in fields.items() if value is not None}


def _query_scores(results: RankedResults) -> QueryScores:
    scores = [math.nan if score is None else score for score in results.scores]
    tokens = results.usage.total_tokens if results.usage else 0
    return QueryScores(np.array(scores, dtype=np.float64), tokens, _truncated(results.warnings))


def _truncated(warnings: Sequence[str]) -> int:
    """Pairs that the server says it has cut."""
    found = (_TRUNCATED.match(warning) for warning in warnings)
    return sum(int(match.group(1)) for match in found if match)
