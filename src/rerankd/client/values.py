"""What goes into a call and what comes out: plain frozen values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias, overload

if TYPE_CHECKING:
    import pandas

Pair: TypeAlias = tuple[str, str]
"""A query and a document."""


@dataclass(frozen=True, slots=True)
class Document:
    """A text to be ranked, with whatever the caller wants to find again beside it.

    Only ``text`` is sent to the server.
    """

    text: str
    id: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Passage:
    """A part of a document with a score of its own: ``text[start:end]``."""

    start: int
    end: int
    score: float


@dataclass(frozen=True, slots=True)
class Query:
    """One query of :meth:`~rerankd.client.Client.rank_many` with its own documents."""

    text: str
    documents: Sequence[str | Document]
    instruction: str | None = None
    top_n: int | None = None
    threshold: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of the request, by their names in the API: ``{"long_documents": "chunk"}``."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A name that the server answers to; longer pairs are cut to ``max_pair_tokens``."""

    name: str
    max_pair_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """A document's place: ``index`` into the documents that were sent; ``score`` in 0..1, or raw if so asked.

    ``best_passage`` is the part that won where long documents are split, ``relevant_spans`` those that answer the
    query where they were asked for, best first. ``model_score`` is the model's own where ``score`` is fused with a
    first stage's, and ``rescored`` whether the model has seen this document where a cascade ordered first.
    """

    index: int
    score: float
    document: Document
    best_passage: Passage | None = None
    relevant_spans: tuple[Passage, ...] = ()
    model_score: float | None = None
    rescored: bool | None = None


@dataclass(frozen=True, slots=True)
class DocumentError:
    """Why one document has no score."""

    index: int
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens that the server read for a call, prompts included."""

    prompt_tokens: int
    total_tokens: int


@dataclass(frozen=True, slots=True)
class RankedResults(Sequence[Result]):
    """Documents from the best to the worst; equal scores in input order.

    Attributes:
        results: the best ``top_n``, or all; none with a score below the threshold.
        scores: one score a document in input order, ``None`` where the server failed on that document.
        model: name of the model that scored.
        id: the server's id of the answer.
        usage: tokens, where the server counted them.
        errors: the documents that have no score, and why.
        warnings: what the server says beside the scores, such as how many pairs it had to cut.
        meta: what else the server says of the call, such as what became of long documents.
        nothing_relevant: whether no document reached the threshold; None where there was none.
    """

    results: tuple[Result, ...]
    scores: tuple[float | None, ...]
    model: str = ""
    id: str = ""
    usage: Usage | None = None
    errors: tuple[DocumentError, ...] = ()
    warnings: tuple[str, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)
    nothing_relevant: bool | None = None

    def __iter__(self) -> Iterator[Result]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)

    @overload
    def __getitem__(self, place: int) -> Result: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[Result, ...]: ...
    def __getitem__(self, place: int | slice) -> Result | tuple[Result, ...]:
        return self.results[place]

    def top(self, k: int) -> tuple[Result, ...]:
        """The best ``k``, fewer when there are fewer."""
        return self.results[: max(k, 0)]

    def to_pandas(self) -> pandas.DataFrame:
        """One row a result, best first: ``index``, ``score``, ``text``, ``id``, and ``metadata.KEY`` for each key.

        Raises:
            ImportError: pandas is not installed; ``pip install rerankd[pandas]`` brings it.
        """
        import pandas

        rows = [
            {"index": result.index, "score": result.score, "text": result.document.text, "id": result.document.id}
            | {f"metadata.{key}": value for key, value in result.document.metadata.items()}
            for result in self.results
        ]
        # Without rows pandas would know no columns.
        return pandas.DataFrame(rows) if rows else pandas.DataFrame(columns=["index", "score", "text", "id"])


@dataclass(frozen=True, slots=True)
class Timeout:
    """Seconds for each phase of one attempt, and for the whole call with its retries.

    ``total`` is also sent to the server as ``X-Request-Timeout-Ms``, so that it drops work whose answer
    nobody waits for; ``None`` leaves the deadline to the server.
    """

    connect: float = 5.0
    write: float = 30.0
    read: float = 30.0
    pool: float = 5.0
    total: float | None = 30.0

    def __post_init__(self) -> None:
        for phase in ("connect", "write", "read", "pool", "total"):
            seconds = getattr(self, phase)
            if seconds is not None and seconds <= 0:
                raise ValueError(f"the timeout {phase!r} has to be more than 0 seconds")
