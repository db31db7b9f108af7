"""What a dialect is: JSON in, requests out; results in, JSON out. Data and pure functions, no I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from rerankd.errors import ServiceError
from rerankd.types import RerankRequest, RerankResult

if TYPE_CHECKING:
    from rerankd.wire.fields import Field

Json: TypeAlias = Any
"""A decoded JSON value: dict, list, str, int, float, bool or None."""


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """How much of a body is read: lists are counted before their items are looked at.

    The service checks each request by its own model's limits; these are the widest of all served models.
    """

    max_documents: int = 1000
    max_queries: int = 256
    max_characters: int = 2_000_000

    @property
    def max_pairs(self) -> int:
        return self.max_queries * self.max_documents


@dataclass(frozen=True, slots=True)
class ParsedCall:
    """One HTTP call as its dialect read it.

    ``requests`` go through the batcher together. ``echo`` is whatever the dialect's own ``render`` wants to
    remember of the body (flags, original document objects); no other layer looks into it.
    """

    requests: tuple[RerankRequest, ...]
    echo: Any = None
    warnings: tuple[str, ...] = ()
    """What was read otherwise than it was sent, or not at all; answered beside the result's own warnings."""


@dataclass(frozen=True, slots=True)
class WireResponse:
    """Status, headers and body of a response."""

    body: Json
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


class Dialect(Protocol):
    """One rerank API as the world speaks it."""

    @property
    def name(self) -> str: ...

    @property
    def title(self) -> str:
        """Whose API it is, for a person who reads the OpenAPI document."""
        ...

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of a body that give this dialect away where several live at one path."""
        ...

    @property
    def fields(self) -> tuple[Field, ...]:
        """The fields that its own API knows, the required ones first: what it reads, and what is shown of it."""
        ...

    @property
    def example(self) -> Json:
        """A body that it accepts; the OpenAPI document shows it with the answer that ``render`` gives."""
        ...

    @property
    def other_bodies(self) -> tuple[Json, ...]:
        """Bodies whose answers have a form of their own, for the schema of the answer."""
        ...

    @property
    def sometimes(self) -> Mapping[str, Json]:
        """Schemas of keys that an answer has beside those of the examples, where there is something to say."""
        ...

    def parse(self, body: Json, limits: ReadLimits) -> ParsedCall:
        """Read a decoded body.

        Raises:
            InvalidRequest: names the field and never repeats its value.
            TooLarge: a list is longer than ``limits`` allow.
        """
        ...

    def render(self, call: ParsedCall, results: Sequence[RerankResult | ServiceError]) -> WireResponse:
        """One entry of ``results`` a request of the call, in order.

        A dialect without a place for an error of one request or one document raises that error.
        """
        ...

    def render_error(self, error: ServiceError, request_id: str) -> WireResponse:
        """The error in the dialect's own shape and status."""
        ...
