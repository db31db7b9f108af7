"""Engines by name, each imported only when it is asked for."""

from __future__ import annotations

from rerankd.engine.base import Engine, EngineOptions
from rerankd.errors import ConfigurationError

ENGINES = ("native", "reference", "vllm", "fake")


def create_engine(name: str, options: EngineOptions) -> Engine:
    """An engine that is not loaded yet.

    Raises:
        ConfigurationError: an unknown name, or a package that this engine needs is not installed.
    """
    match name:
        case "native":
            from rerankd.engine.native.engine import NativeEngine

            return NativeEngine(options)
        case "reference":
            from rerankd.engine.reference import ReferenceEngine

            return ReferenceEngine(options)
        case "vllm":
            from rerankd.engine.vllm import VllmEngine

            return VllmEngine(options)
        case "fake":
            from rerankd.engine.fake import FakeEngine

            return FakeEngine(options)
    raise ConfigurationError(f"there is no engine {name!r}; there are {', '.join(ENGINES)}")
