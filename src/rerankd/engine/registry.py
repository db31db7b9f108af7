"""Engines by name, each imported only when it is asked for."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path

from rerankd.engine.base import Engine, EngineOptions
from rerankd.errors import ConfigurationError
from rerankd.settings.testing import is_testing

_CLASSES = {
    "native": ("rerankd.engine.native.engine", "NativeEngine"),
    "onnx": ("rerankd.engine.onnx.engine", "OnnxEngine"),
    "reference": ("rerankd.engine.reference", "ReferenceEngine"),
    "vllm": ("rerankd.engine.vllm", "VllmEngine"),
}
_FOR_TESTS = {"fake": ("rerankd.engine.fake", "FakeEngine")}
_ON_TORCH = ("native", "reference")
ENGINES = ("auto", *_CLASSES)


def import_engine(name: str, folder: Path) -> Callable[[EngineOptions], Engine]:
    """The class of an engine; its module and all that it needs are imported.

    Args:
        name: one of :data:`ENGINES`.
        folder: the checkpoint's, by which ``auto`` chooses.

    Raises:
        ConfigurationError: an unknown name, or a package that this engine needs is not installed.
    """
    if name == "auto":
        name = choose_engine(folder)
    known = _CLASSES | _FOR_TESTS if is_testing() else _CLASSES
    if name not in known:
        raise ConfigurationError(f"there is no engine {name!r}; there are {', '.join(ENGINES)}")
    if name in _ON_TORCH:
        _require_torch(f"the {name} engine")
    module, kind = known[name]
    made: Callable[[EngineOptions], Engine] = getattr(importlib.import_module(module), kind)
    return made


def create_engine(name: str, options: EngineOptions) -> Engine:
    """An engine that is not loaded yet; raises what :func:`import_engine` raises."""
    return import_engine(name, options.folder)(options)


def choose_engine(folder: Path) -> str:
    """The engine for a checkpoint: native for what it runs where torch is installed, else onnx for what that runs.

    Raises:
        ConfigurationError: no engine runs it, or the one that does needs torch.
    """
    from rerankd.engine.native.config import ARCHITECTURES
    from rerankd.engine.onnx.graphs import GRAPHS
    from rerankd.engine.onnx.source import architecture_of, runs

    architecture = architecture_of(folder)
    if architecture in ARCHITECTURES and _is_installed("torch"):
        return "native"
    if runs(folder):
        return "onnx"
    if architecture in ARCHITECTURES:
        _require_torch(f"a checkpoint of the architecture {architecture}")
    known = ", ".join(ARCHITECTURES)
    raise ConfigurationError(
        f"no engine runs the architecture {architecture or '(none named)'}: the native engine runs {known}, and the "
        f"onnx engine {', '.join(GRAPHS)}, or any encoder with one output that has a graph in {folder}/onnx"
    )


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _require_torch(what: str) -> None:
    if not _is_installed("torch"):
        raise ConfigurationError(f"{what} needs torch: pip install 'rerankd[torch]'")
