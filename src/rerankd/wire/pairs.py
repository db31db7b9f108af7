"""What the pair-shaped dialects share: texts scored two by two, answers in input order, nothing ranked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rerankd.errors import InvalidRequest, ServiceError
from rerankd.types import DocumentScore, RerankRequest, RerankResult
from rerankd.wire.base import Json, ParsedCall
from rerankd.wire.documents import read_request, require_all_scored
from rerankd.wire.fields import Fields

Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class PairEcho:
    """Where the score of each pair is found again."""

    places: tuple[tuple[int, int], ...]
    """One (request, document) a pair, in input order."""
    raw_scores: bool
    single: bool = False
    """Whether the body held one pair and not a list of pairs."""


def pair_up(queries: Sequence[str], documents: Sequence[str], names: str) -> list[Pair]:
    """One query with every document, or as many of one as of the other."""
    if not queries or not documents:
        raise InvalidRequest(f"{names} must not be empty")
    if len(queries) == 1:
        return [(queries[0], document) for document in documents]
    if len(queries) != len(documents):
        raise InvalidRequest(f"{names} have to be one and many, or equally many")
    return list(zip(queries, documents, strict=True))


def call_for(fields: Fields, pairs: Sequence[Pair], *, single: bool = False) -> ParsedCall:
    """Pairs of the same query become one request, so that the engine reads the query once."""
    groups: dict[str, list[str]] = {}
    order = {query: number for number, query in enumerate(dict.fromkeys(query for query, _ in pairs))}
    places = []
    for query, document in pairs:
        group = groups.setdefault(query, [])
        places.append((order[query], len(group)))
        group.append(document)
    requests: list[RerankRequest] = [
        read_request(fields, query, tuple(documents)) for query, documents in groups.items()
    ]
    raw_scores = bool(fields.flag("raw_scores", False)) or fields.flag("use_activation", True) is False
    return ParsedCall(tuple(requests), PairEcho(tuple(places), raw_scores, single))


def scores_of(call: ParsedCall, results: Sequence[RerankResult | ServiceError]) -> list[float | None]:
    """One score a pair, in input order; the error of any pair is raised."""
    answers = [require_all_scored(result) for result in results]
    echo: PairEcho = call.echo
    scores: list[DocumentScore] = [answers[request].scores[document] for request, document in echo.places]
    return [score.logit if echo.raw_scores else score.score for score in scores]


def usage_of(results: Sequence[RerankResult | ServiceError]) -> dict[str, Json]:
    tokens = sum(result.prompt_tokens for result in results if isinstance(result, RerankResult))
    return {"prompt_tokens": tokens, "completion_tokens": 0, "total_tokens": tokens}
