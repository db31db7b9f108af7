"""What this machine has for a server with given settings. Nothing is loaded but libraries, nothing is changed."""

from __future__ import annotations

import asyncio
import importlib.metadata
import importlib.util
import math
import platform
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import rerankd
from rerankd.cache.open import REDIS_SCHEMES
from rerankd.checkpoint import Checkpoint
from rerankd.cli.checks.check import Check
from rerankd.cores import usable_cores
from rerankd.engine.registry import choose_engine
from rerankd.errors import ConfigurationError
from rerankd.integrity import check_files, safetensors_header
from rerankd.memory import available_bytes
from rerankd.model_hub import resolve_checkpoint
from rerankd.settings import Settings

_CPU_FLAGS = (
    "avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_int8", "amx_bf16", "asimd", "asimddp", "i8mm",
    "bf16",
)  # fmt: skip
"""What the kernels and their fallbacks know how to use."""
_BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0, "int8": 1.1, "fp8": 1.1}
"""Of a weight, its share of scales included."""
_TORCH_BYTES, _ONNX_BYTES = 450_000_000, 150_000_000
"""Of the process beside the weights: interpreter, libraries, tokenizer."""
_PASS_BYTES = 300_000_000
"""Of a forward pass of the largest batch on a CPU, for models around the 0.6B."""


def check_machine(settings: Settings) -> Iterator[Check]:
    """The findings, one after another."""
    yield Check(
        "version", "good", f"rerankd {rerankd.__version__}, Python {platform.python_version()}, {_packages()}"
    )
    yield _processor()
    yield _gpu(settings)
    folder, found = _model(settings)
    yield found
    if folder is not None:
        engine, found = _engine(settings, folder)
        yield found
        if engine:
            yield _memory(settings, folder, engine)
    yield _port(settings)
    yield from _redis(settings)


def _packages() -> str:
    names = [name for name in ("torch", "onnxruntime", "redis") if importlib.util.find_spec(name)]
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)


def _processor() -> Check:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    words = set(text.split())
    flags = [flag for flag in _CPU_FLAGS if flag in words]
    says = f"{platform.machine()}, {usable_cores()} usable cores, {', '.join(flags) or 'instruction sets unknown'}"
    if platform.machine() in ("x86_64", "AMD64") and text and "avx2" not in words:
        return Check(
            "processor", "warning", says, "no_avx2", "without AVX2 there is no fast kernel; use another machine"
        )
    return Check("processor", "good", says)


def _gpu(settings: Settings) -> Check:
    wants = settings.device.startswith("cuda")
    if importlib.util.find_spec("torch") is None:
        says = "torch is not installed"
        return Check("gpu", "bad" if wants else "skipped", says, "no_torch", "pip install 'rerankd[torch]'")
    import torch

    if not torch.cuda.is_available():
        says = "torch sees no CUDA device"
        advice = "install the driver and a torch built for CUDA, or --device cpu"
        return Check("gpu", "bad" if wants else "skipped", says, "no_gpu", advice)
    devices = []
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        devices.append(f"{torch.cuda.get_device_name(index)}, {_gigabytes(free)} of {_gigabytes(total)} free")
    return Check("gpu", "good", "; ".join(devices))


def _model(settings: Settings) -> tuple[Path | None, Check]:
    try:
        folder = resolve_checkpoint(settings.model, settings.revision)
        damaged = [check for check in check_files(folder) if check.problem]
        if damaged:
            says = "; ".join(f"{check.file.name}: {check.problem}" for check in damaged)
            return None, Check("model", "bad", says, "damaged", "copy the folder again, or `rerankd models download`")
        found = Checkpoint.open(settings.model, settings.revision, settings.template)
    except ConfigurationError as error:
        return None, Check("model", "bad", error.message, "no_model", "`rerankd models list` names what is here")
    size = sum(check.bytes for check in check_files(folder))
    says = (
        f"{settings.model}: {_gigabytes(size)} whole, template {found.template.name}, fingerprint {found.fingerprint}"
    )
    return folder, Check("model", "good", says)


def _engine(settings: Settings, folder: Path) -> tuple[str, Check]:
    """Which engine runs the model, and with which kernels."""
    try:
        engine = choose_engine(folder) if settings.engine == "auto" else settings.engine
    except ConfigurationError as error:
        return "", Check("engine", "bad", error.message, "no_engine", "pip install 'rerankd[torch]'")
    if engine != "native" or settings.device.startswith("cuda"):
        return engine, Check("engine", "good", engine)
    from rerankd.engine.native.cpu.library import KernelsUnavailable, load_kernels

    try:
        isa = load_kernels().isa
    except KernelsUnavailable as error:
        says = f"native, on torch alone: {error}"
        advice = "it may take twice the time: install the wheel for this platform, or `make kernels`"
        return engine, Check("engine", "warning", says, "no_kernels", advice)
    return engine, Check("engine", "good", f"native, with C kernels for {isa}")


def _memory(settings: Settings, folder: Path, engine: str) -> Check:
    weights = _weights(folder, settings.dtype)
    if not weights:
        return Check("memory", "skipped", "the size of the weights is not known: they are not in safetensors")
    needed = weights + _PASS_BYTES + (_ONNX_BYTES if engine == "onnx" else _TORCH_BYTES)
    there = available_bytes()
    if there is None:
        return Check("memory", "skipped", f"about {_gigabytes(needed)} are needed; what is there is not known")
    says = f"about {_gigabytes(needed)} are needed in {settings.dtype}, {_gigabytes(there)} are there"
    if needed > there:
        return Check(
            "memory",
            "bad",
            says,
            "too_little_memory",
            "a smaller model, --dtype int8, or a higher limit of the container",
        )
    return Check("memory", "good", f"{says} (limits of containers counted)")


def _weights(folder: Path, dtype: str) -> float:
    """Bytes of the weights in memory; ``auto`` keeps them as they are stored."""
    total = 0.0
    for file in folder.glob("*.safetensors"):
        if dtype == "auto":
            total += file.stat().st_size
            continue
        for row in safetensors_header(file).values():
            shape = row.get("shape")
            total += _BYTES[dtype] * math.prod(shape) if isinstance(shape, list) else 0
    return total


def _port(settings: Settings) -> Check:
    host, port = settings.host, settings.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        if sys.platform != "win32":
            # As the server itself does: a port in TIME_WAIT is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            says = f"{host}:{port} cannot be had: {error.strerror}"
            return Check("port", "bad", says, "port_taken", "end what listens there, or --port names another")
    return Check("port", "good", f"{host}:{port} is free")


def _redis(settings: Settings) -> Iterator[Check]:
    addresses = {"cache": settings.cache, "rate_limit_store": settings.rate_limit_store}
    for name, url in addresses.items():
        if url.startswith(REDIS_SCHEMES):
            yield _one_redis(name, url)
    if not any(url.startswith(REDIS_SCHEMES) for url in addresses.values()):
        yield Check("redis", "skipped", "no setting names one")


def _one_redis(name: str, url: str) -> Check:
    try:
        from rerankd.resilience.redis import check_connection, without_secret
    except ModuleNotFoundError:
        return Check("redis", "bad", "the package redis is not installed", "no_redis", "pip install 'rerankd[redis]'")
    try:
        asyncio.run(check_connection(url))
    except ConfigurationError as error:
        return Check("redis", "bad", f"{name}: {error.message}", "no_redis", "start it, or correct its address")
    return Check("redis", "good", f"{name}: {without_secret(url)} answers")


def _gigabytes(count: float) -> str:
    return f"{count / 1e9:.2f} GB"
