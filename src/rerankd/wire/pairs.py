"""What the pair-shaped dialects share: texts scored two by two, answers in input order, nothing ranked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rerankd.errors import InvalidRequest, ServiceError, TooLarge
from rerankd.types import DocumentScore, RerankResult
from rerankd.wire import schema, values
from rerankd.wire.base import Json, ParsedCall, ReadLimits
from rerankd.wire.documents import requests_for, require_all_scored
from rerankd.wire.fields import Field

Pair = tuple[str, str]

QUERIES = Field("queries", "queries", "One query, or as many as documents.", schema.TEXTS, values.as_sent)


@dataclass(frozen=True, slots=True)
class PairEcho:
    """Where the score of each pair is found again."""

    places: tuple[tuple[int, int], ...]
    """One (request, document) a pair, in input order."""
    raw_scores: bool
    is_flat: bool = False
    """Whether the answer is one list, and not one list a pair."""


def read_pairs(body: Mapping[str, Json], first: str, second: str, limits: ReadLimits) -> list[Pair]:
    """The texts of two fields: one of the first with every one of the second, or as many of one as of the other."""
    alone = len(values.items(body[first], first, limits.max_pairs)) == 1
    documents = values.texts(body[second], second, limits.max_documents if alone else limits.max_pairs)
    queries = values.texts(body[first], first, limits.max_pairs)
    if alone:
        return [(queries[0], document) for document in documents]
    if len(queries) != len(documents):
        raise InvalidRequest(f"{first} and {second} have to be one and many, or equally many")
    return list(zip(queries, documents, strict=True))


def call_for(
    said: Mapping[str, Any], pairs: Sequence[Pair], limits: ReadLimits, *, is_flat: bool = False
) -> ParsedCall:
    """Pairs of the same query become one request, so that the engine reads the query once.

    Raises:
        TooLarge: more different queries than a call may have.
    """
    groups: dict[str, list[str]] = {}
    order: dict[str, int] = {}
    places = []
    for query, document in pairs:
        number = order.setdefault(query, len(order))
        if number == limits.max_queries:
            raise TooLarge(
                f"the call has more than {limits.max_queries} different queries, the limit", setting="max_queries"
            )
        group = groups.setdefault(query, [])
        places.append((number, len(group)))
        group.append(document)
    echo = PairEcho(tuple(places), said.get("raw_scores", False), is_flat)
    return ParsedCall(requests_for(said, groups), echo)


def scores_of(call: ParsedCall, results: Sequence[RerankResult | ServiceError]) -> list[float | None]:
    """One score a pair, in input order; the error of any pair is raised."""
    answers = [require_all_scored(result) for result in results]
    echo: PairEcho = call.echo
    scores: list[DocumentScore] = [answers[request].scores[document] for request, document in echo.places]
    return [score.logit if echo.raw_scores else score.score for score in scores]


def usage_of(results: Sequence[RerankResult | ServiceError]) -> dict[str, Json]:
    tokens = sum(result.prompt_tokens for result in results if isinstance(result, RerankResult))
    return {"prompt_tokens": tokens, "completion_tokens": 0, "total_tokens": tokens}
