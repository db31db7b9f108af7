"""The way of a request, on one page."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import Any, TypeAlias

from rerankd.cache.base import CachedScore, ScoreCache
from rerankd.cache.key import keys_for
from rerankd.core.request import Output
from rerankd.errors import ServiceError
from rerankd.observe.metrics import Metrics
from rerankd.prompt.build import prompt_limits
from rerankd.service import cascade
from rerankd.service.admission import Admission, Ticket, check_sizes
from rerankd.service.fusion import NO_FUSION
from rerankd.service.instructions import Instructions
from rerankd.service.long_documents import SplitDocuments
from rerankd.service.models import LoadedModel, ServedModels
from rerankd.service.offload import Offload
from rerankd.service.prepared_request import DOCUMENT_BYTES, PreparedRequest, by_model, portions, tokens_of
from rerankd.service.relevant_spans import SPAN_RULE, with_spans
from rerankd.settings import Settings
from rerankd.types import NO_WISH, CallContext, RerankRequest, RerankResult, Stage

OnPassages: TypeAlias = Callable[[int, CallContext], Awaitable[None]]
"""Told how many passages a call's documents were split into beyond what it was let in with; may refuse them."""

_documents = attrgetter("documents")
_pairs = attrgetter("texts")


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
        self, requests: Sequence[RerankRequest], context: CallContext, *, cascades: bool = True
    ) -> list[RerankResult | ServiceError]:
        """One result a request, in order; they share batches with each other and with other calls.

        An error that concerns one request alone stands in its place; one that concerns the whole server
        (overload, a dead engine) is raised, and what the call had queued is dropped.

        Args:
            cascades: may requests go by a cascade?
        """
        prepared: list[PreparedRequest | ServiceError] = []
        plain: list[PreparedRequest] = []
        in_stages: list[PreparedRequest] = []
        for portion in portions(requests, _documents):
            for request in portion:
                try:
                    one = self._prepare(request, context, cascades)
                except ServiceError as error:
                    prepared.append(error.with_traceback(None))
                else:
                    prepared.append(one)
                    (plain if one.cascade is None else in_stages).append(one)
            if portion is not requests:
                await asyncio.sleep(0)
        if in_stages:
            work = [self._cascade(one, context) for one in in_stages]
            await gather_per_request([self._rank(plain, context), *work])
        else:
            await self._rank(plain, context)
        return [one.result if isinstance(one, PreparedRequest) else one for one in prepared]  # type: ignore[misc]

    def _prepare(self, request: RerankRequest, context: CallContext, cascades: bool) -> PreparedRequest:
        """Which model, and by what rules: what a request does not ask for is decided here and costs nothing later."""
        started = time.monotonic()
        model = self.models.choose(request, context)
        check_sizes(request, model.sizes)
        rule, fusion, stages = model.long_documents, NO_FUSION, None
        if request.long_documents is not NO_WISH or request.truncate is not None:
            rule = rule.for_request(request)
        if cascades and (request.cascade is not None or model.cascade is not None):
            stages = cascade.rule_for(model.cascade, request)
        elif request.first_stage_scores is not None or request.fusion is not None:
            fusion = model.fusion.for_request(request)
        # An empty instruction is none: the name's default applies. One that begins with @ is a name.
        given = request.instruction
        instruction = given if given and not given.isspace() else model.instruction
        if "@" in instruction:
            instruction = self._instructions.resolve(instruction)
        limits = prompt_limits(
            model.max_pair_tokens,
            self._settings.query_truncation_share,
            request.max_tokens_per_document,
            request.max_tokens_per_query,
            request.truncate is not False and rule.mode != "error",
            request.truncation_side,
        )
        salt = context.tenant if self._settings.cache_per_tenant else ""
        scope = model.loaded.scope.of(instruction, request.query, limits.shown, salt)
        texts = request.documents if rule.mode != "chunk" else ()
        return PreparedRequest(request, model, limits, rule, fusion, instruction, scope, started, texts, stages)

    async def _cascade(self, one: PreparedRequest, context: CallContext) -> None:
        """The answer of a request in stages, each of which is a request of its own."""

        async def rank(request: RerankRequest) -> RerankResult | ServiceError:
            return (await self.rerank([request], context, cascades=False))[0]

        assert one.cascade is not None
        one.result = await cascade.run(one.cascade, one.request, rank)

    async def _rank(self, prepared: Sequence[PreparedRequest], context: CallContext) -> None:
        """A result for each request."""
        await self._find_scores(prepared, context)
        for portion in portions(prepared, _pairs):
            for one in portion:
                if one.result is None:
                    one.result = await self._result(one, context.tenant)
            if portion is not prepared:
                await asyncio.sleep(0)
        if asking := [one for one in prepared if one.request.relevant_spans is not None]:
            await self._add_spans(asking, context)

    async def _find_scores(
        self, prepared: Sequence[PreparedRequest], context: CallContext, *, counted: bool = True
    ) -> None:
        """Scores, or an error, for each request; ``counted``: see :meth:`_split`."""
        if long := [one for one in prepared if one.rule.mode == "chunk"]:
            await self._split(long, context, counted)
            prepared = [one for one in prepared if one.result is None]
        for portion in portions(prepared, _pairs):
            await self._look_up(portion, context)
            if portion is not prepared:
                await asyncio.sleep(0)
        if unknown := [one for one in prepared if one.unknown]:
            await self._score(unknown, context)

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
        await self._on_passages(sum(len(one.texts) for one in prepared) - documents, context)

    async def _split_one(self, one: PreparedRequest, context: CallContext) -> None:
        documents = one.request.documents
        try:
            splits = await one.model.loaded.prompts.split(
                one.request.query, documents, one.instruction, one.limits, one.rule.chunks, tenant=context.tenant
            )
        except ServiceError as error:
            if error.retryable:
                raise
            one.result = error.with_traceback(None)
            return
        one.split = SplitDocuments.of(documents, splits)
        one.texts = one.split.texts

    async def _add_spans(self, asking: Sequence[PreparedRequest], context: CallContext) -> None:
        """The sentences that answer the query, for the ranked documents of the requests that want them."""
        inner = {
            self._for_spans(one, one.result): one
            for one in asking
            if isinstance(one.result, RerankResult) and one.result.ranked
        }
        await self._find_scores(list(inner), context, counted=False)
        for sentences, one in inner.items():
            if sentences.result is not None:
                one.result = sentences.result
            else:
                work = functools.partial(_with_spans, one, sentences)
                one.result = await self._offload.run(context.tenant, DOCUMENT_BYTES * len(sentences.keys), work)

    def _for_spans(self, one: PreparedRequest, result: RerankResult) -> PreparedRequest:
        """The same request for its ranked documents, sentence by sentence."""
        documents = tuple(one.request.documents[place.index] for place in result.ranked)
        request = replace(one.request, documents=documents, relevant_spans=None)
        limits = replace(one.limits, truncate=True)
        return PreparedRequest(
            request, one.model, limits, SPAN_RULE, NO_FUSION, one.instruction, one.scope, time.monotonic(), ()
        )

    async def _look_up(self, prepared: Sequence[PreparedRequest], context: CallContext) -> None:
        """What the cache knows, asked for some requests together."""
        asked: dict[bytes, None] = {}
        for one in prepared:
            work = functools.partial(keys_for, one.scope, one.texts)
            one.keys = await self._offload.run(context.tenant, one.size, work)
            asked.update(dict.fromkeys(one.keys))
        found: dict[bytes, CachedScore] = {}
        if context.use_cache:
            started = time.monotonic()
            scores = await self.cache.get_many(list(asked))
            found = {key: score for key, score in zip(asked, scores, strict=True) if score is not None}
            self._metrics.cache_hits.inc(len(found))
            self._metrics.cache_misses.inc(len(asked) - len(found))
            context.stages.append(Stage("cache", started, time.monotonic()))
        for one in prepared:
            one.take_cached(found)

    async def _score(self, prepared: Sequence[PreparedRequest], context: CallContext) -> None:
        """Tokenise and score what is not known, for all requests or for none; cancelling drops what still waits."""
        tickets: list[tuple[LoadedModel, Ticket, list[PreparedRequest]]] = []
        try:
            for model, ones in by_model(prepared).items():
                model.engine.check_accepting()
                ticket = model.admission.enter(context.tenant, context.deadline)
                tickets.append((model, ticket, ones))
                ticket.take_texts(len(ones), sum([one.characters for one in ones]))
            for portion in portions(prepared, _pairs):
                await gather_per_request([self._tokenise(one, context, alone=len(prepared) == 1) for one in portion])
                if portion is not prepared:
                    await asyncio.sleep(0)
            for model, ticket, ones in tickets:
                if sizes := tokens_of(ones):
                    ticket.take_tokens(sizes, model.engine.status)
            for scores in [one.submit() for one in prepared if one.score_request is not None]:
                await scores.done
                context.stages.append(Stage("queue", scores.queued, scores.started))
                context.stages.append(Stage("engine", scores.started, scores.ended))
        finally:
            for one in prepared:
                if one.scores is not None:
                    one.scores.close()
            for _, ticket, _ in tickets:
                ticket.close()

    async def _tokenise(self, one: PreparedRequest, context: CallContext, *, alone: bool) -> None:
        """Prompts of the pairs that are not known; an error that concerns the request alone is its own."""
        started = time.monotonic()
        try:
            found = await one.model.loaded.prompts.build(
                one.request.query,
                one.unknown_texts,
                one.instruction,
                one.limits,
                one.documents_of(list(one.unknown.values())),
                tenant=context.tenant,
                may_be_here=alone,
            )
        except ServiceError as error:
            if error.retryable:
                raise
            one.result = error.with_traceback(None)
            return
        ended = time.monotonic()
        context.stages.append(Stage("tokenise", started, ended))
        one.tokenise_seconds = ended - started
        one.take_prompts(found, context)

    async def _result(self, one: PreparedRequest, tenant: str) -> RerankResult:
        if one.score_request and (truncated := sum([pair.truncated for pair in one.score_request.pairs])):
            self._metrics.truncated_pairs.inc(truncated)
        result = await self._offload.run(tenant, DOCUMENT_BYTES * len(one.keys), one.ranked)
        self._metrics.input_tokens.observe(result.prompt_tokens)
        self._metrics.documents.observe(len(result.scores))
        return result


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


async def gather_per_request(work: Sequence[Coroutine[Any, Any, None]]) -> None:
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


def _with_spans(one: PreparedRequest, sentences: PreparedRequest) -> RerankResult:
    """The result with the spans that were found."""
    sentences.take_scores()
    scores = [sentences.known[key] for key in sentences.keys]
    assert isinstance(one.result, RerankResult)
    assert sentences.split is not None
    return with_spans(one.result, one.request, sentences.split, scores, one.model.loaded.template)
