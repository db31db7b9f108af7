"""Which served model a request goes to."""

from __future__ import annotations

from rerankd.errors import NotFound
from rerankd.service.models import ServedModel, ServedModels
from rerankd.types import CallContext, RerankRequest


def choose(models: ServedModels, request: RerankRequest, context: CallContext) -> ServedModel:
    """The model for a request of a caller: that of the arm that it was put in, else the one that it names.

    Foreign names get the default, because many clients cannot omit one.

    Raises:
        NotFound: the name is not served, and the server is strict.
    """
    if request.arm is not None:
        return models.arms[request.arm]
    found = models.by_name.get(request.model) if request.model else None
    if found is None and request.model and models.strict:
        known = ", ".join(model.name for model in models)
        raise NotFound(f"no such model is served here; there is {known}", param="model", setting="strict_models")
    return found or models.default
