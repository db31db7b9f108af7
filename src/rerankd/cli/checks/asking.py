"""One call of a reranking server of any make, in the shape of Cohere and Jina, and the scores of its answer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import httpx

from rerankd.client._core import base_address, default_headers
from rerankd.errors import InvalidRequest

_SECONDS = 120.0


class Refused(Exception):
    """The server gave no score for every document."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class Server:
    """A running server.

    Args:
        path: the route that ranks; it takes ``query`` and ``documents`` and answers with ``results``, each with
            ``index`` and ``relevance_score`` or ``score``.

    Raises:
        InvalidRequest: the address is none of HTTP.
    """

    def __init__(self, url: str, path: str, api_key: str | None, model: str | None) -> None:
        try:
            self._address = base_address(url)
            # Every answer has to be computed: a cache would repeat what it was told first.
            headers = default_headers(api_key) | {"Cache-Control": "no-cache"}
        except ValueError as error:
            raise InvalidRequest(f"--url: {error}") from None
        self._path = path
        self._model = {"model": model} if model else {}
        self._http = httpx.Client(headers=headers, timeout=_SECONDS)

    def scores(self, query: str, documents: Sequence[str]) -> list[float]:
        """One score a document, in input order.

        Raises:
            Refused: the server does not answer, or not with that.
        """
        body = {"query": query, "documents": list(documents), **self._model}
        try:
            answer = self._http.post(self._address + self._path, json=body)
        except httpx.HTTPError as error:
            raise Refused(f"no answer: {type(error).__name__}") from None
        if not answer.is_success:
            raise Refused(f"the server answered {answer.status_code}", answer.status_code)
        try:
            return _scores(answer.json(), len(documents))
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            raise Refused(f"the answer has not one score for each of {len(documents)} documents") from None

    def info(self) -> dict[str, Any]:
        """What a rerankd says of itself; empty for another server."""
        try:
            answer = self._http.get(f"{self._address}/info")
            found = answer.json() if answer.is_success else None
        except (httpx.HTTPError, ValueError):
            return {}
        return found if isinstance(found, dict) and "template" in found else {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()


def _scores(answer: Any, count: int) -> list[float]:
    rows = answer["results"] if isinstance(answer, dict) else answer
    found: dict[int, float] = {}
    for row in rows:
        found[int(row["index"])] = float(row["relevance_score"] if "relevance_score" in row else row["score"])
    scores = [found[index] for index in range(count)]
    if len(rows) != count or not all(map(math.isfinite, scores)):
        raise ValueError
    return scores


def logit(score: float) -> float:
    """The raw score behind a probability; a score that is none, or is rounded to 0 or 1, as it is."""
    return math.log(score / (1 - score)) if 0 < score < 1 else score
