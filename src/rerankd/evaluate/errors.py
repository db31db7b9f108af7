"""What can be wrong with an evaluation before any model is asked."""

from __future__ import annotations

import importlib
from types import ModuleType

from rerankd.errors import RerankdError


class EvaluationError(RerankdError):
    """The data or the arguments cannot be used; the message names the file and line, or the argument."""


def extra(module: str) -> ModuleType:
    """A module of the ``eval`` extra.

    Raises:
        EvaluationError: it is not installed; the message is the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise EvaluationError(f"there is no {error.name}; install it with: pip install 'rerankd[eval]'") from error
