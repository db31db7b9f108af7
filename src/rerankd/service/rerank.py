"""The way of a request, on one page."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from rerankd.cache.base import CachedScore, ScoreCache
from rerankd.cache.key import keys_for, scope_of
from rerankd.errors import DeadlineExceeded, ServiceError
from rerankd.observe.metrics import Metrics
from rerankd.prompt.build import Prompt, PromptLimits
from rerankd.schedule.work import Scores, Work
from rerankd.service.admission import SizeLimits, check_sizes
from rerankd.service.models import ServedModel, ServedModels
from rerankd.service.ranking import document_score, rank
from rerankd.settings import Settings
from rerankd.types import CallContext, Outcome, RerankRequest, RerankResult, Timings


@dataclass(frozen=True, slots=True)
class _Fresh:
    """What the engine said of the pairs that the cache did not know."""

    prompt: Prompt
    outcomes: tuple[Outcome, ...]
    timings: Timings


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
        if len(requests) == 1:
            return [await self._answer(requests[0], context)]
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._answer_or_error(request, context)) for request in requests]
        except* ServiceError as errors:
            raise _first(errors) from None
        return [task.result() for task in tasks]

    async def _answer_or_error(self, request: RerankRequest, context: CallContext) -> RerankResult | ServiceError:
        try:
            return await self._answer(request, context)
        except ServiceError as error:
            if error.retryable or isinstance(error, DeadlineExceeded):
                raise
            return error

    async def _answer(self, request: RerankRequest, context: CallContext) -> RerankResult:
        started = time.monotonic()
        model = self.models.for_request(request)
        check_sizes(request, SizeLimits.from_settings(self._settings, model.max_documents))
        keys = self._keys(model, request, context)
        known = await self._look_up(keys, context)
        missing = [index for index, score in enumerate(known) if score is None]
        fresh = await self._score(model, request, missing, keys, context) if missing else None
        return self._result(model, request, known, missing, fresh, started)

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

    async def _score(
        self,
        model: ServedModel,
        request: RerankRequest,
        missing: list[int],
        keys: list[bytes],
        context: CallContext,
    ) -> _Fresh:
        """Prompt, queue and engine for the documents that the cache did not know."""
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
        tokenised = time.monotonic()
        pair_keys = tuple(keys[index] for index in missing)

        def keep(logits: Scores) -> None:
            self._keep(prompt, pair_keys, logits)

        work = Work(
            prefix=prompt.prefix,
            tails=prompt.tails,
            keys=pair_keys,
            deadline=context.deadline,
            tenant=context.tenant,
            priority=request.priority,
            keep=keep,
        )
        scored = await model.loaded.scheduler.score(work)
        keep({index: outcome for index, outcome in enumerate(scored.outcomes) if isinstance(outcome, float)})
        self._metrics.truncated_pairs.inc(sum(prompt.truncated))
        timings = Timings(tokenise=tokenised - started, queue=scored.queue_seconds, engine=scored.engine_seconds)
        return _Fresh(prompt=prompt, outcomes=scored.outcomes, timings=timings)

    def _keep(self, prompt: Prompt, keys: Sequence[bytes], logits: Scores) -> None:
        """Cache the scores of a prompt's pairs, those that came after their client had left too."""
        self.cache.put_many(
            {
                keys[index]: CachedScore(logit, prompt.pair_tokens[index], prompt.truncated[index])
                for index, logit in logits.items()
            }
        )

    def _result(
        self,
        model: ServedModel,
        request: RerankRequest,
        known: list[CachedScore | None],
        missing: list[int],
        fresh: _Fresh | None,
        started: float,
    ) -> RerankResult:
        outcomes: list[Outcome] = [score.logit if score else 0.0 for score in known]
        tokens = sum(score.tokens for score in known if score)
        truncated = sum(score.truncated for score in known if score)
        timings = Timings()
        if fresh is not None:
            for index, outcome in zip(missing, fresh.outcomes, strict=True):
                outcomes[index] = outcome
            tokens += sum(fresh.prompt.pair_tokens)
            truncated += sum(fresh.prompt.truncated)
            timings = fresh.timings
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
            cached_documents=len(scores) - len(missing),
            warnings=_warnings(model, request, truncated),
            timings=Timings(
                tokenise=timings.tokenise,
                queue=timings.queue,
                engine=timings.engine,
                total=time.monotonic() - started,
            ),
        )

    def _instruction(self, model: ServedModel, request: RerankRequest) -> str:
        return model.instruction if request.instruction is None else request.instruction

    def _limits(self, model: ServedModel, request: RerankRequest) -> PromptLimits:
        return PromptLimits(
            max_pair_tokens=model.max_pair_tokens,
            query_share=self._settings.query_share,
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


def _first(errors: ExceptionGroup[ServiceError]) -> ServiceError:
    error = errors.exceptions[0]
    return _first(error) if isinstance(error, ExceptionGroup) else error
