"""The way of a request, on one page."""

from __future__ import annotations

import asyncio
import functools
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from rerankd.cache.base import CachedScore, ScoreCache
from rerankd.cache.key import keys_for, scope_of
from rerankd.errors import DeadlineExceeded, ServiceError
from rerankd.observe.metrics import Metrics
from rerankd.prompt.build import Prompt, PromptLimits
from rerankd.schedule.job import Job
from rerankd.schedule.scheduler import Scheduler
from rerankd.schedule.work import ScoredWork, Scores, Work
from rerankd.service.admission import SizeLimits, check_sizes
from rerankd.service.models import ServedModel, ServedModels
from rerankd.service.ranking import document_score, rank
from rerankd.settings import Settings
from rerankd.types import CallContext, Outcome, RerankRequest, RerankResult, Timings

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Fresh:
    """The pairs of a request that the cache does not know, ready for the queue."""

    prompt: Prompt
    work: Work
    seconds: float
    """What tokenising took, waiting for a thread included."""


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A request before its pairs are queued."""

    request: RerankRequest
    model: ServedModel
    started: float
    known: list[CachedScore | None]
    missing: list[int]
    fresh: _Fresh | None


class Reranker:
    """Scores requests with the served models: admission, cache, prompt, queue, engine, ranking."""

    def __init__(self, settings: Settings, models: ServedModels, cache: ScoreCache, metrics: Metrics) -> None:
        self.models = models
        self.cache = cache
        self._settings = settings
        self._metrics = metrics

    async def rerank(
        self, requests: Sequence[RerankRequest], context: CallContext
    ) -> list[RerankResult | ServiceError]:
        """One result a request, in order; they share batches with each other and with other calls.

        An error that concerns one request alone stands in its place; one that concerns the whole server
        (overload, deadline, a dead engine) is raised, and what the call had queued is dropped.
        """
        prepared = await _together([functools.partial(self._prepare, request, context) for request in requests])
        jobs = self._admit([one for one in prepared if isinstance(one, _Prepared)])
        try:
            return await _together([functools.partial(self._finish, one, jobs) for one in prepared])
        finally:
            for scheduler, job in jobs.values():
                scheduler.leave(job)

    async def _prepare(self, request: RerankRequest, context: CallContext) -> _Prepared:
        """Everything before the queue: sizes, cache, prompts."""
        started = time.monotonic()
        model = self.models.for_request(request)
        check_sizes(request, SizeLimits.from_settings(self._settings, model.max_documents))
        keys = self._keys(model, request, context)
        known = await self._look_up(keys, context)
        missing = [index for index, score in enumerate(known) if score is None]
        fresh = await self._tokenise(model, request, missing, keys, context) if missing else None
        return _Prepared(request, model, started, known, missing, fresh)

    def _admit(self, prepared: Sequence[_Prepared]) -> dict[int, tuple[Scheduler, Job]]:
        """Queue everything that the call has to score, or nothing; by the id of what was prepared."""
        waiting: dict[Scheduler, list[_Prepared]] = {}
        for one in prepared:
            if one.fresh is not None:
                waiting.setdefault(one.model.loaded.scheduler, []).append(one)
        jobs: dict[int, tuple[Scheduler, Job]] = {}
        try:
            for scheduler, ones in waiting.items():
                works = [one.fresh.work for one in ones if one.fresh is not None]
                for one, job in zip(ones, scheduler.admit(works), strict=True):
                    jobs[id(one)] = scheduler, job
        except ServiceError:
            for scheduler, job in jobs.values():
                scheduler.leave(job)
            raise
        return jobs

    async def _finish(
        self, prepared: _Prepared | ServiceError, jobs: Mapping[int, tuple[Scheduler, Job]]
    ) -> RerankResult:
        if isinstance(prepared, ServiceError):
            raise prepared
        if prepared.fresh is None:
            return self._result(prepared, None)
        scheduler, job = jobs[id(prepared)]
        scored = await scheduler.wait(job)
        prepared.fresh.work.keep(scored.logits)
        self._metrics.truncated_pairs.inc(sum(prepared.fresh.prompt.truncated))
        return self._result(prepared, scored)

    def _keys(self, model: ServedModel, request: RerankRequest, context: CallContext) -> list[bytes]:
        """One cache key a document, over everything that its score depends on."""
        info = model.loaded.scheduler.info
        limits = self._limits(model, request)
        scope = scope_of(
            model=model.loaded.source.model,
            revision=model.loaded.fingerprint,
            template=model.loaded.template.revision,
            dtype=info.dtype,
            engine=info.engine,
            instruction=self._instruction(model, request),
            query=request.query,
            truncation=repr(limits),
            tenant=context.tenant if self._settings.cache_per_tenant else "",
        )
        return keys_for(scope, request.documents)

    async def _look_up(self, keys: list[bytes], context: CallContext) -> list[CachedScore | None]:
        if not context.use_cache:
            return [None] * len(keys)
        known = await self.cache.get_many(keys)
        hits = sum(score is not None for score in known)
        self._metrics.cache_hits.inc(hits)
        self._metrics.cache_misses.inc(len(keys) - hits)
        return known

    async def _tokenise(
        self,
        model: ServedModel,
        request: RerankRequest,
        missing: list[int],
        keys: list[bytes],
        context: CallContext,
    ) -> _Fresh:
        """Prompts of the documents that the cache did not know."""
        started = time.monotonic()
        prompt = await model.loaded.prompts.build(
            request.query,
            [request.documents[index] for index in missing],
            self._instruction(model, request),
            self._limits(model, request),
            missing,
            tenant=context.tenant,
            deadline=context.deadline,
        )
        pair_keys = tuple(keys[index] for index in missing)
        work = Work(
            prefix=prompt.prefix,
            tails=prompt.tails,
            keys=pair_keys,
            deadline=context.deadline,
            tenant=context.tenant,
            priority=request.priority,
            keep=functools.partial(self._keep, prompt, pair_keys),
        )
        return _Fresh(prompt, work, time.monotonic() - started)

    def _keep(self, prompt: Prompt, keys: Sequence[bytes], logits: Scores) -> None:
        """Cache the scores of a prompt's pairs, those that came after their client had left too."""
        self.cache.put_many(
            {
                keys[index]: CachedScore(logit, prompt.pair_tokens[index], prompt.truncated[index])
                for index, logit in logits.items()
            }
        )

    def _result(self, prepared: _Prepared, scored: ScoredWork | None) -> RerankResult:
        request, model, known = prepared.request, prepared.model, prepared.known
        outcomes: list[Outcome] = [score.logit if score else 0.0 for score in known]
        tokens = sum(score.tokens for score in known if score)
        truncated = sum(score.truncated for score in known if score)
        timings = Timings()
        if prepared.fresh is not None and scored is not None:
            for index, outcome in zip(prepared.missing, scored.outcomes, strict=True):
                outcomes[index] = outcome
            tokens += sum(prepared.fresh.prompt.pair_tokens)
            truncated += sum(prepared.fresh.prompt.truncated)
            timings = Timings(prepared.fresh.seconds, scored.queue_seconds, scored.engine_seconds)
        template = model.loaded.template
        scores = tuple(
            document_score(index, outcome, template.scale, template.bias) for index, outcome in enumerate(outcomes)
        )
        self._metrics.input_tokens.observe(tokens)
        self._metrics.documents.observe(len(scores))
        return RerankResult(
            id=uuid.uuid4().hex,
            model=model.name,
            scores=scores,
            ranked=rank(scores, request.top_n),
            prompt_tokens=tokens,
            cached_documents=len(scores) - len(prepared.missing),
            warnings=_warnings(model, request, truncated),
            timings=replace(timings, total=time.monotonic() - prepared.started),
        )

    def _instruction(self, model: ServedModel, request: RerankRequest) -> str:
        return model.instruction if request.instruction is None else request.instruction

    def _limits(self, model: ServedModel, request: RerankRequest) -> PromptLimits:
        return PromptLimits(
            max_pair_tokens=model.max_pair_tokens,
            query_truncation_share=self._settings.query_truncation_share,
            max_tokens_per_document=request.max_tokens_per_document,
            max_tokens_per_query=request.max_tokens_per_query,
            truncate=request.truncate is not False,
            side=request.truncation_side,
        )


def _warnings(model: ServedModel, request: RerankRequest, truncated: int) -> tuple[str, ...]:
    warnings = []
    if truncated:
        warnings.append(f"{truncated} of {len(request.documents)} pairs were truncated to fit their token limits")
    if request.instruction and not model.loaded.template.has_instruction:
        warnings.append("the instruction was ignored: this model's prompt has no place for one")
    return tuple(warnings)


async def _together(asked: Sequence[Callable[[], Awaitable[T]]]) -> list[T | ServiceError]:
    """All at once, in order. An error that concerns one alone stands in its place; any other ends all."""
    if len(asked) == 1:
        return [await _or_error(asked[0])]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_or_error(one)) for one in asked]
    except* ServiceError as errors:
        raise _first(errors) from None
    return [task.result() for task in tasks]


async def _or_error(one: Callable[[], Awaitable[T]]) -> T | ServiceError:
    try:
        return await one()
    except ServiceError as error:
        if error.retryable or isinstance(error, DeadlineExceeded):
            raise
        return error


def _first(errors: ExceptionGroup[ServiceError]) -> ServiceError:
    error = errors.exceptions[0]
    return _first(error) if isinstance(error, ExceptionGroup) else error
