"""From settings to a service that answers: start, reload, flush, stop."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from rerankd.cache.base import ScoreCache
from rerankd.cache.open import open_cache
from rerankd.errors import Draining, InvalidRequest, NotReady, ServiceError
from rerankd.observe.metrics import Metrics
from rerankd.service.lifecycle import Lifecycle, State
from rerankd.service.models import ServedModels, load_models
from rerankd.service.rates import RateLimiter
from rerankd.service.rerank import Reranker
from rerankd.settings import Settings
from rerankd.types import CallContext, RerankRequest, RerankResult


class RerankService:
    """Everything behind the wire: the served models, the cache, and the state of the server.

    ``start`` may take long (weights); until it is done every request is answered with NotReady.
    """

    def __init__(self, settings: Settings, metrics: Metrics | None = None) -> None:
        self.settings = settings
        self.metrics = metrics or Metrics()
        self.lifecycle = Lifecycle()
        self.rates: RateLimiter | None = None
        """Who may ask how often; None when every caller may ask as often as it wants."""
        self._cache: ScoreCache | None = None
        self._reranker: Reranker | None = None
        self._reloading = asyncio.Lock()

    @property
    def models(self) -> ServedModels | None:
        """The served names; None while the first models load."""
        return self._reranker.models if self._reranker else None

    async def start(self) -> None:
        """Open the cache and the rate limits, load and warm the models, become ready.

        Raises:
            ConfigurationError: the settings cannot work; the message says which to change.
        """
        self._cache = await open_cache(self.settings, self.metrics, self._on_cache_change)
        self.rates = await RateLimiter.open(self.settings)
        self._reranker = self._rerank_with(await self._load(), self._cache)
        self.lifecycle.move_to(State.READY)

    async def rerank(
        self, requests: Sequence[RerankRequest], context: CallContext
    ) -> list[RerankResult | ServiceError]:
        """See :meth:`Reranker.rerank`."""
        self.lifecycle.check_accepting()
        reranker = self._running()
        try:
            return await reranker.rerank(requests, context)
        except Draining:
            if reranker is self._reranker:
                raise
            # A reload swapped the models while this request was on its way to the old ones.
            return await self._running().rerank(requests, context)

    async def reload(self) -> None:
        """Load every model anew beside the old ones and swap; a failed load leaves the old ones serving.

        Raises:
            ConfigurationError: the new models do not load.
            InvalidRequest: a reload is under way already.
        """
        if self._reloading.locked():
            raise InvalidRequest("a reload is under way already")
        async with self._reloading:
            old = self._running()
            self._reranker = self._rerank_with(await self._load(), old.cache)
            await _close(old.models, drain=True)

    async def flush_cache(self) -> None:
        """Forget every cached score."""
        await self._running().cache.flush()

    async def stop(self) -> None:
        """Give everything back; what still waits is answered with an error."""
        if self._reranker is not None:
            await _close(self._reranker.models)
        if self._cache is not None:
            await self._cache.close()
        if self.rates is not None:
            await self.rates.close()
        self.lifecycle.move_to(State.STOPPED)

    def _running(self) -> Reranker:
        if self._reranker is None:
            raise NotReady("the model is still loading", retry_after=2)
        return self._reranker

    async def _load(self) -> ServedModels:
        models = await load_models(self.settings, self.metrics, self._on_engine_death)
        self.metrics.engine_kernels.clear()
        for loaded in models.loaded:
            self.metrics.engine_kernels.labels(loaded.source.model, loaded.scheduler.info.kernels).set(1)
        return models

    def _rerank_with(self, models: ServedModels, cache: ScoreCache) -> Reranker:
        return Reranker(self.settings, models, cache, self.metrics)

    def _on_cache_change(self, is_out_of_reach: bool) -> None:
        if is_out_of_reach and self.lifecycle.state is State.READY:
            self.lifecycle.move_to(State.DEGRADED, "the score cache is out of reach")
        elif not is_out_of_reach and self.lifecycle.state is State.DEGRADED:
            self.lifecycle.move_to(State.READY)

    def _on_engine_death(self, reason: str) -> None:
        self.lifecycle.move_to(State.DEAD, reason)


async def _close(models: ServedModels, *, drain: bool = False) -> None:
    await asyncio.gather(*(model.close(drain=drain) for model in models.loaded))
