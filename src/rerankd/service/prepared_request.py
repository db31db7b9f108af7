"""A request on its way through the pipeline, and the small steps that it goes through by itself."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from rerankd.cache.base import CachedScore
from rerankd.cache.key import keys_for
from rerankd.core.engine_thread import Scores
from rerankd.core.request import ScoreRequest
from rerankd.errors import ScoringError, ServiceError
from rerankd.prompt.fit import PromptLimits
from rerankd.service.fusion import FusionRule
from rerankd.service.long_documents import LongDocumentRule, SplitDocuments
from rerankd.service.models import LoadedModel, ServedModel
from rerankd.service.offload import Offload
from rerankd.service.ranking import rerank_result
from rerankd.types import PairRef, RerankRequest, RerankResult, Timings

_One = TypeVar("_One")

_FEW_DOCUMENTS = 250
"""Work for so many documents is done without a look at the event loop in between: about a millisecond."""

DOCUMENT_BYTES = 128
"""What a document costs beside its text, in bytes of text."""


@dataclass(slots=True, eq=False)
class PreparedRequest:
    """A request on its way, and what is known of its pairs."""

    request: RerankRequest
    model: ServedModel
    limits: PromptLimits
    rule: LongDocumentRule
    fusion: FusionRule
    instruction: str
    scope: bytes
    """A digest over everything that the scores depend on, but the documents."""
    started: float
    texts: Sequence[str] = ()
    """The text of each pair: a document, or a passage of one."""
    refs: Sequence[PairRef] = ()
    """Which part of which document each text is."""
    keys: list[bytes] = field(default_factory=list)
    """A digest of each pair; equal pairs have equal keys, and are scored once."""
    split: SplitDocuments | None = None
    """The passages, where long documents are split."""
    known: dict[bytes, CachedScore | ScoringError] = field(default_factory=dict)
    """What is known of the pairs, by key."""
    unknown: dict[bytes, int] = field(default_factory=dict)
    """The place of one pair of each key that the cache did not know."""
    cached: int = 0
    """Documents that the cache knew."""
    characters: int = 0
    """What is to be tokenised, each pair once."""
    tokens: int = 0
    """What is to be computed."""
    tokenise_seconds: float = 0.0
    error: ServiceError | None = None
    """Why the request has no answer, if it alone has none."""
    score_request: ScoreRequest | None = None
    scores: Scores | None = None


async def in_portions(requests: Sequence[_One], size: Callable[[_One], int]) -> AsyncIterator[list[_One]]:
    """The requests of a call, some hundred documents at a time, and a look at the event loop in between."""
    portion: list[_One] = []
    documents = 0
    for one in requests:
        portion.append(one)
        documents += size(one)
        if documents >= _FEW_DOCUMENTS:
            yield portion
            await asyncio.sleep(0)
            portion, documents = [], 0
    if portion:
        yield portion


def pair_count(one: PreparedRequest) -> int:
    """How many texts are scored for a request: the size that its portions go by."""
    return len(one.keys)


_WHOLE: list[PairRef] = []
"""As many as the largest request so far had documents; every request takes its own from the front."""


def whole_documents(documents: int) -> tuple[PairRef, ...]:
    """One pair a document; shared, since a call of many thousand would make as many objects for the collector."""
    _WHOLE.extend(map(PairRef, range(len(_WHOLE), documents)))
    return tuple(_WHOLE[:documents])


async def make_keys(one: PreparedRequest, offload: Offload, tenant: str) -> None:
    """A key for each text."""
    size = sum(map(len, one.texts)) + DOCUMENT_BYTES * len(one.texts)
    one.keys = await offload.run(tenant, size, lambda: keys_for(one.scope, one.texts))


def take_scores(one: PreparedRequest) -> None:
    """What the engine said is known from now on."""
    scores = one.scores
    if scores is None:
        return
    for key, pair, outcome in zip(scores.request.keys or (), scores.request.pairs, scores.outcomes, strict=True):
        if isinstance(outcome, float):
            one.known[key] = CachedScore(outcome, pair.tokens, pair.truncated)
        elif outcome is not None:
            one.known[key] = outcome


def ranked(one: PreparedRequest, timings: Timings) -> RerankResult:
    """The answer to a request whose pairs have their scores."""
    take_scores(one)
    return rerank_result(
        uuid.uuid4().hex,
        one.model.name,
        one.model.loaded.template,
        one.request,
        [one.known[key] for key in one.keys],
        one.cached,
        timings,
        one.rule,
        one.split,
        one.fusion,
        one.model.calibration,
    )


def by_model(prepared: Sequence[PreparedRequest]) -> dict[LoadedModel, list[PreparedRequest]]:
    models: dict[LoadedModel, list[PreparedRequest]] = {}
    for one in prepared:
        models.setdefault(one.model.loaded, []).append(one)
    return models


def characters(one: PreparedRequest) -> int:
    """Characters that are to be tokenised of a request, each pair once."""
    texts = [len(one.texts[place]) for place in one.unknown.values()]
    return len(one.request.query) + len(one.instruction) + sum(texts)
