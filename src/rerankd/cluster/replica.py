"""One engine replica: the service for each model that it was asked for, loaded when asked, let go when idle.

Everything between a request and its scores is the server's own: admission, cache, prompts, the core with its
batches, isolation and deadlines. Nothing here knows Ray.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from dataclasses import dataclass, field
from typing import Any

import structlog

from rerankd.checkpoint import Checkpoint
from rerankd.cluster.messages import Call, ModelCard, Reply
from rerankd.cluster.metrics import Row, rows_of
from rerankd.engine.base import EngineInfo
from rerankd.errors import ServiceError, model_is_loading
from rerankd.service.admission import SizeLimits
from rerankd.service.calibration import open_calibration
from rerankd.service.models import ModelSource, ServedModel, served_sources
from rerankd.service.runtime import RerankService
from rerankd.settings import ModelSettings, Settings
from rerankd.types import CallContext

_log = structlog.get_logger(__name__)
_SWEEP_SECONDS = 1.0


@dataclass(slots=True)
class _Held:
    """A model that is loaded, or on its way."""

    service: RerankService
    loading: asyncio.Task[None]
    calls: int = 0
    idle_since: float = field(default_factory=time.monotonic)


class EngineReplica:
    """The models of one process.

    Args:
        settings: of the server; its address and its rate limits are the ingress's business.
        name: of this replica.
        idle_seconds: after which a model that nobody asks for is let go; the default model stays.
    """

    def __init__(self, settings: Settings, name: str, idle_seconds: float) -> None:
        self.name = name
        self._settings = dataclasses.replace(settings, rate_limit="", replicas=1)
        self._sources = served_sources(settings)
        self._default = next(iter(self._sources))
        self._idle_seconds = idle_seconds
        self._held: dict[ModelSource, _Held] = {}
        self._cards: dict[str, ModelCard] = {}
        self._sweeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Load the default model.

        Raises:
            ConfigurationError: it cannot be loaded as asked.
        """
        await asyncio.shield(self._hold(self._sources[self._default][0]).loading)
        self._sweeper = asyncio.create_task(self._sweep())

    async def rerank(self, call: Call) -> Reply:
        """Score a call's requests with the model that it names, loading it where it is not here."""
        source = self._sources[call.name if call.name in self._sources else self._default][0]
        deadline = time.monotonic() + call.seconds_left
        held = self._hold(source)
        held.calls += 1
        try:
            await self._until_loaded(source, held, call.seconds_left)
            context = CallContext(call.request_id, deadline, call.tenant, call.use_cache)
            results = await held.service.rerank(call.requests, context)
        except ServiceError as error:
            return Reply(self.name, error=error)
        finally:
            held.calls -= 1
            held.idle_since = time.monotonic()
        return Reply(self.name, tuple(results))

    async def _until_loaded(self, source: ModelSource, held: _Held, seconds: float) -> None:
        """Wait for a model that is on its way; another call's end does not stop the loading."""
        try:
            async with asyncio.timeout(seconds):
                await asyncio.shield(held.loading)
        except TimeoutError:
            raise model_is_loading() from None
        except Exception as error:
            if self._held.get(source) is held:
                del self._held[source]
                _log.error("a model did not load", model=source.model, reason=str(error))
            raise ServiceError("the model could not be loaded; the log says why") from error

    def _hold(self, source: ModelSource) -> _Held:
        held = self._held.get(source)
        if held is None:
            service = RerankService(self._settings_of(source))
            held = self._held[source] = _Held(service, asyncio.create_task(service.start()))
        return held

    def _settings_of(self, source: ModelSource) -> Settings:
        """The settings as if the names of this model were the only ones."""
        rows = {name: row for name, (found, row) in self._sources.items() if found == source}
        first = next(iter(rows))
        if first == self._default:
            models = {name: row for name, row in rows.items() if name != first}
            return dataclasses.replace(self._settings, models=models)
        # Every value of the source is said in full: what a row leaves out it has from the default model.
        models = {
            name: dataclasses.replace(row, model="", template="auto", **_own_values(row, self._settings))
            for name, row in rows.items()
            if name != first
        }
        return dataclasses.replace(
            self._settings,
            model=source.model,
            revision=source.revision,
            template=source.template,
            dtype=source.dtype,
            served_name=first,
            models=models,
            **_own_values(rows[first], self._settings),
        )

    async def _sweep(self) -> None:
        """Let go of models that nobody has asked for lately."""
        while True:
            await asyncio.sleep(min(_SWEEP_SECONDS, self._idle_seconds))
            until = time.monotonic() - self._idle_seconds
            for source, held in list(self._held.items()):
                if source != self._sources[self._default][0] and not held.calls and held.idle_since < until:
                    del self._held[source]
                    _log.info("a model is let go", model=source.model)
                    await held.service.stop()

    def queued_tokens(self) -> int:
        """Tokens that wait or run, of all models."""
        found = [model for held in self._held.values() for model in (held.service.models or ())]
        rooms = {id(model.loaded): model.loaded.admission.tokens.held for model in found}
        return sum(rooms.values())

    def loaded_names(self) -> list[str]:
        """The served names whose model is here."""
        return [name for name, (source, _) in self._sources.items() if source in self._held]

    def check(self) -> None:
        """Raises RuntimeError with the reason when an engine is gone for good."""
        for held in self._held.values():
            lifecycle = held.service.lifecycle
            if not lifecycle.is_alive:
                raise RuntimeError(lifecycle.reason)

    async def cards(self) -> list[ModelCard]:
        """All served names; of a model that is not loaded, what its small files say."""
        for name, (source, row) in self._sources.items():
            held = self._held.get(source)
            models = held.service.models if held else None
            served = models.find(name) if models else None
            if served is not None:
                self._cards[name] = _card_of(served)
            elif name not in self._cards:
                self._cards[name] = await asyncio.to_thread(_card_of_files, name, source, row, self._settings)
        return [self._cards[name] for name in self._sources]

    async def flush(self) -> None:
        """Forget the scores of every model that is here."""
        for held in self._held.values():
            if held.service.models is not None:
                await held.service.flush_cache()

    def metrics(self) -> list[Row]:
        """What all models count."""
        return rows_of(held.service.metrics.registry for held in self._held.values())

    async def stop(self) -> None:
        """Give everything back; who still waits is answered with an error."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        for held in self._held.values():
            held.loading.cancel()
            await held.service.stop()


def _own_values(row: ModelSettings, settings: Settings) -> dict[str, Any]:
    return {
        "instruction": row.instruction,
        "calibration": row.calibration,
        "max_pair_tokens": row.max_pair_tokens or settings.max_pair_tokens,
        "max_documents": row.max_documents or settings.max_documents,
    }


def _card_of(served: ServedModel) -> ModelCard:
    loaded = served.loaded
    return ModelCard(
        served.name,
        loaded.source,
        loaded.fingerprint,
        loaded.template,
        loaded.engine.info,
        served.instruction,
        served.max_pair_tokens,
        served.sizes,
        served.calibration,
    )


def _card_of_files(name: str, source: ModelSource, row: ModelSettings, settings: Settings) -> ModelCard:
    checkpoint = Checkpoint.open(source.model, source.revision, source.template)
    tokens = row.max_pair_tokens or settings.max_pair_tokens
    info = EngineInfo(
        engine=settings.engine,
        device=settings.device,
        dtype=source.dtype,
        architecture="",
        max_length=tokens,
        parameters=0,
        max_batch_tokens=settings.max_batch_tokens,
        details="not loaded",
    )
    sizes = SizeLimits.from_settings(settings, row.max_documents or settings.max_documents)
    instruction = row.instruction or checkpoint.template.default_instruction
    calibration = open_calibration(row.calibration, checkpoint.fingerprint, checkpoint.template.revision, name)
    return ModelCard(
        name, source, checkpoint.fingerprint, checkpoint.template, info, instruction, tokens, sizes, calibration
    )
