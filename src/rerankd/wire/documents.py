"""What the documents-shaped dialects share: one query, some documents, results best first.

A dialect of this family is a class with a few attributes and a ``body``: see ``infinity.py`` for the whole of one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

from rerankd.errors import ServiceError
from rerankd.types import DocumentScore, Passage, RerankRequest, RerankResult
from rerankd.wire import values
from rerankd.wire.base import Json, ParsedCall, ReadLimits, WireResponse
from rerankd.wire.error_shapes import documents_error
from rerankd.wire.fields import (
    DOCUMENTS,
    INSTRUCTION,
    MODEL,
    QUERY,
    RETURN_DOCUMENTS,
    TOP_N,
    Field,
    read_fields,
    request_options,
    with_common,
)

DOCUMENTS_PER_SEARCH_UNIT = 100
"""Cohere bills one search unit for a query with up to so many documents."""


@dataclass(frozen=True, slots=True)
class Echo:
    """What the render wants to remember of a body."""

    documents: tuple[Json, ...]
    """The documents as they were sent: strings or objects."""
    return_documents: bool | None
    """None where the body does not say."""
    raw_scores: bool
    score_threshold: float | None
    keys: frozenset[str]
    """The keys of the body, null or not: shapes are told apart by them."""

    def scores_of(self, places: Sequence[DocumentScore]) -> list[float | None]:
        """The scores as the client asked for them: probabilities, or logits."""
        return [place.logit for place in places] if self.raw_scores else [place.score for place in places]


@dataclass(frozen=True, slots=True)
class RenderContext:
    """A call and its result, with the pieces that answers are made of."""

    request: RerankRequest
    echo: Echo
    result: RerankResult
    return_documents: bool
    warnings: tuple[str, ...]
    ranked: tuple[DocumentScore, ...]
    """The documents of the answer, best first: as many as were asked for, and none below the threshold."""
    ranked_scores: Sequence[float | None]
    """Their scores as the client asked for them."""

    def rows(
        self, score: str = "relevance_score", document: str = "document", *, as_object: bool = True
    ) -> list[dict[str, Json]]:
        """One object a ranked document, best first, with its text where the client asked for it."""
        rows: list[dict[str, Json]] = []
        for place, value in zip(self.ranked, self.ranked_scores, strict=True):
            row: dict[str, Json] = {"index": place.index, score: value}
            if self.return_documents:
                row[document] = self.object(place.index) if as_object else self.request.documents[place.index]
            if place.best_passage is not None:
                row["best_passage"] = self.passage(place.best_passage)
            if place.model_score is not None:
                row["model_score"] = place.model_score
            if place.team is not None:
                row["team"] = place.team
            if place.rescored is not None:
                row["rescored"] = place.rescored
            if place.relevant_spans:
                row["relevant_spans"] = [self.passage(span) for span in place.relevant_spans]
            rows.append(row)
        return rows

    @property
    def verdict(self) -> dict[str, Json]:
        """Whether nothing reached the threshold, for a client that set one."""
        return {} if self.echo.score_threshold is None else {"nothing_relevant": not self.ranked}

    @property
    def scores(self) -> list[float | None]:
        """The scores of all documents in input order, as the client asked for them."""
        return self.echo.scores_of(self.result.scores)

    def passage(self, passage: Passage) -> dict[str, Json]:
        """A part of a document: offsets in code points, half open, with its score as the client asked for it."""
        score = passage.logit if self.echo.raw_scores else passage.score
        return {"start": passage.start, "end": passage.end, "score": score}

    def object(self, index: int) -> dict[str, Json]:
        """The document as an object with ``text``, its other keys kept.

        Clients read a string there, also where the document had a number by that name and was ranked by other keys.
        """
        sent = self.echo.documents[index]
        if not isinstance(sent, dict):
            return {"text": self.request.documents[index]}
        own = sent.get("text")
        return {**sent, "text": self.request.documents[index] if own is None else values.flat(own)}

    @property
    def total_tokens(self) -> dict[str, int]:
        return {"total_tokens": self.result.prompt_tokens}

    @property
    def prompt_tokens(self) -> dict[str, int]:
        return {"prompt_tokens": self.result.prompt_tokens, "total_tokens": self.result.prompt_tokens}

    @property
    def usage(self) -> dict[str, int]:
        tokens = self.result.prompt_tokens
        return {"prompt_tokens": tokens, "completion_tokens": 0, "total_tokens": tokens}

    @property
    def tokens(self) -> dict[str, int]:
        return {"input_tokens": self.result.prompt_tokens, "output_tokens": 0}

    @property
    def search_units(self) -> int:
        return -(-len(self.request.documents) // DOCUMENTS_PER_SEARCH_UNIT)

    def meta(self, version: str) -> dict[str, Json]:
        """Cohere's ``meta``: what was billed, what was read, and what was cut."""
        return {
            "api_version": {"version": version},
            "billed_units": {"search_units": self.search_units},
            "tokens": self.tokens,
            **self.remarks,
        }

    @property
    def remarks(self) -> dict[str, Json]:
        """What ``meta`` says only where there is something to say."""
        remarks: dict[str, Json] = {}
        if self.warnings:
            remarks["warnings"] = list(self.warnings)
        if self.result.fusion is not None:
            remarks["fusion"] = asdict(self.result.fusion)
        if self.result.cascade is not None:
            remarks["cascade"] = asdict(self.result.cascade)
        if self.result.calibration is not None:
            remarks["calibration"] = self.result.calibration
        if self.result.experiment is not None:
            remarks["experiment"] = asdict(self.result.experiment)
        if (long := self.result.long_documents) is not None:
            remarks["long_documents"] = long.described
        return remarks


class DocumentsDialect(ABC):
    """Reads and renders one query with its documents; a subclass says the names and the body."""

    name: ClassVar[str]
    title: ClassVar[str]
    keys: ClassVar[tuple[str, ...]] = ("documents",)
    fields: ClassVar[tuple[Field, ...]] = (QUERY, DOCUMENTS, MODEL, TOP_N, RETURN_DOCUMENTS, INSTRUCTION)
    example: ClassVar[Json] = {
        "query": "What is the capital of France?",
        "documents": ["Berlin is the capital of Germany.", "Paris is the capital of France."],
        "top_n": 1,
    }
    sometimes: ClassVar[Mapping[str, Json]] = {"nothing_relevant": {"type": "boolean"}}
    inner: ClassVar[tuple[Field, ...]] = ()
    """Fields that its bodies hold in objects of their own, for a dialect that lays them flat."""
    other_bodies: ClassVar[tuple[Json, ...]] = ()
    score_keys: ClassVar[tuple[str, ...]] = ("first_stage_score",)
    """Keys of a document that is an object, any of which may be its first-stage score."""
    returns_documents: ClassVar[bool] = False
    """The dialect's own default."""
    _read: ClassVar[tuple[Field, ...]]
    _names: ClassVar[tuple[str, ...]]
    """Of the fields that hold the documents."""

    def __init_subclass__(cls) -> None:
        cls._read = with_common((*cls.fields, *cls.inner))
        cls._names = tuple(field.name for field in cls._read if field.meaning == "documents")

    def parse(self, body: Json, limits: ReadLimits) -> ParsedCall:
        said = self.options(read_fields(body, self._read))
        where = next(filter(lambda name: body.get(name) is not None, self._names))
        sent = said["documents"]
        texts = values.texts(sent, where, limits.max_documents, said.get("rank_fields", ("text",)))
        echo = Echo(
            documents=tuple(sent) if isinstance(sent, list) else (sent,),
            return_documents=said.get("return_documents"),
            raw_scores=said.get("raw_scores", False),
            score_threshold=said.get("score_threshold"),
            keys=frozenset(body),
        )
        options = request_options(said)
        if isinstance(sent, list) and dict in map(type, sent) and "first_stage_scores" not in options:
            options |= self._carried_scores(sent)
        request = RerankRequest(query=said["query"], documents=texts, **options)
        return ParsedCall((request,), echo)

    def _carried_scores(self, sent: Sequence[Json]) -> dict[str, Any]:
        """The first-stage scores that documents carry themselves, if any does."""
        found: list[float | None] = []
        for index, document in enumerate(sent):
            own = None
            if isinstance(document, dict):
                given = ((key, document[key]) for key in self.score_keys if document.get(key) is not None)
                key, own = next(given, ("", None))
                own = None if own is None else values.number(own, f"documents[{index}].{key}")
            found.append(own)
        return {"first_stage_scores": tuple(found)} if any(own is not None for own in found) else {}

    def options(self, said: Mapping[str, Any]) -> Mapping[str, Any]:
        """What the body says, for a dialect that says some of it in a way of its own."""
        return said

    def render(self, call: ParsedCall, results: Sequence[RerankResult | ServiceError]) -> WireResponse:
        context = self.context(call, require_all_scored(results[0]))
        body = self.body(context)
        if isinstance(body, dict):
            body |= context.verdict
        return WireResponse(body, headers=self.headers(context))

    def context(self, call: ParsedCall, result: RerankResult) -> RenderContext:
        echo: Echo = call.echo
        return_documents = self.returns_documents if echo.return_documents is None else echo.return_documents
        ranked, scores = result.ranked, echo.scores_of(result.ranked)
        if (least := echo.score_threshold) is not None:
            kept = [
                (place, value) for place, value in zip(ranked, scores, strict=True) if value is None or value >= least
            ]
            ranked, scores = tuple([place for place, _ in kept]), [value for _, value in kept]
        warnings = call.warnings + result.warnings
        return RenderContext(call.requests[0], echo, result, return_documents, warnings, ranked, scores)

    @abstractmethod
    def body(self, context: RenderContext) -> Json:
        """The answer, from the pieces of ``context``."""

    def headers(self, context: RenderContext) -> dict[str, str]:
        return {}

    def render_error(self, error: ServiceError, request_id: str) -> WireResponse:
        return documents_error(error, request_id)


def requests_for(said: Mapping[str, Any], groups: Mapping[str, Sequence[str]]) -> tuple[RerankRequest, ...]:
    """A request a query, each with every option that the body has."""
    plain = RerankRequest(query="", documents=(), **request_options(said))
    return tuple(replace(plain, query=query, documents=tuple(texts)) for query, texts in groups.items())


def require_all_scored(result: RerankResult | ServiceError) -> RerankResult:
    """The result if every document has a score, else its first error is raised."""
    if isinstance(result, ServiceError):
        raise result
    if result.errors and (error := result.errors[0].error) is not None:
        raise error
    return result
