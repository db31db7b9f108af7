"""The service of an ingress: rates and deadlines here, the rest on an engine replica.

It is a :class:`~rerankd.http.served.Service`, as that of one process is, which is why the dialects, keys and limits
of a cluster are those of one process.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import time
from collections.abc import Awaitable, Sequence
from typing import Protocol, cast

from rerankd.cache.base import ScoreCache
from rerankd.cluster.messages import Call, ModelCard, Reply, Status
from rerankd.cluster.metrics import exposition, rows_of
from rerankd.cluster.routing import prefix_key
from rerankd.core.engine_thread import EngineState
from rerankd.errors import (
    DeadlineExceeded,
    EngineDead,
    InvalidRequest,
    NotFound,
    Overloaded,
    ServiceError,
)
from rerankd.observe.metrics import Metrics
from rerankd.service.admission import check_queries
from rerankd.service.experiments import Experiments, no_experiments
from rerankd.service.lifecycle import Lifecycle, State
from rerankd.service.models import LoadedModel, ServedModel, ServedModels, served_sources
from rerankd.service.offload import Offload
from rerankd.service.rates import RateLimiter
from rerankd.settings import Settings
from rerankd.types import CallContext, RerankRequest, RerankResult, Stage


class Replicas(Protocol):
    """The way to the engine replicas."""

    def rerank(self, call: Call) -> Awaitable[Reply]:
        """Have a call answered by the replica that it is for; cancelling drops it there.

        Raises:
            Overloaded: every replica has all the calls that it may have, and as many wait.
            ReplicaLost: the replica ended with the call.
        """
        ...

    async def cards(self) -> list[ModelCard]:
        """The served names, as any replica knows them."""
        ...

    async def flush(self) -> None:
        """Forget cached scores on one replica, and with it in the store that all share."""
        ...

    async def statuses(self) -> list[Status]:
        """Of every replica."""
        ...


class ReplicaLost(Exception):
    """The replica that had a call is gone."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Engine:
    info: object
    state: EngineState = "ready"
    """A call is always taken; which replicas hold the model is Ray's business."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Described:
    """What the routes ask of a loaded model that is elsewhere."""

    name: str
    source: object
    fingerprint: str
    template: object
    engine: _Engine


class ClusterService:
    """Everything behind the wire of an ingress.

    Args:
        settings: of the server.
        replicas: where calls are answered.
    """

    def __init__(self, settings: Settings, replicas: Replicas) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.lifecycle = Lifecycle()
        self.offload = Offload()
        self.models: ServedModels | None = None
        """The served names; None until a replica has told them."""
        self._replicas = replicas
        self._name = f"ingress-{os.getpid()}"
        self._rates: RateLimiter | None = None
        self._sources = served_sources(settings)
        self._default = next(iter(self._sources))

    @property
    def cache(self) -> ScoreCache:
        """See :meth:`RerankService.cache`; an ingress has none.

        Raises:
            NotFound: always.
        """
        raise NotFound("on a cluster each replica has its own cache: /metrics has what they count", param="cache")

    @property
    def experiments(self) -> Experiments:
        """See :meth:`RerankService.experiments`; there are none on a cluster."""
        raise no_experiments()

    async def start(self) -> None:
        """Open the rate limits and ask a replica what is served.

        Raises:
            ConfigurationError: the settings cannot work.
        """
        self._rates = await RateLimiter.open(self.settings)
        cards = await self._replicas.cards()
        self.models = ServedModels({card.name: _served(card) for card in cards}, strict=self.settings.strict_models)
        self.lifecycle.move_to(State.READY)

    async def rerank(
        self, requests: Sequence[RerankRequest], context: CallContext
    ) -> list[RerankResult | ServiceError]:
        """The requests of one call, answered by its deadline; see :meth:`RerankService.rerank`."""
        self.lifecycle.check_accepting()
        check_queries(len(requests), self.settings)
        left = context.deadline - time.monotonic()
        try:
            async with asyncio.timeout(left):
                if self._rates is not None:
                    documents = sum(len(request.documents) for request in requests)
                    (await self._rates.spend(context.tenant, documents)).tell(context.response_headers)
                return await self._answer(requests, context)
        except TimeoutError:
            message = "the deadline passed before the scores were there"
            raise DeadlineExceeded(message, setting="deadline_seconds") from None

    async def _answer(
        self, requests: Sequence[RerankRequest], context: CallContext
    ) -> list[RerankResult | ServiceError]:
        """A call for each loaded model that the requests name, all at the same time, and their results in order."""
        results: list[RerankResult | ServiceError | None] = [None] * len(requests)
        names = [self._name_of(request) for request in requests]
        groups: dict[str, list[int]] = {}
        for index, name in enumerate(names):
            if isinstance(name, ServiceError):
                results[index] = name
            else:
                groups.setdefault(name, []).append(index)
        asking = {
            name: asyncio.ensure_future(self._ask(name, [requests[index] for index in places], context))
            for name, places in groups.items()
        }
        try:
            await asyncio.gather(*asking.values())
        finally:
            for task in asking.values():
                task.cancel()
        for name, places in groups.items():
            for index, result in zip(places, asking[name].result(), strict=True):
                results[index] = result
        return cast("list[RerankResult | ServiceError]", results)

    async def _ask(
        self, name: str, requests: Sequence[RerankRequest], context: CallContext
    ) -> Sequence[RerankResult | ServiceError]:
        """One call; where the replica that it is for has no room, another is asked before the caller is refused."""
        first = requests[0]
        call = Call(
            tuple(requests),
            context.request_id,
            context.deadline - time.monotonic(),
            context.tenant,
            context.use_cache,
            name,
            prefix_key(name, first.instruction, first.query),
        )
        started = time.monotonic()
        reply = await self._send(call)
        if isinstance(reply.error, Overloaded):
            left = context.deadline - time.monotonic()
            call = dataclasses.replace(call, seconds_left=left, avoid=frozenset({reply.replica}))
            reply = await self._send(call)
        context.stages.append(Stage("replica", started, time.monotonic()))
        if reply.error is not None:
            raise reply.error
        return reply.results

    async def _send(self, call: Call) -> Reply:
        try:
            return await self._replicas.rerank(call)
        except ReplicaLost:
            # Not sent again: whatever ended that replica may be in this very call.
            message = "the replica that had the request is gone; others go on serving"
            raise EngineDead(message, retry_after=1) from None

    def _name_of(self, request: RerankRequest) -> str | ServiceError:
        """The name that stands for the loaded model: the first that it is served under."""
        asked = request.model if request.model in self._sources else self._default
        if request.model and asked != request.model and self.settings.strict_models:
            known = ", ".join(self._sources)
            message = f"no such model is served here; there is {known}"
            return NotFound(message, param="model", setting="strict_models")
        source = self._sources[asked][0]
        return next(name for name, (other, _) in self._sources.items() if other == source)

    async def reload(self, name: str | None = None) -> None:
        """Not here: replicas are replaced one by one by deploying again.

        Raises:
            InvalidRequest: always.
        """
        raise InvalidRequest("on a cluster models are loaded anew by deploying again: serve run, or serve deploy")

    async def exposition(self) -> bytes:
        """What ``/metrics`` answers: the replicas' metrics and this ingress's, each sample with whose it is.

        A scrape reaches one ingress of several, so what ingresses count comes from another one each time.
        """
        own = {self._name: rows_of([self.metrics.registry])}
        return exposition(own | {status.replica: list(status.metrics) for status in await self._replicas.statuses()})

    async def flush_cache(self) -> None:
        """Forget every cached score that the replicas share."""
        await self._replicas.flush()

    async def stop(self) -> None:
        """Give everything back."""
        if self._rates is not None:
            await self._rates.close()
        self.lifecycle.move_to(State.STOPPED)


def _served(card: ModelCard) -> ServedModel:
    described = _Described(card.name, card.source, card.fingerprint, card.template, _Engine(card.info))
    loaded = cast("LoadedModel", described)
    return ServedModel(
        card.name, loaded, card.instruction, card.max_pair_tokens, card.sizes, calibration=card.calibration
    )
