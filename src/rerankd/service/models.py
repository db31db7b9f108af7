"""Served names, and the loaded models behind them.

A loaded model is one checkpoint with its template, tokenizers, engine and scheduler. A served name is what
a client asks for: a loaded model with a default instruction and limits of its own. Two names with the same
checkpoint share one loaded model.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rerankd.checkpoint import Checkpoint
from rerankd.engine.base import DType
from rerankd.errors import NotFound
from rerankd.observe.metrics import Metrics
from rerankd.prompt.build import PromptBuilder
from rerankd.prompt.template import Template
from rerankd.prompt.workers import PromptWorkers
from rerankd.schedule.options import turn_limits
from rerankd.schedule.scheduler import ScheduleOptions, Scheduler
from rerankd.settings import ModelSettings, Settings
from rerankd.types import RerankRequest

_DRAIN_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class ModelSource:
    """What decides whether two served names can share one loaded model."""

    model: str
    revision: str
    template: str
    dtype: DType


@dataclass(slots=True)
class LoadedModel:
    """One checkpoint, ready to turn texts into logits."""

    source: ModelSource
    fingerprint: str
    """Hash over the checkpoint's own files: the revision that cache keys carry."""
    template: Template
    prompts: PromptWorkers
    scheduler: Scheduler

    async def close(self, *, drain: bool = False) -> None:
        """Give the engine back; with ``drain`` after the requests that it already has."""
        if drain:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_DRAIN_SECONDS):
                    await self.scheduler.drain()
        await self.scheduler.stop()
        self.prompts.close()


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A name that clients may ask for."""

    name: str
    loaded: LoadedModel
    instruction: str
    max_pair_tokens: int
    max_documents: int


class ServedModels:
    """All served names; the first is the default."""

    def __init__(self, models: dict[str, ServedModel], *, strict: bool) -> None:
        self._models = models
        self._strict = strict

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(self._models.values())

    @property
    def default(self) -> ServedModel:
        return next(iter(self._models.values()))

    @property
    def loaded(self) -> list[LoadedModel]:
        """The distinct models behind the names."""
        return list({id(model.loaded): model.loaded for model in self}.values())

    def find(self, name: str | None) -> ServedModel | None:
        return self._models.get(name) if name else None

    def for_request(self, request: RerankRequest) -> ServedModel:
        """The model for a request; foreign names get the default, because many clients cannot omit one."""
        found = self.find(request.model)
        if found is None and request.model and self._strict:
            known = ", ".join(self._models)
            raise NotFound(f"no such model is served here; there is {known}", param="model", setting="strict_models")
        return found or self.default


def served_sources(settings: Settings) -> dict[str, tuple[ModelSource, ModelSettings]]:
    """Every served name with the model it stands for, the default name first."""
    own = ModelSettings(
        model=settings.model,
        revision=settings.revision,
        template=settings.template,
        instruction=settings.instruction,
    )
    name = settings.served_name or settings.model.rstrip("/").rsplit("/", 1)[-1]
    rows = {name: own, **settings.models}
    return {name: (_source(row, settings), row) for name, row in rows.items()}


def _source(row: ModelSettings, settings: Settings) -> ModelSource:
    inherits = not row.model
    return ModelSource(
        model=settings.model if inherits else row.model,
        revision=settings.revision if inherits else row.revision,
        template=settings.template if inherits and row.template == "auto" else row.template,
        dtype=row.dtype or settings.dtype,  # type: ignore[arg-type]
    )


async def load_models(settings: Settings, metrics: Metrics, on_death: Callable[[str], None]) -> ServedModels:
    """Load and warm every model that a served name needs, each once.

    Raises:
        ConfigurationError: a checkpoint is missing or cannot be served as asked.
    """
    loaded: dict[ModelSource, LoadedModel] = {}
    served: dict[str, ServedModel] = {}
    try:
        for name, (source, row) in served_sources(settings).items():
            if source not in loaded:
                loaded[source] = await load_model(source, settings, metrics, on_death)
            served[name] = _serve(name, loaded[source], row, settings)
    except BaseException:
        await asyncio.gather(*(model.close() for model in loaded.values()))
        raise
    return ServedModels(served, strict=settings.strict_models)


def _serve(name: str, loaded: LoadedModel, row: ModelSettings, settings: Settings) -> ServedModel:
    asked = row.max_pair_tokens or settings.max_pair_tokens
    return ServedModel(
        name=name,
        loaded=loaded,
        instruction=row.instruction or loaded.template.default_instruction,
        max_pair_tokens=min(asked, loaded.scheduler.info.max_length),
        max_documents=row.max_documents or settings.max_documents,
    )


async def load_model(
    source: ModelSource, settings: Settings, metrics: Metrics, on_death: Callable[[str], None]
) -> LoadedModel:
    """One checkpoint from its folder to a warm engine, off the event loop where it takes long."""
    checkpoint = await asyncio.to_thread(Checkpoint.open, source.model, source.revision, source.template)
    engine = checkpoint.engine(
        settings.engine,
        dtype=source.dtype,
        device=settings.device,
        threads=settings.threads,
        max_pair_tokens=settings.max_pair_tokens,
        max_batch_tokens=settings.max_batch_tokens,
        prefix_cache_tokens=settings.prefix_cache_tokens,
        script=settings.fake_script,
    )
    scheduler = Scheduler(engine, ScheduleOptions.from_settings(settings), metrics, on_death)
    await scheduler.start()
    prompts = PromptWorkers(PromptBuilder(checkpoint.tokenizer), settings.tokenizer_threads, turn_limits(settings))
    return LoadedModel(source, checkpoint.fingerprint, checkpoint.template, prompts, scheduler)
