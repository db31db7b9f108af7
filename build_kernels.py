"""Compile the C kernels into one shared library, in the package folder: ``python build_kernels.py``.

The wheel's build hook (``hatch_build.py``) calls this, and so do ``make`` and the tests of a source tree. It needs
the standard library alone: it runs where nothing is installed yet.

Every source file is compiled once for each instruction set that it has code for, each time with the flags of that set
alone, so that one library serves every processor of an architecture; which code runs is decided when the library is
loaded (``engine/native/cpu/library.py``). A new instruction set is a row of `ISA_FLAGS` and a name in `SOURCES`.

Environment: ``CC`` is the compiler, ``gcc`` or ``cc`` by default.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

FOLDER = Path(__file__).parent / "src/rerankd/engine/native/cpu"
CSRC = FOLDER / "csrc"
LIBRARY = FOLDER / "librerankd_kernels.so"

_AVX2 = ("-mavx2", "-mfma", "-mbmi", "-mbmi2")
# Tuned as measured: for generic processors compilers spill to vector registers, amid the loops over tiles.
_AVX512_TUNING = ("-mprefer-vector-width=512", "-mtune=skylake-avx512")
_AVX512 = (*_AVX2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", *_AVX512_TUNING)
_AVX512_BF16 = (*_AVX512, "-mavx512bf16")
ISA_FLAGS = {
    "baseline": (),  # what every processor of the architecture runs
    "avx2": _AVX2,
    "avx512": _AVX512,
    "avx512_bf16": _AVX512_BF16,
    "amx": (*_AVX512_BF16, "-mamx-tile", "-mamx-bf16", "-mamx-int8"),
    "neon": (),  # part of AArch64
}
"""Compiler flags of each instruction set. ``cpu_features.c`` says which of them a processor has."""

ARCHITECTURES = {"x86_64": ("baseline", "avx2", "avx512", "avx512_bf16", "amx"), "aarch64": ("neon",)}
"""Instruction sets of an architecture; of others the baseline alone."""

SOURCES = {
    "gemm_amx.c": ("amx",),
    "elementwise.c": ("avx512_bf16", "avx512", "avx2", "baseline", "neon"),
    "gemm_avx2.c": ("avx2",),
    "attention_amx_bf16.c": ("amx",),
    "attention_f32.c": ("avx512", "avx2", "baseline", "neon"),
}
"""Instruction sets that a source file has code for; what takes longest to compile comes first."""

# OpenMP's pragmas are compiled, but no OpenMP runtime is linked: the kernels use the one that torch has loaded.
COMPILE_FLAGS = (
    "-std=gnu11", "-O3", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-fPIC", "-fvisibility=hidden",
)  # fmt: skip
_SECONDS = 120


class BuildError(Exception):
    """There is no compiler, or it cannot compile the kernels."""


def build(target: Path = LIBRARY, compiler: str | None = None, flags: Sequence[str] = ()) -> Path:
    """Compile and link everything into ``target``, which is replaced when all of it is there.

    Args:
        flags: more of them, for the compiler and for the linker.

    Raises:
        BuildError: with the compiler's own words.
    """
    compiler = compiler or _find_compiler()
    isas = supported_isas(compiler)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch, ThreadPoolExecutor(os.cpu_count()) as pool:
        units = [(CSRC / "cpu_features.c", isas[0])]
        units += [(CSRC / name, isa) for name, has in SOURCES.items() for isa in has if isa in isas]
        objects = [Path(scratch) / f"{source.stem}-{isa}.o" for source, isa in units]
        jobs = [
            pool.submit(_run, compile_command(compiler, source, isa, ["-c", *flags, "-o", str(built)]))
            for (source, isa), built in zip(units, objects, strict=True)
        ]
        for job in jobs:
            job.result()
        library = Path(scratch) / target.name
        _run([compiler, "-shared", *flags, *map(str, objects), "-lm", "-o", str(library)])
        library.replace(target)
    return target


def supported_isas(compiler: str) -> list[str]:
    """The instruction sets of the compiler's target, without those that it is too old for."""
    architecture = _run([compiler, "-dumpmachine"]).split("-")[0].strip()
    first, *others = ARCHITECTURES.get(architecture, ("baseline",))
    return [first, *(isa for isa in others if _accepts(compiler, isa))]


def _accepts(compiler: str, isa: str) -> bool:
    command = [compiler, *ISA_FLAGS[isa], "-x", "c", "-E", os.devnull]
    return subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False).returncode == 0  # noqa: S603


def compile_command(compiler: str, source: Path, isa: str, rest: Sequence[str]) -> list[str]:
    """The compiler's command line for one source file and instruction set."""
    return [compiler, *COMPILE_FLAGS, *ISA_FLAGS[isa], f"-DKERNEL_ISA={isa}", str(source), *rest]


def build_if_stale() -> Path:
    """The library of this source tree, compiled again where a source is newer."""
    if not LIBRARY.exists() or LIBRARY.stat().st_mtime < max(file.stat().st_mtime for file in _inputs()):
        build()
    return LIBRARY


def _inputs() -> Iterator[Path]:
    yield Path(__file__)
    yield from CSRC.iterdir()


def _find_compiler() -> str:
    for name in (os.environ.get("CC"), "gcc", "cc"):
        if name and (found := shutil.which(name)):
            return found
    raise BuildError("there is no C compiler: neither $CC nor gcc nor cc")


def _run(command: Sequence[str]) -> str:
    try:
        run = subprocess.run(command, check=True, capture_output=True, text=True, timeout=_SECONDS)  # noqa: S603
    except subprocess.CalledProcessError as error:
        raise BuildError(f"{' '.join(command)}:\n{error.stderr}") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"{' '.join(command)}: {error}") from None
    return run.stdout


if __name__ == "__main__":
    try:
        print(build())
    except BuildError as error:
        sys.exit(str(error))
