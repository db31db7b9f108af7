"""A model in this process, by the name and with the settings that the server would load it with.

For ``rerankd rank`` and ``rerankd evaluate``: a served name of the settings brings its own checkpoint, revision,
template, dtype, limit and instruction; any other name is `tiny`, a folder or a hub name.
"""

from __future__ import annotations

from rerankd.reranker import Reranker
from rerankd.service.calibration import open_calibration
from rerankd.service.long_documents import LongDocumentRule
from rerankd.service.models import ModelSource, served_sources
from rerankd.settings import ModelSettings, Settings


def load_named(model: str, settings: Settings) -> Reranker:
    """Load and warm a model.

    Args:
        model: a served name, `tiny`, a folder or a hub name; empty means the settings' own model.

    Raises:
        ConfigurationError: it cannot be loaded as asked.
    """
    served = served_sources(settings)
    if not model or (model == settings.served_name and model not in settings.models):
        source, row = next(iter(served.values()))
    elif model in settings.models:
        source, row = served[model]
    else:
        row = ModelSettings(model=model, revision=settings.revision, template=settings.template)
        source = ModelSource.of(row, settings)
    reranker = Reranker(
        source.model,
        revision=source.revision,
        template=source.template,
        engine=source.budget.engine,
        dtype=source.dtype,
        device=source.budget.device,
        threads=source.budget.threads,
        max_pair_tokens=row.max_pair_tokens or settings.max_pair_tokens,
        max_batch_tokens=source.budget.max_batch_tokens,
    )
    reranker.long_documents = LongDocumentRule.of(settings, row)
    where = model or "the default name"
    reranker.calibration = open_calibration(row.calibration, reranker.revision, reranker.template.revision, where)
    return reranker


def instruction_of(model: str, settings: Settings) -> str | None:
    """The default instruction of a name; None leaves it to the template."""
    served = settings.models.get(model)
    own = served.instruction if served else settings.instruction
    return own or None
