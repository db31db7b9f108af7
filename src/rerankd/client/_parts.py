"""Big requests in parts that the server takes, and one answer of theirs.

A plan is a generator that yields calls and is sent their answers; both clients drive the same ones.

A request of at most ``SMALL_ITEMS`` and ``SMALL_CHARACTERS`` goes as it is. Before the first one beyond them the
client asks ``GET /info`` for the server's limits, and cuts by them: the parts go one after another. Where a part is
refused as too large all the same, the limits are asked for once more. A query with first-stage scores, fusion or a
cascade is never cut: the server says whether it is too large.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, TypeAlias, TypeVar

from rerankd.client import errors
from rerankd.client._calls import (
    RowFacts,
    as_documents,
    info_call,
    rank_call,
    rank_many_call,
    results_of,
    score_call,
)
from rerankd.client._core import Call
from rerankd.client.values import Document, Pair, Query, RankedResults, Result, Usage

T = TypeVar("T")
Plan: TypeAlias = Generator[Call[Any], Any, T]
RankedOrError: TypeAlias = "RankedResults | errors.StatusError"

SMALL_ITEMS = 100
"""Documents, queries or pairs that any server is expected to take."""
SMALL_CHARACTERS = 200_000
NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})
_ALL_TOGETHER = frozenset({"first_stage_scores", "fusion", "cascade"})
"""Options that weigh all documents of a query against each other: scores of its parts would be other scores."""
_UNLIMITED = 2**62
_BODY_MARGIN = 1024
"""Bytes of a body's keys and options beside its texts."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may have; see the server's settings of the same names."""

    max_documents: int = _UNLIMITED
    max_queries: int = _UNLIMITED
    max_request_characters: int = _UNLIMITED
    max_body_bytes: int = _UNLIMITED

    @classmethod
    def of(cls, info: dict[str, Any], model: str | None) -> Limits:
        """Those of ``/info``, with the served name's own number of documents."""
        said = info.get("limits")
        limits = dict(said) if isinstance(said, dict) else {}
        cards = info.get("models")
        named = [card for card in cards if isinstance(card, dict)] if isinstance(cards, list) else []
        own = next((card.get("max_documents") for card in named if card.get("name") == model), None)
        limits["max_documents"] = own or info.get("max_client_batch_size")
        known = {name: limits.get(name) for name in cls.__slots__}
        return cls(**{name: value for name, value in known.items() if isinstance(value, int) and value > 0})


class KnownLimits:
    """What a client has learned of its server; shared by its calls."""

    def __init__(self) -> None:
        self.info: dict[str, Any] | None = None

    def ask(self) -> Plan[None]:
        try:
            self.info = yield info_call()
        except errors.StatusError:
            # A key may be kept from /info, and a proxy may hide it: the request goes whole, and the server judges.
            self.info = {}


def rank_plan(
    known: KnownLimits, query: Query, *, model: str | None = None, raw_scores: bool = False
) -> Plan[RankedResults]:
    documents = as_documents(query.documents)
    query = replace(query, documents=documents)

    def calls(limits: Limits) -> list[Call[RankedResults]]:
        parts = [replace(query, documents=documents[part]) for part in _document_parts(query, documents, limits)]
        return [rank_call(part, model=model, raw_scores=raw_scores) for part in parts]

    answers: list[RankedResults] = yield from _in_parts(known, model, _is_small([query]), calls)
    return _merged(query, documents, answers)


def rank_many_plan(
    known: KnownLimits, queries: Sequence[Query], *, model: str | None = None
) -> Plan[list[RankedOrError]]:
    queries = [replace(query, documents=as_documents(query.documents)) for query in queries]
    # The pieces of each query, in order, as they were last cut.
    pieces: list[tuple[int, Query]] = []

    def calls(limits: Limits) -> list[Call[list[RankedOrError]]]:
        pieces[:] = [
            (number, replace(query, documents=query.documents[part]))
            for number, query in enumerate(queries)
            for part in _document_parts(query, as_documents(query.documents), limits)
        ]
        sizes = [(1, _query_bytes(piece) + sum(map(_document_bytes, piece.documents))) for _, piece in pieces]
        most = (limits.max_queries, limits.max_body_bytes - _BODY_MARGIN)
        return [rank_many_call([piece for _, piece in pieces[part]], model=model) for part in _cut(sizes, most)]

    answered = yield from _in_parts(known, model, _is_small(queries), calls)
    found: list[list[RankedOrError]] = [[] for _ in queries]
    for (number, _), answer in zip(pieces, (item for items in answered for item in items), strict=True):
        found[number].append(answer)
    return [_merged_or_error(query, answers) for query, answers in zip(queries, found, strict=True)]


def score_plan(
    known: KnownLimits,
    pairs: Sequence[Pair],
    *,
    instruction: str | None = None,
    model: str | None = None,
    raw_scores: bool = False,
    options: Mapping[str, Any] = NO_OPTIONS,
) -> Plan[list[float]]:
    if not pairs:
        return []

    def calls(limits: Limits) -> list[Call[list[float]]]:
        sizes = [
            (1, len(text), _json_bytes(query) + _json_bytes(text), not number or query != pairs[number - 1][0])
            for number, (query, text) in enumerate(pairs)
        ]
        # A part may begin in the midst of a query, which is one more.
        most = (limits.max_documents, limits.max_request_characters, limits.max_body_bytes, limits.max_queries - 1)
        return [
            score_call(pairs[part], instruction=instruction, model=model, raw_scores=raw_scores, options=options)
            for part in _cut(sizes, most)
        ]

    characters = sum(len(query) + len(text) for query, text in pairs)
    is_small = (len(pairs) <= SMALL_ITEMS and characters <= SMALL_CHARACTERS) or len(pairs) == 1
    answers: list[list[float]] = yield from _in_parts(known, model, is_small, calls)
    return [score for answer in answers for score in answer]


def call_plan(call: Call[T]) -> Plan[T]:
    """A call that is never cut."""
    answer: T = yield call
    return answer


def _in_parts(
    known: KnownLimits, model: str | None, is_small: bool, calls: Callable[[Limits], list[Call[T]]]
) -> Plan[list[T]]:
    """The answers of the parts, in order."""
    if is_small:
        return (yield from _each(calls(Limits())))
    is_new = known.info is None
    if known.info is None:
        yield from known.ask()
    try:
        return (yield from _each(calls(Limits.of(known.info or {}, model))))
    except errors.TooLarge:
        if is_new:
            raise
    # The server has other limits than when they were asked for.
    yield from known.ask()
    return (yield from _each(calls(Limits.of(known.info or {}, model))))


def _each(calls: Iterable[Call[T]]) -> Plan[list[T]]:
    answers: list[T] = []
    for call in calls:
        answers.append((yield call))
    return answers


def _is_small(queries: Sequence[Query]) -> bool:
    characters = sum(len(query.text) + sum(map(_length, query.documents)) for query in queries)
    most = max((len(query.documents) for query in queries), default=0)
    # One document of one query cannot be cut, however long it is: there is nothing to ask for.
    if len(queries) == 1 and most == 1:
        return True
    return max(most, len(queries)) <= SMALL_ITEMS and characters <= SMALL_CHARACTERS


def _document_parts(query: Query, documents: Sequence[Document], limits: Limits) -> list[slice]:
    if not _ALL_TOGETHER.isdisjoint(query.options):
        return [slice(0, len(documents))]
    sizes = [(1, len(document.text), _document_bytes(document)) for document in documents]
    bytes_left = limits.max_body_bytes - _BODY_MARGIN - _query_bytes(query)
    return _cut(sizes, (limits.max_documents, limits.max_request_characters, bytes_left))


def _cut(sizes: Sequence[tuple[int, ...]], most: tuple[int, ...]) -> list[slice]:
    """Runs, in order, in which no column adds up to more than its limit.

    What is too large alone is a run of its own, which the server refuses by name; nothing at all is one empty run.
    """
    runs, begin, sums = [], 0, [0] * len(most)
    for place, size in enumerate(sizes):
        sums = [total + more for total, more in zip(sums, size, strict=True)]
        if place > begin and any(total > limit for total, limit in zip(sums, most, strict=True)):
            runs.append(slice(begin, place))
            begin, sums = place, list(size)
    return [*runs, slice(begin, len(sizes))]


def _merged(query: Query, documents: Sequence[Document], answers: Sequence[RankedResults]) -> RankedResults:
    """One answer of those of its parts: places count from the first document, tokens are added up."""
    if len(answers) == 1:
        return answers[0]
    scores = [score for answer in answers for score in answer.scores]
    failed, begin = [], 0
    rows: dict[int, RowFacts] = {}
    for answer in answers:
        failed += [replace(error, index=begin + error.index) for error in answer.errors]
        rows |= {begin + result.index: _facts_of(result) for result in answer}
        begin += len(answer.scores)
    results, nothing_relevant = results_of(documents, scores, query, rows)
    used = [answer.usage for answer in answers if answer.usage is not None]
    return RankedResults(
        results,
        tuple(scores),
        model=answers[0].model,
        id=answers[0].id,
        usage=Usage(sum(one.prompt_tokens for one in used), sum(one.total_tokens for one in used)) if used else None,
        errors=tuple(failed),
        meta=answers[0].meta,
        warnings=tuple(dict.fromkeys(warning for answer in answers for warning in answer.warnings)),
        nothing_relevant=nothing_relevant,
    )


def _facts_of(result: Result) -> RowFacts:
    return RowFacts(result.best_passage, result.relevant_spans, result.model_score, result.rescored)


def _merged_or_error(query: Query, answers: Sequence[RankedOrError]) -> RankedOrError:
    ranked = [answer for answer in answers if isinstance(answer, RankedResults)]
    failed = [answer for answer in answers if not isinstance(answer, RankedResults)]
    return failed[0] if failed else _merged(query, as_documents(query.documents), ranked)


def _query_bytes(query: Query) -> int:
    return _json_bytes(query.text) + _json_bytes(query.instruction or "") + _BODY_MARGIN


def _document_bytes(document: str | Document) -> int:
    return _json_bytes(document if isinstance(document, str) else document.text)


def _length(document: str | Document) -> int:
    return len(document if isinstance(document, str) else document.text)


def _json_bytes(text: str) -> int:
    """Bytes of a text in a body, with its comma."""
    return len(json.dumps(text, ensure_ascii=False).encode("utf-8", "surrogatepass")) + 1
