"""The way of a request, on one page."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TypeAlias

from rerankd.cache.base import CachedScore, ScoreCache
from rerankd.cache.key import scope_of
from rerankd.core.request import Output, ScoreRequest, computed_tokens
from rerankd.errors import ServiceError
from rerankd.observe.metrics import Metrics
from rerankd.prompt.fit import PromptLimits
from rerankd.service import cascade
from rerankd.service.admission import Admission, Ticket, check_sizes
from rerankd.service.cascade import CascadeRule
from rerankd.service.fusion import NO_FUSION
from rerankd.service.instructions import Instructions
from rerankd.service.long_documents import LongDocumentRule, SplitDocuments
from rerankd.service.models import LoadedModel, ServedModel, ServedModels
from rerankd.service.offload import Offload
from rerankd.service.prepared_request import (
    DOCUMENT_BYTES,
    PreparedRequest,
    by_model,
    characters,
    in_portions,
    make_keys,
    pair_count,
    ranked,
    take_scores,
    whole_documents,
)
from rerankd.service.relevant_spans import SPAN_RULE, with_spans
from rerankd.service.routing import choose
from rerankd.settings import Settings
from rerankd.types import CallContext, PairPrompt, RerankRequest, RerankResult, Stage, Timings

OnPassages: TypeAlias = Callable[[int, CallContext], Awaitable[None]]
"""Told how many passages a call's documents were split into beyond what it was let in with; may refuse them."""


class RequestPipeline:
    """Scores requests with the served models: admission, cache, prompts, engine, ranking."""

    def __init__(
        self,
        settings: Settings,
        models: ServedModels,
        cache: ScoreCache,
        metrics: Metrics,
        instructions: Instructions,
        on_passages: OnPassages,
        offload: Offload,
    ) -> None:
        self.models = models
        self.cache = cache
        self._on_passages = on_passages
        self._settings = settings
        self._instructions = instructions
        self._metrics = metrics
        self._offload = offload

    async def rerank(
        self, requests: Sequence[RerankRequest], context: CallContext
    ) -> list[RerankResult | ServiceError]:
        """One result a request, in order, those of a cascade among them; see :meth:`_rank`."""
        rules = [self._cascade_rule(request, context) for request in requests]
        if not any(rules):
            return await self._rank(requests, context)
        found: dict[int, RerankResult | ServiceError] = {}
        plain = [index for index, rule in enumerate(rules) if rule is None]

        async def rank(request: RerankRequest) -> RerankResult | ServiceError:
            return (await self._rank([request], context))[0]

        async def one(index: int, rule: CascadeRule | ServiceError) -> None:
            found[index] = rule if isinstance(rule, ServiceError) else await cascade.run(rule, requests[index], rank)

        async def others() -> None:
            found.update(zip(plain, await self._rank([requests[index] for index in plain], context), strict=True))

        work = [one(index, rule) for index, rule in enumerate(rules) if rule is not None]
        await gather_per_request([*work, *([others()] if plain else [])])
        return [found[index] for index in range(len(requests))]

    def _cascade_rule(self, request: RerankRequest, context: CallContext) -> CascadeRule | ServiceError | None:
        """The rule of a request that goes by a cascade; None for one that does not, or that is refused anyway."""
        try:
            model = choose(self.models, request, context)
        except ServiceError:
            return None
        if model.cascade is None and request.cascade is None:
            return None
        try:
            check_sizes(request, model.sizes)
            return cascade.rule_for(model.cascade, request)
        except ServiceError as error:
            return error

    async def _rank(
        self, requests: Sequence[RerankRequest], context: CallContext
    ) -> list[RerankResult | ServiceError]:
        """One result a request, in order; they share batches with each other and with other calls.

        An error that concerns one request alone stands in its place; one that concerns the whole server
        (overload, a dead engine) is raised, and what the call had queued is dropped.
        """
        prepared: list[PreparedRequest | ServiceError] = []
        async for few in in_portions(requests, lambda request: len(request.documents)):
            prepared += [await self._prepare(request, context) for request in few]
        going = [one for one in prepared if isinstance(one, PreparedRequest)]
        await self._run(going, context)
        results: dict[PreparedRequest, RerankResult | ServiceError] = {}
        async for portion in in_portions(going, pair_count):
            for one in portion:
                results[one] = one.error or await self._result(one, context.tenant)
        if any(one.request.relevant_spans for one in going):
            await self._add_spans(results, context)
        return [results[one] if isinstance(one, PreparedRequest) else one for one in prepared]

    async def _run(self, going: Sequence[PreparedRequest], context: CallContext, *, counted: bool = True) -> None:
        """Scores, or an error, for each of some requests; ``counted``: see :meth:`_split`."""
        if long := [one for one in going if one.rule.mode == "chunk"]:
            await self._split(long, context, counted)
            going = [one for one in going if one.error is None]
        async for portion in in_portions(going, pair_count):
            await self._look_up(portion, context)
        if unknown := [one for one in going if one.unknown]:
            await self._score(unknown, context)

    async def _prepare(self, request: RerankRequest, context: CallContext) -> PreparedRequest | ServiceError:
        """Which model, which limits, and a key for each pair."""
        try:
            model = choose(self.models, request, context)
            check_sizes(request, model.sizes)
        except ServiceError as error:
            return error
        started = time.monotonic()
        rule = model.long_documents.for_request(request)
        limits = self._limits(model, request, rule)
        try:
            fusion = model.fusion.for_request(request)
            instruction = self._instruction(model, request)
        except ServiceError as error:
            return error
        scope = self._scope(model, request, instruction, limits, context)
        prepared = PreparedRequest(request, model, limits, rule, fusion, instruction, scope, started)
        if rule.mode != "chunk":
            prepared.texts = request.documents
            prepared.refs = whole_documents(len(request.documents))
            await make_keys(prepared, self._offload, context.tenant)
        return prepared

    async def _split(self, prepared: Sequence[PreparedRequest], context: CallContext, counted: bool) -> None:
        """The passages of long documents, for all requests or for none.

        Args:
            counted: has the caller's rate taken each document for one already?
        """
        tickets: list[Ticket] = []
        try:
            for model, ones in by_model(prepared).items():
                model.engine.check_accepting()
                tickets.append(ticket := model.admission.enter(context.tenant, context.deadline))
                ticket.take_texts(len(ones), sum(sum(map(len, one.request.documents)) for one in ones))
            await gather_per_request([self._split_one(one, context) for one in prepared])
        finally:
            for ticket in tickets:
                ticket.close()
        documents = sum(len(one.request.documents) for one in prepared) if counted else 0
        await self._on_passages(sum(len(one.refs) for one in prepared) - documents, context)

    async def _split_one(self, one: PreparedRequest, context: CallContext) -> None:
        documents = one.request.documents
        try:
            splits = await one.model.loaded.prompts.split(
                one.request.query, documents, one.instruction, one.limits, one.rule.chunks, tenant=context.tenant
            )
        except ServiceError as error:
            if error.retryable:
                raise
            one.error = error.with_traceback(None)
            return
        one.split = SplitDocuments.of(documents, splits)
        one.texts, one.refs = one.split.texts, one.split.refs
        await make_keys(one, self._offload, context.tenant)

    async def _add_spans(
        self, results: dict[PreparedRequest, RerankResult | ServiceError], context: CallContext
    ) -> None:
        """The sentences that answer the query, for the ranked documents of the requests that want them."""
        inner = {
            self._for_spans(one, result): (one, result)
            for one, result in results.items()
            if one.request.relevant_spans is not None and isinstance(result, RerankResult) and result.ranked
        }
        await self._run(list(inner), context, counted=False)
        for asked, (one, result) in inner.items():
            if asked.error is None and asked.split is not None:
                work = functools.partial(_with_spans, result, one, asked, asked.split)
                results[one] = await self._offload.run(context.tenant, DOCUMENT_BYTES * pair_count(asked), work)
            else:
                results[one] = asked.error or result

    def _for_spans(self, one: PreparedRequest, result: RerankResult) -> PreparedRequest:
        """The same request for its ranked documents, sentence by sentence."""
        documents = tuple(one.request.documents[place.index] for place in result.ranked)
        request = replace(one.request, documents=documents, relevant_spans=None)
        limits = replace(one.limits, truncate=True)
        return PreparedRequest(
            request, one.model, limits, SPAN_RULE, NO_FUSION, one.instruction, one.scope, time.monotonic()
        )

    async def _look_up(self, prepared: Sequence[PreparedRequest], context: CallContext) -> None:
        """What the cache knows, asked for some requests together."""
        asked = [(one, key) for one in prepared for key in dict.fromkeys(one.keys)]
        if context.use_cache:
            started = time.monotonic()
            hits = 0
            for (one, key), score in zip(asked, await self.cache.get_many([key for _, key in asked]), strict=True):
                if score is not None:
                    one.known[key] = score
                    hits += 1
            self._metrics.cache_hits.inc(hits)
            self._metrics.cache_misses.inc(len(asked) - hits)
            context.stages.append(Stage("cache", started, time.monotonic()))
        for one in prepared:
            unknown = [place for place, key in enumerate(one.keys) if key not in one.known]
            one.cached = len(one.request.documents) - len({one.refs[place].document for place in unknown})
            one.unknown = {one.keys[place]: place for place in unknown}
            one.characters = characters(one)

    async def _score(self, prepared: Sequence[PreparedRequest], context: CallContext) -> None:
        """Tokenise and score what is not known, for all requests or for none; cancelling drops what still waits."""
        tickets: list[tuple[LoadedModel, Ticket, list[PreparedRequest]]] = []
        try:
            for model, ones in by_model(prepared).items():
                model.engine.check_accepting()
                ticket = model.admission.enter(context.tenant, context.deadline)
                tickets.append((model, ticket, ones))
                ticket.take_texts(len(ones), sum([one.characters for one in ones]))
            async for portion in in_portions(prepared, pair_count):
                await gather_per_request([self._tokenise(one, context, alone=len(prepared) == 1) for one in portion])
            for model, ticket, ones in tickets:
                if sizes := {one.score_request: one.tokens for one in ones if one.score_request is not None}:
                    ticket.take_tokens(sizes, model.engine.status)
            for model, _, ones in tickets:
                for one in ones:
                    if one.score_request is not None:
                        one.scores = model.engine.submit(one.score_request)
            for scores in [one.scores for one in prepared if one.scores is not None]:
                await scores.wait()
                context.stages.append(Stage("queue", scores.queued, scores.started))
                context.stages.append(Stage("engine", scores.started, scores.ended))
        finally:
            for scores in [one.scores for one in prepared if one.scores is not None]:
                scores.close()
            for _, ticket, _ in tickets:
                ticket.close()

    async def _tokenise(self, one: PreparedRequest, context: CallContext, *, alone: bool) -> None:
        """Prompts of the pairs that are not known; an error that concerns the request alone is its own."""
        started = time.monotonic()
        places = [one.refs[place].document for place in one.unknown.values()]
        texts = [one.texts[place] for place in one.unknown.values()]
        try:
            found = await one.model.loaded.prompts.build(
                one.request.query,
                texts,
                one.instruction,
                one.limits,
                places,
                tenant=context.tenant,
                may_be_here=alone,
            )
        except ServiceError as error:
            if error.retryable:
                raise
            one.error = error.with_traceback(None)
            return
        ended = time.monotonic()
        context.stages.append(Stage("tokenise", started, ended))
        one.tokenise_seconds = ended - started
        keys, prompts = [], []
        for key, pair in zip(one.unknown, found, strict=True):
            if isinstance(pair, PairPrompt):
                keys.append(key)
                prompts.append(pair)
            else:
                one.known[key] = pair
        if prompts:
            one.score_request = ScoreRequest(
                tuple(prompts), tuple(keys), context.deadline, context.tenant, one.request.priority, one.scope
            )
            one.tokens = computed_tokens(prompts, shares_prefix=one.model.loaded.engine.info.shares_prefix)

    async def _result(self, one: PreparedRequest, tenant: str) -> RerankResult:
        queue = engine = 0.0
        if one.scores is not None:
            if truncated := len([pair for pair in one.scores.request.pairs if pair.truncated]):
                self._metrics.truncated_pairs.inc(truncated)
            queue, engine = one.scores.started - one.scores.queued, one.scores.ended - one.scores.started
        timings = Timings(one.tokenise_seconds, queue, engine, time.monotonic() - one.started)
        result = await self._offload.run(tenant, DOCUMENT_BYTES * pair_count(one), lambda: ranked(one, timings))
        self._metrics.input_tokens.observe(result.prompt_tokens)
        self._metrics.documents.observe(len(result.scores))
        return result

    def _scope(
        self,
        model: ServedModel,
        request: RerankRequest,
        instruction: str,
        limits: PromptLimits,
        context: CallContext,
    ) -> bytes:
        """A digest over everything that the scores of a request depend on, but the documents."""
        info = model.loaded.engine.info
        return scope_of(
            model=model.loaded.source.model,
            revision=model.loaded.fingerprint,
            template=model.loaded.template.revision,
            dtype=info.dtype,
            engine=info.engine,
            instruction=instruction,
            query=request.query,
            truncation=_shown(limits),
            tenant=context.tenant if self._settings.cache_per_tenant else "",
        )

    def _instruction(self, model: ServedModel, request: RerankRequest) -> str:
        """An empty instruction is none: the name's default applies; a name stands for a sentence."""
        given = request.instruction
        return self._instructions.resolve(given if given and not given.isspace() else model.instruction)

    def _limits(self, model: ServedModel, request: RerankRequest, rule: LongDocumentRule) -> PromptLimits:
        return PromptLimits(
            max_pair_tokens=model.max_pair_tokens,
            query_truncation_share=self._settings.query_truncation_share,
            max_tokens_per_document=request.max_tokens_per_document,
            max_tokens_per_query=request.max_tokens_per_query,
            truncate=request.truncate is not False and rule.mode != "error",
            side=request.truncation_side,
        )


_shown = functools.lru_cache(256)(repr)
"""Of limits, which come back with request after request."""


def take_output(cache: ScoreCache, admission: Admission, output: Output) -> None:
    """What becomes of an output, in time or late: the one place that writes the cache."""
    request = output.request
    pairs, keys = request.pairs, request.keys
    if len(output.outcomes) < len(pairs):
        admission.served(output)
    if keys is not None:
        scores = {
            keys[index]: CachedScore(outcome, pairs[index].tokens, pairs[index].truncated)
            for index, outcome in output.outcomes.items()
            if isinstance(outcome, float)
        }
        cache.put_many(scores)


async def gather_per_request(work: Sequence[Awaitable[None]]) -> None:
    """All at once; the first error ends all."""
    if len(work) == 1:
        await work[0]
        return
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def _with_spans(
    result: RerankResult, one: PreparedRequest, asked: PreparedRequest, split: SplitDocuments
) -> RerankResult:
    take_scores(asked)
    scores = [asked.known[key] for key in asked.keys]
    return with_spans(result, one.request, split, scores, one.model.loaded.template)
