"""The values that travel between the layers: plain, never changed, and free of any model or transport."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rerankd.errors import ScoringError

IdArray: TypeAlias = NDArray[np.int32]
"""Token ids, shape (n,), int32."""

Outcome: TypeAlias = "float | ScoringError"
"""What became of one pair: its logit (the raw score, finite), or why there is none."""


ArmKey: TypeAlias = tuple[str, str]
"""Name of an experiment, and of one of its arms."""


class PairRef(NamedTuple):
    """Which part of which document a pair scores. A document that is not split has one passage, 0."""

    document: int
    passage: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class PairPrompt:
    """One pair's prompt: ``prefix`` and then ``tail``.

    Attributes:
        prefix: int32, shape (p,), p >= 0; pairs of a request that begin alike hold one and the same array.
        tail: int32, shape (t,), t >= 1.
        truncated: did the document or the query lose tokens?
    """

    prefix: IdArray
    tail: IdArray
    truncated: bool = False
    tokens: int = field(init=False)
    """Tokens that the model reads, template included."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "tokens", len(self.prefix) + len(self.tail))

    @property
    def ids(self) -> IdArray:
        """The whole prompt, int32."""
        return np.concatenate([self.prefix, self.tail])


LongDocumentMode: TypeAlias = Literal["truncate", "chunk", "error"]
"""What happens to a document that is too long: it is cut, scored passage by passage, or refused."""

ChunkAggregation: TypeAlias = Literal["max", "first", "mean", "min", "top_k_mean"]
"""How the scores of a document's passages become its own."""


@dataclass(frozen=True, slots=True)
class LongDocuments:
    """What a request or a served name says of long documents; ``None`` leaves it to the next wider rule."""

    mode: LongDocumentMode | None = None
    chunk_tokens: int | None = None
    """Tokens of a passage; a document of no more is not split."""
    overlap_tokens: int | None = None
    """Tokens of a passage that stood in the one before."""
    max_chunks: int | None = None
    """Passages of one document; the text behind them is left out."""
    aggregation: ChunkAggregation | None = None
    chunk_top_k: int | None = None
    """How many of the best passages ``top_k_mean`` averages."""


NO_WISH = LongDocuments()
"""Nothing is said."""


FusionMethod: TypeAlias = Literal["none", "zscore", "rrf"]
"""How a first-stage score is taken in: not at all, as a weighted sum of z-scores, or by reciprocal ranks."""


@dataclass(frozen=True, slots=True)
class Cascade:
    """A cheaper order of all documents first, and then the model's scores for the best of them.

    ``None`` leaves it to the served name.
    """

    model: str | None = None
    """The served name that orders all, or ``first_stage`` for the order of the first-stage scores."""
    depth: int | None = None
    """Documents that the model scores."""
    confidence: float | None = None
    """Go on, instead, until no document that is left belongs among the first ``top_n`` with this probability."""


DEFAULT_SPAN_THRESHOLD = 0.1
"""Cohere's."""


@dataclass(frozen=True, slots=True)
class RelevantSpans:
    """A wish for the sentences of each ranked document that answer the query."""

    threshold: float = DEFAULT_SPAN_THRESHOLD
    """The least score of a span."""
    most: int | None = None
    """Spans of one document; None for all."""


@dataclass(frozen=True, slots=True)
class RerankRequest:
    """One query and the documents to be ordered by it, as any dialect asked for it.

    ``None`` means that the client did not say, so that the model's own default applies.
    """

    query: str
    documents: tuple[str, ...]
    model: str | None = None
    instruction: str | None = None
    top_n: int | None = None
    truncate: bool | None = None
    truncation_side: Literal["left", "right"] = "right"
    max_tokens_per_document: int | None = None
    max_tokens_per_query: int | None = None
    priority: int = 0
    """0 is the highest, 999 the lowest (Cohere v2's meaning)."""
    long_documents: LongDocuments = NO_WISH
    relevant_spans: RelevantSpans | None = None
    first_stage_scores: tuple[float | None, ...] | None = None
    """What retrieval said of each document, on a scale of its own; None for one of which it said nothing."""
    fusion: FusionMethod | None = None
    fusion_weight: float | None = None
    """The model's share of the fused score, 0..1."""
    cascade: Cascade | None = None
    user: str | None = None
    """Who asks, as far as experiments care."""
    arm: ArmKey | None = None
    """The experiment and its arm that the request was put in, which say what answers it."""


class Stage(NamedTuple):
    """A part of a request's way, between two moments of ``time.monotonic()``."""

    name: str
    started: float
    ended: float


@dataclass(frozen=True, slots=True)
class CallContext:
    """What is known of a call beside its body."""

    request_id: str
    deadline: float
    """``time.monotonic()`` after which the answer is worth nothing."""
    tenant: str = ""
    """Name of the key, else the client's address; queue shares are kept per tenant."""
    use_cache: bool = True
    experiment_key: str = ""
    """What experiments assign the call by; empty where the caller does not say."""
    response_headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    """Takes the headers that the answer carries whatever becomes of the call: where the caller's rate stands."""
    stages: list[Stage] = field(default_factory=list)
    """Takes the parts of the call's way, for its trace."""


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds spent on one request, by stage."""

    tokenise: float = 0.0
    queue: float = 0.0
    engine: float = 0.0
    total: float = 0.0


@dataclass(frozen=True, slots=True)
class Passage:
    """A part of a document with its own score: offsets in code points, half open."""

    start: int
    end: int
    score: float
    logit: float


@dataclass(slots=True, unsafe_hash=True)
class DocumentScore:
    """One document's place in the answer. Not frozen, which would take three times as long to make.

    ``score`` is a probability in 0..1, ``logit`` the raw score, whose sigmoid it is, or whose calibrated probability;
    both are ``None`` exactly when ``error`` says why.
    """

    index: int
    score: float | None
    logit: float | None
    error: ScoringError | None = None
    best_passage: Passage | None = None
    """The passage with the highest score, where long documents are scored by passages."""
    relevant_spans: tuple[Passage, ...] | None = None
    """The sentences that answer the query, best first, where they were asked for."""
    model_score: float | None = None
    """The model's own score, where ``score`` is fused with the first stage's."""
    rescored: bool | None = None
    """Under a cascade: did the model score it? Where not, ``score`` only says its place below those it did."""
    team: str | None = None
    """The arm whose document it is, where the rankings of two are interleaved."""


@dataclass(frozen=True, slots=True)
class FusionReport:
    """How scores were fused with those of the first stage."""

    method: FusionMethod
    weight: float


@dataclass(frozen=True, slots=True)
class CascadeReport:
    """How deep a cascade went."""

    first: str
    """What ordered all documents."""
    rescored: int
    """Documents that the model scored."""
    confidence: float | None = None
    """The probability, as far as it can be told, that the first ``top_n`` are those of the model alone."""


@dataclass(frozen=True, slots=True)
class ExperimentReport:
    """The experiment that a request was part of."""

    name: str
    arm: str
    """The arm that answered, or both with ``+`` between them."""
    pinned: bool = False


@dataclass(frozen=True, slots=True)
class LongDocumentCounts:
    """What became of the long documents of a request."""

    mode: LongDocumentMode
    truncated: int
    """Documents that lost tokens."""
    split: int = 0
    """Documents that were split into passages."""
    chunks: int = 0
    """Passages of all documents, those that are whole counted as one."""

    @property
    def described(self) -> dict[str, str | int]:
        """As ``meta.long_documents`` of an answer says it."""
        found: dict[str, str | int] = {"mode": self.mode, "truncated_documents": self.truncated}
        if self.mode == "chunk":
            found |= {"split_documents": self.split, "chunks": self.chunks}
        return found


@dataclass(frozen=True, slots=True)
class RerankResult:
    """The answer to one request.

    ``scores`` is in input order, one entry a document. ``ranked`` holds the best ``top_n`` of those that
    have a score, best first, equal scores in input order.
    """

    id: str
    model: str
    scores: tuple[DocumentScore, ...]
    ranked: tuple[DocumentScore, ...]
    prompt_tokens: int
    """Tokens of all pairs as the model reads them, template included."""
    cached_documents: int = 0
    warnings: tuple[str, ...] = ()
    timings: Timings = field(default_factory=Timings)
    long_documents: LongDocumentCounts | None = None
    """None where no document was long and nothing was asked of long ones."""
    fusion: FusionReport | None = None
    cascade: CascadeReport | None = None
    calibration: str | None = None
    """How scores were calibrated; None where they are the model's own."""
    experiment: ExperimentReport | None = None
    """None where it was part of none."""

    @property
    def errors(self) -> tuple[DocumentScore, ...]:
        return tuple(score for score in self.scores if score.error is not None)
