"""Cheap checks of a request's size, before a single token is made of it."""

from __future__ import annotations

from dataclasses import dataclass

from rerankd.errors import InvalidRequest, TooLarge
from rerankd.settings import Settings
from rerankd.types import RerankRequest


@dataclass(frozen=True, slots=True)
class SizeLimits:
    """Limits of one request. Characters, because a tokenizer needs seconds and gigabytes for what they bound."""

    max_documents: int
    max_document_characters: int
    max_query_characters: int
    max_request_characters: int

    @classmethod
    def from_settings(cls, settings: Settings, max_documents: int) -> SizeLimits:
        return cls(
            max_documents=max_documents,
            max_document_characters=settings.max_document_characters,
            max_query_characters=settings.max_query_characters,
            max_request_characters=settings.max_request_characters,
        )


def check_sizes(request: RerankRequest, limits: SizeLimits) -> None:
    """Refuse what is empty or too large. An empty document is allowed: it gets a (low) score like any other.

    Raises:
        InvalidRequest: no query, or no documents.
        TooLarge: names the limit, the value measured and the setting that moves the limit.
    """
    if not request.query or request.query.isspace():
        raise InvalidRequest("query must not be empty or blank", param="query")
    if not request.documents:
        raise InvalidRequest("documents must not be empty", param="documents")
    _check("documents", "documents", len(request.documents), limits.max_documents, "max_documents")
    _check_characters("query", len(request.query), limits.max_query_characters, "max_query_characters")
    instruction = len(request.instruction or "")
    _check_characters("instruction", instruction, limits.max_query_characters, "max_query_characters")
    lengths = [len(document) for document in request.documents]
    longest = max(range(len(lengths)), key=lengths.__getitem__)
    _check_characters(
        f"documents[{longest}]", lengths[longest], limits.max_document_characters, "max_document_characters"
    )
    _check_characters("documents", sum(lengths), limits.max_request_characters, "max_request_characters")


def _check_characters(param: str, value: int, limit: int, setting: str) -> None:
    _check(param, "characters", value, limit, setting)


def _check(param: str, unit: str, value: int, limit: int, setting: str) -> None:
    if value > limit:
        name = "the request" if unit == "documents" else param
        raise TooLarge(f"{name} has {value} {unit}, the limit is {limit}", param=param, setting=setting)
