"""Which models an evaluation asks, and under which names they stand in its report."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rerankd.evaluate.scorer import LocalScorer, Scorer, ServerScorer
from rerankd.reranker import Reranker
from rerankd.service.models import ModelSource, served_sources
from rerankd.settings import Settings


@dataclass(frozen=True, slots=True)
class NamedScorer:
    """A scorer with its name in the report, and the instruction that it has of its own, if any."""

    name: str
    scorer: Scorer
    instruction: str | None = None


def open_local(models: Sequence[str], settings: Settings) -> Iterator[NamedScorer]:
    """Each model in this process, one in memory at a time.

    Args:
        models: served names of the settings, ``tiny``, folders or hub names; none means the settings' own model.

    Raises:
        ConfigurationError: a model cannot be loaded as asked.
    """
    models = models or (settings.model,)
    same_name = len({Path(model).name for model in models}) < len(models)
    for model in models:
        with contextlib.closing(LocalScorer(_load(model, settings))) as scorer:
            served = settings.models.get(model)
            own = served.instruction if served else settings.instruction
            yield NamedScorer(model if same_name else Path(model).name, scorer, own or None)


def open_server(models: Sequence[str], url: str, api_key: str | None) -> Iterator[NamedScorer]:
    """Each served name of a running server; none means its default."""
    for model in models or (None,):
        with contextlib.closing(ServerScorer(url, model, api_key)) as scorer:
            yield NamedScorer(scorer.identity["model"], scorer)


def _load(model: str, settings: Settings) -> Reranker:
    """As the server would load it: a served name brings its own revision, template, dtype and limit."""
    row = settings.models.get(model)
    if row is None:
        source = ModelSource(model, settings.revision, settings.template, settings.dtype)  # type: ignore[arg-type]
    else:
        source, _ = served_sources(settings)[model]
    return Reranker(
        source.model,
        revision=source.revision,
        template=source.template,
        engine=settings.engine,
        dtype=source.dtype,
        device=settings.device,
        threads=settings.threads,
        max_pair_tokens=(row and row.max_pair_tokens) or settings.max_pair_tokens,
        max_batch_tokens=settings.max_batch_tokens,
    )
