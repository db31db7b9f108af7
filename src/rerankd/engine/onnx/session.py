"""An ONNX Runtime session with its threads, memory and device chosen here, not by default."""

from __future__ import annotations

from typing import Any

import onnxruntime

from rerankd.cores import usable_cores
from rerankd.engine.onnx.source import GraphSource
from rerankd.errors import ConfigurationError

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"

_SHOWN_CHARACTERS = 200
"""Of what the library says, in an error: it may repeat a name of the graph."""
_FATAL = 4
"""Errors come back as exceptions; ONNX Runtime's own log would print each a second time."""


def choose_device(name: str) -> str:
    """``cpu`` or ``cuda:N`` for a setting; ``auto`` takes CUDA where its provider is installed.

    Raises:
        ConfigurationError: no such device, or its provider is not installed.
    """
    has_cuda = CUDA in onnxruntime.get_available_providers()
    if name == "auto":
        return "cuda:0" if has_cuda else "cpu"
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdecimal()) or (kind == "cpu" and index):
        raise ConfigurationError(f"there is no device {name!r}; give auto, cpu, cuda or cuda:N")
    if kind == "cuda" and not has_cuda:
        raise ConfigurationError("ONNX Runtime has no CUDA here: pip install onnxruntime-gpu in place of onnxruntime")
    return name if index or kind == "cpu" else f"{name}:0"


def count_threads(setting: int) -> int:
    """Threads of one operator; 0 means the cores that this process may use."""
    return setting or usable_cores()


def open_session(source: GraphSource, device: str, threads: int) -> Any:
    """A loaded ``onnxruntime.InferenceSession``.

    Raises:
        ConfigurationError: the graph cannot be loaded.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL
    # Operators run one after another, each on all threads; two at once would only share the same cores.
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads spin for their next operator within a pass, and sleep between passes: the event loop needs the core.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    # A pattern is kept for every shape that was ever seen, and nearly every batch has a new one.
    options.enable_mem_pattern = False
    ours = isinstance(source.graph, bytes)
    levels = onnxruntime.GraphOptimizationLevel
    # Our graphs are written in fused operators; what is left to do is to fold casts of half-precision weights.
    options.graph_optimization_level = levels.ORT_ENABLE_BASIC if ours else levels.ORT_ENABLE_ALL
    if ours:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(source.folder))
    try:
        return onnxruntime.InferenceSession(source.graph, options, providers=_providers(device))
    except Exception as error:  # the library's exceptions have no base of their own
        reason = str(error).partition("\n")[0][:_SHOWN_CHARACTERS]
        raise ConfigurationError(f"ONNX Runtime cannot load the graph of {source.folder}: {reason}") from error


def run_options(device: str) -> Any:
    """Options of one pass: memory that the pass took and the arena does not need goes back to the system."""
    options = onnxruntime.RunOptions()
    if device == "cpu":
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options


def _providers(device: str) -> list[Any]:
    # As much as asked for, not twice as much each time: long pairs come seldom.
    arena = {"arena_extend_strategy": "kSameAsRequested"}
    if device == "cpu":
        return [CPU]
    return [(CUDA, {"device_id": device.partition(":")[2], **arena}), CPU]
