"""What the documents-shaped dialects share: one query, some documents, results best first.

A dialect of this family is a class with a few attributes and a ``body``: see ``infinity.py`` for the whole of one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rerankd.errors import ServiceError
from rerankd.types import DocumentScore, RerankRequest, RerankResult
from rerankd.wire.base import Json, ParsedCall, WireResponse
from rerankd.wire.error_shapes import documents_error
from rerankd.wire.fields import Fields, flat

DOCUMENTS_PER_SEARCH_UNIT = 100
"""Cohere bills one search unit for a query with up to so many documents."""

LOWEST_PRIORITY = 999

_NO_MODEL = "default/not-specified"
"""What Infinity's client sends for a model that was not named."""


@dataclass(frozen=True, slots=True)
class Echo:
    """What the render wants to remember of a body."""

    documents: tuple[Json, ...]
    """The documents as they were sent: strings or objects."""
    return_documents: bool
    raw_scores: bool
    voyage_keys: bool
    """Whether ``top_k`` or ``truncation`` was there, null or not: a client of Voyage's shape."""


@dataclass(frozen=True, slots=True)
class RenderContext:
    """A call and its result, with the pieces that answers are made of."""

    request: RerankRequest
    echo: Echo
    result: RerankResult

    def rows(
        self, score: str = "relevance_score", document: str = "document", *, as_object: bool = True
    ) -> list[dict[str, Json]]:
        """One object a ranked document, best first, with its text where the client asked for it."""
        rows: list[dict[str, Json]] = []
        for place in self.result.ranked:
            row: dict[str, Json] = {"index": place.index, score: self.value(place)}
            if self.echo.return_documents:
                row[document] = self.object(place.index) if as_object else self.request.documents[place.index]
            rows.append(row)
        return rows

    def value(self, place: DocumentScore) -> float | None:
        """The score as the client asked for it: the probability, or the logit."""
        return place.logit if self.echo.raw_scores else place.score

    def object(self, index: int) -> dict[str, Json]:
        """The document as an object with ``text``, its other keys kept.

        Clients read a string there, also where the document had a number by that name and was ranked by other keys.
        """
        sent = self.echo.documents[index]
        if not isinstance(sent, dict):
            return {"text": self.request.documents[index]}
        own = sent.get("text")
        return {**sent, "text": self.request.documents[index] if own is None else flat(own)}

    @property
    def total_tokens(self) -> dict[str, int]:
        return {"total_tokens": self.result.prompt_tokens}

    @property
    def prompt_tokens(self) -> dict[str, int]:
        return {"prompt_tokens": self.result.prompt_tokens, "total_tokens": self.result.prompt_tokens}

    @property
    def usage(self) -> dict[str, int]:
        return {"prompt_tokens": self.result.prompt_tokens, "completion_tokens": 0, **self.total_tokens}

    @property
    def tokens(self) -> dict[str, int]:
        return {"input_tokens": self.result.prompt_tokens, "output_tokens": 0}

    def meta(self, version: str) -> dict[str, Json]:
        """Cohere's ``meta``: what was billed, what was read, and what was cut."""
        units = -(-len(self.request.documents) // DOCUMENTS_PER_SEARCH_UNIT)
        meta: dict[str, Json] = {
            "api_version": {"version": version},
            "billed_units": {"search_units": units},
            "tokens": self.tokens,
        }
        if self.result.warnings:
            meta["warnings"] = list(self.result.warnings)
        return meta


class DocumentsDialect(ABC):
    """Reads and renders one query with its documents; a subclass says the names and the body."""

    name: ClassVar[str]
    title: ClassVar[str]
    keys: ClassVar[tuple[str, ...]] = ("documents",)
    takes: ClassVar[tuple[str, ...]] = ("query", "documents", "model", "top_n", "return_documents", "instruction")
    required: ClassVar[int] = 2
    example: ClassVar[Json] = {
        "query": "What is the capital of France?",
        "documents": ["Berlin is the capital of Germany.", "Paris is the capital of France."],
        "top_n": 1,
    }
    other_bodies: ClassVar[tuple[Json, ...]] = ()
    document_key: ClassVar[str] = "documents"
    return_key: ClassVar[str] = "return_documents"
    returns_documents: ClassVar[bool] = False
    """The dialect's own default."""
    zero_is_all: ClassVar[bool] = False
    """Whether ``top_n: 0`` asks for all documents; elsewhere it is an error."""

    def parse(self, body: Json) -> ParsedCall:
        fields = Fields(body)
        query = fields.query("query")
        texts, sent = fields.documents(self.document_key)
        top_n = fields.whole("top_n", "top_k", least=0 if self.zero_is_all else 1)
        echo = Echo(
            documents=sent,
            return_documents=bool(fields.flag(self.return_key, self.returns_documents)),
            raw_scores=bool(fields.flag("raw_scores", False)) or fields.flag("use_activation", True) is False,
            voyage_keys="top_k" in fields or "truncation" in fields,
        )
        return ParsedCall((read_request(fields, query, texts, top_n or None),), echo)

    def render(self, call: ParsedCall, results: Sequence[RerankResult | ServiceError]) -> WireResponse:
        context = RenderContext(call.requests[0], call.echo, require_all_scored(results[0]))
        return WireResponse(self.body(context), headers=self.headers(context))

    @abstractmethod
    def body(self, context: RenderContext) -> Json:
        """The answer, from the pieces of ``context``."""

    def headers(self, context: RenderContext) -> dict[str, str]:
        return {}

    def render_error(self, error: ServiceError, request_id: str) -> WireResponse:
        return documents_error(error, request_id)


def read_request(fields: Fields, query: str, documents: tuple[str, ...], top_n: int | None = None) -> RerankRequest:
    """The request with every option that any dialect has a name for."""
    model = fields.text("model")
    priority = fields.whole("priority", least=-(2**31)) or 0
    return RerankRequest(
        query=query,
        documents=documents,
        model=None if model in (None, "", _NO_MODEL) else model,
        instruction=fields.instruction(),
        top_n=top_n,
        truncate=read_truncate(fields),
        truncation_side=fields.side("truncation_direction", "truncation_side"),
        max_tokens_per_document=fields.whole("max_tokens_per_doc", "max_tokens_per_document") or None,
        max_tokens_per_query=fields.whole("max_tokens_per_query") or None,
        priority=min(max(priority, 0), LOWEST_PRIORITY),
    )


def read_truncate(fields: Fields) -> bool | None:
    """Whether to cut what is too long, by any of its names; None where the client does not say."""
    truncate = fields.flag("truncate")
    if truncate is None:
        truncate = fields.flag("truncation")
    # vLLM's clients ask for it by a count of tokens, where -1 stands for the model's own limit.
    asked_by_count = fields.whole("truncate_prompt_tokens", least=-1) is not None
    return True if truncate is None and asked_by_count else truncate


def require_all_scored(result: RerankResult | ServiceError) -> RerankResult:
    """The result if every document has a score, else its first error is raised."""
    if isinstance(result, ServiceError):
        raise result
    if result.errors and (error := result.errors[0].error) is not None:
        raise error
    return result
