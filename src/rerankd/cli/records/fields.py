"""What a record asks, and what is written for it.

A record has one of two shapes. A pair, ``{"query": …, "document": …}``, gets a score. A query with a list,
``{"query": …, "documents": [ … ]}``, gets ``results`` as the server gives them: index and score, best first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rerankd.types import RerankRequest

DOCUMENT, DOCUMENTS = "document", "documents"
RESULTS, ERRORS = "results", "errors"


class BadRecord(Exception):
    """A record that cannot be scored; the message says which field is wrong, never what it holds."""


@dataclass(frozen=True, slots=True)
class Scored:
    """The scores of one record's documents.

    Attributes:
        scores: in input order, None where there is none.
        ranked: the documents that have one, best first.
        errors: why the others have none.
    """

    scores: Sequence[float | None] = ()
    ranked: Sequence[int] = ()
    errors: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Fields:
    """Where a record holds what.

    Attributes:
        document: the field with the text, or with the list of texts; ``document`` falls back to ``documents``.
        score: the field that takes a pair's score.
        given_query: one query for all records, in the place of their own.
        most_characters: of a record's documents together.
    """

    query: str = "query"
    document: str = DOCUMENT
    score: str = "score"
    given_query: str | None = None
    instruction: str | None = None
    top_n: int | None = None
    most_characters: int = 2_000_000

    def request(self, record: Mapping[str, Any]) -> RerankRequest:
        """The query and documents of a record.

        Raises:
            BadRecord: a field is missing or of the wrong kind.
        """
        query = record.get(self.query) if self.given_query is None else self.given_query
        if not isinstance(query, str):
            raise BadRecord(f"the field {self.query!r} {_wrong(self.query, record)} (--query-field)")
        if not query.strip():
            raise BadRecord(f"the field {self.query!r} is blank")
        texts = self._texts(record)
        if sum(map(len, texts)) > self.most_characters:
            raise BadRecord(
                f"its documents have more than {self.most_characters} characters (--max-request-characters)"
            )
        return RerankRequest(query, texts, instruction=self.instruction, top_n=self.top_n)

    def _texts(self, record: Mapping[str, Any]) -> tuple[str, ...]:
        name = self.document
        if name == DOCUMENT and name not in record and DOCUMENTS in record:
            name = DOCUMENTS
        value = record.get(name)
        if isinstance(value, str):
            return (value,)
        if not isinstance(value, list):
            raise BadRecord(f"the field {name!r} {_wrong(name, record)} (--document-field)")
        if not value:
            raise BadRecord(f"the list {name!r} is empty")
        return tuple(_text(item, name, index) for index, item in enumerate(value))

    def is_list(self, record: Mapping[str, Any]) -> bool:
        return not isinstance(record.get(self.document), str)

    def answer(self, record: dict[str, Any], scored: Scored) -> dict[str, Any] | None:
        """The record with its score or results; None where it has not one score."""
        if not scored.ranked:
            return None
        if not self.is_list(record):
            return {**record, self.score: scored.scores[0]}
        best = scored.ranked[: self.top_n]
        results = [{"index": index, "relevance_score": scored.scores[index]} for index in best]
        errors = [{"index": index, "message": message} for index, message in scored.errors.items()]
        return {**record, RESULTS: results} | ({ERRORS: errors} if errors else {})


def _wrong(name: str, record: Mapping[str, Any]) -> str:
    return "holds no text" if name in record else "is missing"


def _text(item: Any, name: str, index: int) -> str:
    text = item.get("text") if isinstance(item, dict) else item
    if not isinstance(text, str):
        raise BadRecord(f"item {index} of the list {name!r} holds no text")
    return text
