"""Served names, and the loaded models behind them.

A loaded model is one checkpoint with its template, tokenizer threads, engine, and the room before them. A served
name is what a client asks for: a loaded model with a default instruction and limits of its own. Two names with the
same checkpoint and the same budget share one loaded model. What goes wrong in one loaded model, its death included,
is no matter of the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from rerankd.cache.key import ModelScope
from rerankd.checkpoint import Checkpoint
from rerankd.core.engine_core import CoreOptions
from rerankd.core.engine_replicas import EngineReplicas
from rerankd.core.engine_thread import EngineThread
from rerankd.core.request import Output
from rerankd.engine.base import DType, Engine
from rerankd.engine.process.placement import Place, places
from rerankd.errors import ConfigurationError, NotFound
from rerankd.model_hub import present_checkpoint, resolve_checkpoint
from rerankd.observe.metrics import EngineMetrics, Metrics
from rerankd.prompt.build import PromptBuilder
from rerankd.prompt.template import Template
from rerankd.prompt.workers import PromptWorkers
from rerankd.service.admission import Admission, SizeLimits
from rerankd.service.calibration import Calibration, open_calibration
from rerankd.service.cascade import CascadeRule
from rerankd.service.fusion import NO_FUSION, FusionRule
from rerankd.service.long_documents import LongDocumentRule
from rerankd.settings import ModelSettings, Settings
from rerankd.types import ArmKey, CallContext, RerankRequest

_DRAIN_SECONDS = 60.0

OnOutput: TypeAlias = Callable[[Admission, Output], None]
OnDeath: TypeAlias = Callable[[str, str], None]
"""Takes a loaded model's name and the reason."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What one loaded model may use: settings of the server that a served name can have for itself."""

    engine: str
    device: str
    threads: int
    max_batch_tokens: int
    prefix_cache_tokens: int
    queue_requests: int
    queue_tokens: int

    @classmethod
    def of(cls, row: ModelSettings, settings: Settings) -> Budget:
        """The row's own values, and the server's where the row has none."""
        own = {field.name: getattr(row, field.name) for field in dataclasses.fields(cls)}
        return cls(
            **{
                name: getattr(settings, name) if value == getattr(_NOTHING_SAID, name) else value
                for name, value in own.items()
            }
        )

    def applied_to(self, settings: Settings) -> Settings:
        return dataclasses.replace(settings, **dataclasses.asdict(self))


_NOTHING_SAID = ModelSettings()


@dataclass(frozen=True, slots=True)
class ModelSource:
    """What decides whether two served names can share one loaded model."""

    model: str
    revision: str
    template: str
    dtype: DType
    budget: Budget

    @classmethod
    def of(cls, row: ModelSettings, settings: Settings) -> ModelSource:
        """What a served name stands for; a name without a model of its own is the server's."""
        inherits = not row.model
        return cls(
            model=settings.model if inherits else row.model,
            revision=settings.revision if inherits else row.revision,
            template=settings.template if inherits and row.template == "auto" else row.template,
            dtype=row.dtype or settings.dtype,  # type: ignore[arg-type]
            budget=Budget.of(row, settings),
        )


@dataclass(slots=True, eq=False)
class LoadedModel:
    """One checkpoint, ready to turn texts into logits."""

    name: str
    """The first name that it is served under; its name in metrics."""
    source: ModelSource
    fingerprint: str
    """Hash over the checkpoint's own files: the revision that cache keys carry."""
    scope: ModelScope
    template: Template
    prompts: PromptWorkers
    engine: EngineThread | EngineReplicas
    admission: Admission

    async def retire(self) -> None:
        """Another model has taken over: answer the requests that this one already has, then close it."""
        self.engine.replace()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_SECONDS):
                await self.engine.drain()
        await self.close()

    async def close(self) -> None:
        """Give the engine back; who still waits is answered with an error."""
        await self.engine.stop()
        self.prompts.close()


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A name that clients may ask for."""

    name: str
    loaded: LoadedModel
    instruction: str
    max_pair_tokens: int
    sizes: SizeLimits
    fusion: FusionRule = NO_FUSION
    cascade: CascadeRule | None = None
    long_documents: LongDocumentRule = field(default_factory=LongDocumentRule)
    calibration: Calibration | None = None


class ServedModels:
    """All served names; the first is the default."""

    def __init__(
        self, models: dict[str, ServedModel], *, strict: bool, arms: Mapping[ArmKey, ServedModel] | None = None
    ) -> None:
        self.by_name = models
        self.arms = arms or {}
        """What answers for each arm of each experiment, under the served name that it stands for."""
        self.default = next(iter(models.values()))
        self.strict = strict
        """Is a name that is not served refused?"""

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(self.by_name.values())

    @property
    def loaded(self) -> list[LoadedModel]:
        """The distinct models behind the names."""
        return list({id(model.loaded): model.loaded for model in (*self, *self.arms.values())}.values())

    def choose(self, request: RerankRequest, context: CallContext) -> ServedModel:
        """The model for a request of a caller: that of the arm that it was put in, else the one that it names.

        Foreign names get the default, because many clients cannot omit one.

        Raises:
            NotFound: the name is not served, and the server is strict.
        """
        if request.arm is not None:
            return self.arms[request.arm]
        if request.model is None:
            return self.default
        found = self.by_name.get(request.model)
        if found is None and request.model and self.strict:
            known = ", ".join(self.by_name)
            raise NotFound(f"no such model is served here; there is {known}", param="model", setting="strict_models")
        return found or self.default

    def find(self, name: str | None) -> ServedModel | None:
        return self.by_name.get(name) if name else None


def served_sources(settings: Settings) -> dict[str, tuple[ModelSource, ModelSettings]]:
    """Every served name with the model it stands for, the default name first."""
    own = ModelSettings(
        model=settings.model,
        revision=settings.revision,
        template=settings.template,
        instruction=settings.instruction,
        calibration=settings.calibration,
    )
    name = settings.served_name or settings.model.rstrip("/").rsplit("/", 1)[-1]
    rows = {name: own, **settings.models}
    return {name: (ModelSource.of(row, settings), row) for name, row in rows.items()}


def arm_sources(settings: Settings) -> dict[ArmKey, tuple[str, ModelSource, ModelSettings]]:
    """Every arm of an experiment with its served name and the model that it stands for.

    An arm is its served name with another template or calibration; what it says of instructions and long documents
    is put into the requests.

    Raises:
        ConfigurationError: an arm's name is not served.
    """
    served = served_sources(settings)
    default = next(iter(served))
    found: dict[ArmKey, tuple[str, ModelSource, ModelSettings]] = {}
    for experiment, rule in settings.experiments.items():
        for name, arm in rule.arms.items():
            model = arm.model or rule.model or default
            if model not in served:
                where = f"'model' of the arm {name} of the experiment {experiment}"
                raise ConfigurationError(f"{where} has to be one of {', '.join(served)}")
            row = served[model][1]
            row = dataclasses.replace(
                row, template=arm.template or row.template, calibration=arm.calibration or row.calibration
            )
            found[experiment, name] = model, ModelSource.of(row, settings), row
    return found


def open_present_checkpoints(settings: Settings) -> dict[ModelSource, Checkpoint]:
    """The checkpoint of every model that a served name or an arm needs, where it is on this machine; none is loaded.

    One that cannot be opened is left out: the cache of a hub may hold half a download, and what is wrong with a
    folder is said when it is loaded.

    Raises:
        ConfigurationError: an arm's name is not served.
    """
    sources = [source for source, _ in served_sources(settings).values()]
    sources += [source for _, source, _ in arm_sources(settings).values()]
    opened = {}
    for source in dict.fromkeys(sources):
        folder = present_checkpoint(source.model, source.revision)
        with contextlib.suppress(ConfigurationError):
            if folder:
                opened[source] = Checkpoint.of(folder, source.template)
    return opened


def _open(source: ModelSource, opened: Checkpoint | None) -> Checkpoint:
    """The one that is open already, unless the hub has a newer revision."""
    folder = resolve_checkpoint(source.model, source.revision, source.dtype)
    return opened if opened and opened.folder == folder else Checkpoint.of(folder, source.template)


async def load_models(
    settings: Settings,
    metrics: Metrics,
    on_output: OnOutput,
    on_death: OnDeath,
    report: Callable[[str, str], None],
    opened: Mapping[ModelSource, Checkpoint] = types.MappingProxyType({}),
    kept: Mapping[ModelSource, LoadedModel] = types.MappingProxyType({}),
) -> ServedModels:
    """Load and warm every model that a served name needs, each once.

    Args:
        opened: what :func:`open_present_checkpoints` found; the others are opened here.
        kept: models that are loaded already and stay as they are, whatever happens here.

    Raises:
        ConfigurationError: a checkpoint is missing or cannot be served as asked.
    """
    sources = served_sources(settings)
    arms = arm_sources(settings)
    longest: dict[ModelSource, int] = {}
    for source, row in (*sources.values(), *((source, row) for _, source, row in arms.values())):
        longest[source] = max(longest.get(source, 0), row.max_pair_tokens or settings.max_pair_tokens)
    loaded = dict(kept)
    served: dict[str, ServedModel] = {}
    of_arms: dict[ArmKey, ServedModel] = {}

    async def load(name: str, source: ModelSource) -> LoadedModel:
        if source not in loaded:
            own = dataclasses.replace(source.budget.applied_to(settings), max_pair_tokens=longest[source])
            checkpoint = await asyncio.to_thread(_open, source, opened.get(source))
            loaded[source] = await load_model(name, source, checkpoint, own, metrics, on_output, on_death, report)
        return loaded[source]

    try:
        for name, (source, row) in sources.items():
            served[name] = _serve(name, await load(name, source), row, settings)
        for arm, (name, source, row) in arms.items():
            of_arms[arm] = _serve(name, await load(".".join(arm), source), row, settings)
    except BaseException:
        await asyncio.gather(*(model.close() for source, model in loaded.items() if source not in kept))
        raise
    return ServedModels(served, strict=settings.strict_models, arms=of_arms)


def _serve(name: str, loaded: LoadedModel, row: ModelSettings, settings: Settings) -> ServedModel:
    asked = row.max_pair_tokens or settings.max_pair_tokens
    return ServedModel(
        name=name,
        loaded=loaded,
        instruction=row.instruction or loaded.template.default_instruction,
        max_pair_tokens=min(asked, loaded.engine.info.max_length),
        sizes=SizeLimits.from_settings(settings, row.max_documents or settings.max_documents),
        long_documents=LongDocumentRule.of(settings, row),
        fusion=FusionRule.of(settings, row),
        cascade=CascadeRule.of(row),
        calibration=open_calibration(row.calibration, loaded.fingerprint, loaded.template.revision, name),
    )


async def load_model(
    name: str,
    source: ModelSource,
    checkpoint: Checkpoint,
    settings: Settings,
    metrics: Metrics,
    on_output: OnOutput,
    on_death: OnDeath,
    report: Callable[[str, str], None],
) -> LoadedModel:
    """One checkpoint to a warm engine, off the event loop where it takes long.

    Args:
        settings: with the model's own budget, and the token limit of the longest name that it is served under.
        on_output: told of every output on the event loop, late ones too, with the room that it had.
        on_death: told the model's name and why its engine is gone for good.
        report: told of a part and of its trouble when some of several engines are missing, and when none is.
    """
    prompts = PromptWorkers(PromptBuilder(checkpoint.tokenizer), settings.tokenizer_threads)
    own_metrics = EngineMetrics(metrics, name)
    admission = Admission(settings, prompts.semaphore, own_metrics)
    options = CoreOptions(engine_timeout_seconds=settings.engine_timeout_seconds)
    take_output = functools.partial(on_output, admission)
    die = functools.partial(on_death, name)
    engine: EngineThread | EngineReplicas
    if settings.replicas == 1:
        engine = EngineThread(_engine(checkpoint, source, settings), own_metrics, options, take_output, die)
    else:
        makers = [
            functools.partial(_engine, checkpoint, source, settings, place)
            for place in places(settings.replicas, settings.device)
        ]

        def on_change(missing: int) -> None:
            trouble = f"{missing} of {settings.replicas} engines are starting again" if missing else ""
            report(f"engines of {name}", trouble)

        engine = EngineReplicas(makers, own_metrics, options, take_output, die, on_change)
    await engine.start()
    # Not before: a file that the engine refuses may be of any size, and this reads all of it.
    try:
        revision = await asyncio.to_thread(getattr, checkpoint, "fingerprint")
    except BaseException:
        await engine.stop()
        prompts.close()
        raise
    scope = ModelScope(
        model=source.model,
        revision=revision,
        template=checkpoint.template.revision,
        dtype=engine.info.dtype,
        engine=engine.info.engine,
        device=engine.info.device.partition(":")[0],
    )
    return LoadedModel(name, source, revision, scope, checkpoint.template, prompts, engine, admission)


def _engine(checkpoint: Checkpoint, source: ModelSource, settings: Settings, place: Place | None = None) -> Engine:
    """An engine that is not loaded yet: in this process, or in one of its own with a place on the machine."""
    return checkpoint.engine(
        settings.engine,
        dtype=source.dtype,
        device=settings.device,
        threads=settings.threads,
        max_pair_tokens=settings.max_pair_tokens,
        max_batch_tokens=settings.max_batch_tokens,
        prefix_cache_tokens=settings.prefix_cache_tokens,
        script=settings.fake_script,
        place=place,
    )
