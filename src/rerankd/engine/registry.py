"""Engines by name, each imported only when it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from rerankd.engine.base import Engine, EngineOptions
from rerankd.errors import ConfigurationError

_CLASSES = {
    "native": ("rerankd.engine.native.engine", "NativeEngine"),
    "reference": ("rerankd.engine.reference", "ReferenceEngine"),
    "vllm": ("rerankd.engine.vllm", "VllmEngine"),
    "fake": ("rerankd.engine.fake", "FakeEngine"),
}
ENGINES = tuple(_CLASSES)


def import_engine(name: str) -> Callable[[EngineOptions], Engine]:
    """The class of an engine; its module and all that it needs are imported.

    Raises:
        ConfigurationError: an unknown name, or a package that this engine needs is not installed.
    """
    if name not in _CLASSES:
        raise ConfigurationError(f"there is no engine {name!r}; there are {', '.join(ENGINES)}")
    module, kind = _CLASSES[name]
    made: Callable[[EngineOptions], Engine] = getattr(importlib.import_module(module), kind)
    return made


def create_engine(name: str, options: EngineOptions) -> Engine:
    """An engine that is not loaded yet; raises what :func:`import_engine` raises."""
    return import_engine(name)(options)
