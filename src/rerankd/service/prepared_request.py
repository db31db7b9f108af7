"""A request on its way through the pipeline, and the small steps that it goes through by itself."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from rerankd.cache.base import CachedScore
from rerankd.core.engine_thread import Scores
from rerankd.core.request import ScoreRequest, computed_tokens
from rerankd.errors import ScoringError, ServiceError
from rerankd.prompt.build import PromptLimits
from rerankd.service.cascade import CascadeRule
from rerankd.service.fusion import FusionRule
from rerankd.service.long_documents import LongDocumentRule, SplitDocuments
from rerankd.service.models import LoadedModel, ServedModel
from rerankd.service.ranking import rerank_result
from rerankd.types import CallContext, PairPrompt, RerankRequest, RerankResult, Timings

_One = TypeVar("_One")

_FEW_DOCUMENTS = 250
"""Work for so many documents is done without a look at the event loop in between: about a millisecond."""
_REQUEST_DOCUMENTS = 8
"""What a request takes beside its documents, in documents."""

DOCUMENT_BYTES = 128
"""What a document costs beside its text, in bytes of text."""


@dataclass(slots=True, eq=False)
class PreparedRequest:
    """A request on its way: what is decided about it at the start, and then what is known of its pairs."""

    request: RerankRequest
    model: ServedModel
    limits: PromptLimits
    rule: LongDocumentRule
    fusion: FusionRule
    instruction: str
    scope: bytes
    """A digest over everything that the scores depend on, but the documents."""
    started: float
    texts: Sequence[str]
    """The text of each pair: a document, or a passage of one."""
    cascade: CascadeRule | None = None
    """For one that goes by a cascade, which makes requests of its own of it."""
    split: SplitDocuments | None = None
    """The passages, where long documents are split."""
    keys: list[bytes] = field(default_factory=list)
    """A digest of each pair; equal pairs have equal keys, and are scored once."""
    known: dict[bytes, CachedScore | ScoringError] = field(default_factory=dict)
    """What is known of the pairs, by key."""
    unknown: dict[bytes, int] = field(default_factory=dict)
    """The place of one pair of each key that the cache did not know."""
    unknown_texts: Sequence[str] = ()
    """The texts of those, which are to be tokenised."""
    cached: int = 0
    """Documents that the cache knew."""
    tokenise_seconds: float = 0.0
    score_request: ScoreRequest | None = None
    scores: Scores | None = None
    result: RerankResult | ServiceError | None = None
    """The answer, or why the request alone has none."""

    @property
    def size(self) -> int:
        """What work on all of its texts takes, in bytes of text."""
        return sum(map(len, self.texts)) + DOCUMENT_BYTES * len(self.texts)

    @property
    def characters(self) -> int:
        """What is to be tokenised, each pair once."""
        return len(self.request.query) + len(self.instruction) + sum(map(len, self.unknown_texts))

    def documents_of(self, pairs: Sequence[int]) -> Sequence[int]:
        """The documents that some pairs are, or are passages of."""
        if self.split is None:
            return pairs
        refs = self.split.refs
        return [refs[pair].document for pair in pairs]

    def take_cached(self, found: Mapping[bytes, CachedScore]) -> None:
        """What the cache knows of its pairs is known; the rest is to be scored."""
        missed = []
        for place, key in enumerate(self.keys):
            score = found.get(key)
            if score is None:
                self.unknown[key] = place
                missed.append(place)
            else:
                self.known[key] = score
        self.unknown_texts = [self.texts[place] for place in self.unknown.values()]
        self.cached = len(self.request.documents) - len(set(self.documents_of(missed)))

    def take_prompts(self, found: Sequence[PairPrompt | ScoringError], context: CallContext) -> None:
        """The prompts of what is unknown make its request to the core; what has none has its error."""
        keys, prompts = [], []
        for key, pair in zip(self.unknown, found, strict=True):
            if isinstance(pair, PairPrompt):
                keys.append(key)
                prompts.append(pair)
            else:
                self.known[key] = pair
        if prompts:
            priority = self.request.priority
            self.score_request = ScoreRequest(
                tuple(prompts), tuple(keys), context.deadline, context.tenant, priority, self.scope
            )

    def submit(self) -> Scores:
        """Give its prompts to the engine."""
        assert self.score_request is not None
        self.scores = self.model.loaded.engine.submit(self.score_request)
        return self.scores

    def take_scores(self) -> None:
        """What the engine said is known from now on."""
        if self.scores is None:
            return
        asked = self.scores.request
        for key, pair, outcome in zip(asked.keys or (), asked.pairs, self.scores.outcomes, strict=True):
            if isinstance(outcome, float):
                self.known[key] = CachedScore(outcome, pair.tokens, pair.truncated)
            elif outcome is not None:
                self.known[key] = outcome

    def ranked(self) -> RerankResult:
        """The answer, once its pairs have their scores."""
        self.take_scores()
        queued = ended = started = 0.0
        if self.scores is not None:
            queued, started, ended = self.scores.queued, self.scores.started, self.scores.ended
        return rerank_result(
            uuid.uuid4().hex,
            self.model.name,
            self.model.loaded.template,
            self.request,
            [self.known[key] for key in self.keys],
            self.cached,
            Timings(self.tokenise_seconds, started - queued, ended - started, time.monotonic() - self.started),
            self.rule,
            self.split,
            self.fusion,
            self.model.calibration,
        )


def portions(work: Sequence[_One], documents: Callable[[_One], Sequence[object]]) -> Iterable[Sequence[_One]]:
    """The requests of a call, some hundred documents at a time: between two of them the event loop has its turn.

    What is small enough comes as it is.

    Args:
        documents: of one of them.
    """
    if len(work) <= 1:
        return (work,) if work else ()
    found: list[list[_One]] = [[]]
    left = _FEW_DOCUMENTS
    for one in work:
        if left <= 0:
            found.append([])
            left = _FEW_DOCUMENTS
        found[-1].append(one)
        left -= _REQUEST_DOCUMENTS + len(documents(one))
    return found if len(found) > 1 else (work,)


def tokens_of(prepared: Sequence[PreparedRequest]) -> dict[ScoreRequest, int]:
    """What the prompts of some requests of one model take to compute, of each that has any."""
    shares_prefix = prepared[0].model.loaded.engine.info.shares_prefix
    return {
        one.score_request: computed_tokens(one.score_request.pairs, shares_prefix=shares_prefix)
        for one in prepared
        if one.score_request is not None
    }


def by_model(prepared: Sequence[PreparedRequest]) -> dict[LoadedModel, list[PreparedRequest]]:
    """The requests of each model."""
    models: dict[LoadedModel, list[PreparedRequest]] = {}
    for one in prepared:
        models.setdefault(one.model.loaded, []).append(one)
    return models
