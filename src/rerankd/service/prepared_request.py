"""A request on its way through the pipeline, and the small steps that it goes through by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from rerankd.cache.base import CachedScore
from rerankd.cache.key import keys_for
from rerankd.core.engine_thread import Scores
from rerankd.core.request import ScoreRequest
from rerankd.errors import ScoringError, ServiceError
from rerankd.prompt.fit import PromptLimits
from rerankd.service.fusion import FusionRule
from rerankd.service.long_documents import LongDocumentRule, SplitDocuments
from rerankd.service.models import LoadedModel, ServedModel
from rerankd.types import PairRef, RerankRequest

_FEW_DOCUMENTS = 500
"""Work for so many documents is done without a look at the event loop in between."""
_FEW_CHARACTERS = 200_000
"""Characters whose keys are made on the event loop; those of more are made in a thread."""


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
    tokenise_seconds: float = 0.0
    error: ServiceError | None = None
    """Why the request has no answer, if it alone has none."""
    score_request: ScoreRequest | None = None
    scores: Scores | None = None


def in_portions(prepared: Sequence[PreparedRequest]) -> list[list[PreparedRequest]]:
    """The requests of a call, some hundred documents at a time."""
    portions: list[list[PreparedRequest]] = []
    documents = _FEW_DOCUMENTS
    for one in prepared:
        if documents >= _FEW_DOCUMENTS:
            portions.append([])
            documents = 0
        portions[-1].append(one)
        documents += len(one.keys)
    return portions


async def let_others_run(portion: Sequence[PreparedRequest]) -> None:
    """A look at the event loop behind a portion that took a while."""
    if sum([len(one.keys) for one in portion]) >= _FEW_DOCUMENTS:
        await asyncio.sleep(0)


async def make_keys(one: PreparedRequest) -> None:
    """A key for each text, in a thread where there is much to hash."""
    if sum(map(len, one.texts)) > _FEW_CHARACTERS:
        one.keys = await asyncio.to_thread(keys_for, one.scope, one.texts)
    else:
        one.keys = keys_for(one.scope, one.texts)
        if len(one.keys) > _FEW_DOCUMENTS:
            await asyncio.sleep(0)


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


def by_model(prepared: Sequence[PreparedRequest]) -> dict[LoadedModel, list[PreparedRequest]]:
    models: dict[LoadedModel, list[PreparedRequest]] = {}
    for one in prepared:
        models.setdefault(one.model.loaded, []).append(one)
    return models


def characters(one: PreparedRequest) -> int:
    """What is to be tokenised of a request, each pair once."""
    texts = [len(one.texts[place]) for place in one.unknown.values()]
    return len(one.request.query) + len(one.instruction) + sum(texts)
