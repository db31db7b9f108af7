"""Which models an evaluation asks, and under which names they stand in its report."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rerankd.evaluate.scorer import LocalScorer, Scorer, ServerScorer
from rerankd.local_models import instruction_of, load_named
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
        with contextlib.closing(LocalScorer(load_named(model, settings))) as scorer:
            name = model if same_name else Path(model).name
            yield NamedScorer(name, scorer, instruction_of(model, settings))


def open_server(models: Sequence[str], url: str, api_key: str | None) -> Iterator[NamedScorer]:
    """Each served name of a running server; none means its default."""
    for model in models or (None,):
        with contextlib.closing(ServerScorer(url, model, api_key)) as scorer:
            yield NamedScorer(scorer.identity["model"], scorer)
