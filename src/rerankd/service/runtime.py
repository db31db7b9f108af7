"""From settings to a service that answers: start, reload, flush, stop."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Sequence

from prometheus_client import generate_latest

from rerankd.cache.base import ScoreCache
from rerankd.cache.open import open_cache
from rerankd.checkpoint import Checkpoint
from rerankd.errors import (
    ConfigurationError,
    DeadlineExceeded,
    Draining,
    InvalidRequest,
    NotFound,
    ServiceError,
    model_is_loading,
)
from rerankd.observe.metrics import Metrics
from rerankd.service.admission import check_queries
from rerankd.service.cascade import FIRST_STAGE
from rerankd.service.experiments import Experiments, no_experiments
from rerankd.service.instructions import Instructions
from rerankd.service.lifecycle import Lifecycle, State
from rerankd.service.models import (
    LoadedModel,
    ModelSource,
    ServedModels,
    load_models,
    open_present_checkpoints,
    served_sources,
)
from rerankd.service.offload import Offload
from rerankd.service.pipeline import RequestPipeline, take_output
from rerankd.service.rates import RateLimiter
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
        self.offload = Offload()
        self._cache: ScoreCache | None = None
        self._rates: RateLimiter | None = None
        """Who may ask how often; None when every caller may ask as often as it wants."""
        self._pipeline: RequestPipeline | None = None
        self._experiments: Experiments | None = None
        """None where the settings have none."""
        self._opened: dict[ModelSource, Checkpoint] = {}
        self._reloading = asyncio.Lock()
        self._instructions = Instructions.of(settings.instructions_folder)

    @property
    def cache(self) -> ScoreCache:
        """The score cache, the same for all models that are ever served."""
        return self._running().cache

    @property
    def models(self) -> ServedModels | None:
        """The served names; None while the first models load."""
        return self._pipeline.models if self._pipeline else None

    def open_checkpoints(self) -> None:
        """Read the tokenizers of the models on this machine, for ``start``: call it before anybody can ask.

        The tokenizers library parses a file with the interpreter's lock held, and nothing lets go of it: .1 s for
        the embedded model, half a second for Qwen3's vocabulary, in which no thread runs and no ``/livez`` is
        answered. An operator takes a refused connection for a process that is not there yet, and a late answer for
        one that hangs. So a server reads them before it listens. What has to be fetched from a hub first may take
        minutes: it is read after that, and probes are answered until then.

        Raises:
            ConfigurationError: an arm's name is not served.
        """
        self._opened = open_present_checkpoints(self.settings)

    async def start(self) -> None:
        """Open the cache and the rate limits, load and warm the models, become ready.

        Raises:
            ConfigurationError: the settings cannot work; the message says which to change.
        """
        self._cache = await open_cache(self.settings, self.metrics, self._on_cache_change)
        self._rates = await RateLimiter.open(self.settings)
        if self.settings.experiments:
            self._experiments = Experiments(self.settings, self.metrics, list(served_sources(self.settings)))
        self._pipeline = self._pipeline_of(await self._load(self._cache), self._cache)
        self._opened = {}
        self.lifecycle.move_to(State.READY)

    async def rerank(
        self, requests: Sequence[RerankRequest], context: CallContext
    ) -> list[RerankResult | ServiceError]:
        """The requests of one call, let in and answered by its deadline; see :meth:`RequestPipeline.rerank`.

        Raises:
            TooLarge, RateLimited, Overloaded: the call is not let in.
            DeadlineExceeded: the deadline passed before the scores were there.
        """
        self.lifecycle.check_accepting()
        check_queries(len(requests), self.settings)
        try:
            async with asyncio.timeout(context.deadline - time.monotonic()):
                if self._rates is not None:
                    documents = sum(len(request.documents) for request in requests)
                    (await self._rates.spend(context.tenant, documents)).tell(context.response_headers)
                while True:
                    pipeline = self._running()
                    try:
                        if self._experiments is None:
                            return await pipeline.rerank(requests, context)
                        return await self._experiments.rerank(pipeline.rerank, pipeline.models, requests, context)
                    except Draining:
                        # Did a reload swap the models while this request was on its way to the old ones?
                        if pipeline is self._pipeline:
                            raise
        except TimeoutError:
            message = "the deadline passed before the scores were there"
            raise DeadlineExceeded(message, setting="deadline_seconds") from None

    @property
    def experiments(self) -> Experiments:
        """The experiments, and what users did with their answers.

        Raises:
            NotFound: the settings have none.
        """
        if self._experiments is None:
            raise no_experiments()
        return self._experiments

    async def _spend_passages(self, passages: int, context: CallContext) -> None:
        if self._rates is not None and (state := await self._rates.spend_passages(context.tenant, passages)):
            state.tell(context.response_headers)

    async def reload(self, name: str | None = None) -> None:
        """Load models anew beside the old ones and swap; a failed load leaves the old ones serving.

        Args:
            name: the served name whose model it is; the others go on as they are. None means all.

        Raises:
            NotFound: no such name is served.
            ConfigurationError: the new models do not load.
            InvalidRequest: a reload is under way already.
        """
        if self._reloading.locked():
            raise InvalidRequest("a reload is under way already")
        async with self._reloading:
            old = self._running()
            kept = _others(old.models, name) if name is not None else []
            self._pipeline = self._pipeline_of(await self._load(old.cache, kept), old.cache)
            replaced = [model for model in old.models.loaded if model not in kept]
            for model in replaced:
                self.lifecycle.report(f"model {model.name}", "")
            await asyncio.gather(*(model.retire() for model in replaced))

    async def exposition(self) -> bytes:
        """What ``/metrics`` answers."""
        return generate_latest(self.metrics.registry)

    async def flush_cache(self) -> None:
        """Forget every cached score."""
        await self.cache.flush()

    async def stop(self) -> None:
        """Give everything back; what still waits is answered with an error."""
        if self._experiments is not None:
            await self._experiments.close()
        if self._pipeline is not None:
            await asyncio.gather(*(model.close() for model in self._pipeline.models.loaded))
        if self._cache is not None:
            await self._cache.close()
        if self._rates is not None:
            await self._rates.close()
        self.lifecycle.move_to(State.STOPPED)

    def _running(self) -> RequestPipeline:
        if self._pipeline is None:
            raise model_is_loading()
        return self._pipeline

    async def _load(self, cache: ScoreCache, kept: Sequence[LoadedModel] = ()) -> ServedModels:
        _check_cascades(self.settings)
        _check_instructions(self.settings, self._instructions)
        on_output = functools.partial(take_output, cache)
        models = await load_models(
            self.settings,
            self.metrics,
            on_output,
            self._on_engine_death,
            self.lifecycle.report,
            self._opened,
            {model.source: model for model in kept},
        )
        self.metrics.engine_kernels.clear()
        for loaded in models.loaded:
            self.metrics.engine_kernels.labels(loaded.name, loaded.engine.info.kernels).set(1)
        return models

    def _pipeline_of(self, models: ServedModels, cache: ScoreCache) -> RequestPipeline:
        return RequestPipeline(
            self.settings, models, cache, self.metrics, self._instructions, self._spend_passages, self.offload
        )

    def _on_cache_change(self, is_out_of_reach: bool) -> None:
        self.lifecycle.report("cache", "the score cache is out of reach" if is_out_of_reach else "")

    def _on_engine_death(self, name: str, reason: str) -> None:
        """The process ends with its last engine; until then the others' models are served."""
        if self.models is not None and any(model.engine.state != "dead" for model in self.models.loaded):
            self.lifecycle.report(f"model {name}", f"the engine of {name} is gone: {reason}")
        else:
            self.lifecycle.move_to(State.DEAD, reason)


def _others(models: ServedModels, name: str) -> list[LoadedModel]:
    """All loaded models but the one behind a name."""
    found = models.find(name)
    if found is None:
        raise NotFound("no model of that name is served here; GET /v1/models lists the names", param="name")
    return [model for model in models.loaded if model is not found.loaded]


def _check_instructions(settings: Settings, instructions: Instructions) -> None:
    """Default instructions may be named; a wrong name would fail every request."""
    rows = {"": settings.instruction}
    rows |= {f" of the served name {name}": row.instruction for name, row in settings.models.items()}
    for experiment, rule in settings.experiments.items():
        rows |= {f" of the arm {name} of {experiment}": arm.instruction for name, arm in rule.arms.items()}
    for of, instruction in rows.items():
        try:
            instructions.resolve(instruction)
        except InvalidRequest as error:
            raise ConfigurationError(f"the setting 'instruction'{of}: {error.message}") from None


def _check_cascades(settings: Settings) -> None:
    """A cascade's first stage has to be a served name, or the scores of the request."""
    names = {*served_sources(settings), FIRST_STAGE}
    for name, row in settings.models.items():
        if row.cascade_model and (row.cascade_model not in names or row.cascade_model == name):
            there = ", ".join(sorted(names - {name}))
            raise ConfigurationError(f"'cascade_model' of the served name {name} has to be one of {there}")
