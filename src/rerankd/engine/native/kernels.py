"""The C kernels: built once with the machine's own compiler, kept in the user's cache, loaded with ctypes.

They are an extra, never a need: without a compiler, or where a kernel does not give what torch gives, the engine runs
on `TorchPieces` and says so in its log line.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import torch

from rerankd.engine.native.layers import Activations, Angles, Pieces, TorchPieces

_SOURCES = ("kernels.c", "attention.c", "products.c")
_HEADERS = ("tiles.h",)
_FLAGS = (
    "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-fPIC", "-shared", "-lm",
)  # fmt: skip
_WIDE = "-mprefer-vector-width=512"
_KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.uint8: 2}
_BUILD_SECONDS = 60
MOST_WIDTH = 32_768
"""Numbers of a row that the kernels hold at a time ..."""
MOST_HEAD = 1024
"""... and of a head."""

_POINTER, _FLOAT, _LONG, _INT = ctypes.c_void_p, ctypes.c_float, ctypes.c_int64, ctypes.c_int
_SIGNATURES = {
    "rerankd_norm": [
        _POINTER, _POINTER, _INT, _POINTER, _POINTER, _FLOAT, _POINTER, _INT, _POINTER, _LONG, _LONG, _INT,
    ],
    "rerankd_turn": [
        _POINTER, _LONG, _POINTER, _INT, _POINTER, _LONG, _LONG, _LONG, _POINTER, _FLOAT, _POINTER, _POINTER, _INT,
    ],
    "rerankd_gate": [
        _POINTER, _POINTER, _LONG, _INT, _POINTER, _POINTER, _INT, _POINTER, _LONG, _LONG, _INT,
    ],
    "rerankd_product": [_POINTER, _LONG, _LONG, _POINTER, _LONG, _POINTER, _LONG, _POINTER, _INT],
    "rerankd_attend": [
        *[_POINTER] * 4, _LONG, _LONG, _LONG, _POINTER, _POINTER, _LONG, _POINTER, _LONG, _LONG, _POINTER, _POINTER,
        _INT,
    ],
}  # fmt: skip


class Kernels:
    """The built library. Tensors are on the CPU; rows are contiguous but for what a product gave, which may be a
    slice of wider rows."""

    def __init__(self, library: ctypes.CDLL) -> None:
        for name, arguments in _SIGNATURES.items():
            getattr(library, name).argtypes = arguments
            getattr(library, name).restype = None
        self.library = library
        self.has_tiles = library.rerankd_attention_ready() == 0
        """Whether attention and products run here too: AMX tiles, lent by the system."""

    def norm(
        self, rows: torch.Tensor, added: Activations | None, weight: torch.Tensor, eps: float, dtype: torch.dtype
    ) -> Activations:
        out = _empty(rows.shape, dtype)
        added = added or Activations(rows.new_empty(0))
        self.library.rerankd_norm(
            rows.data_ptr(), added.values.data_ptr() or None, _KINDS[added.values.dtype], _at(added.scales),
            weight.data_ptr(), eps, out.values.data_ptr(), _KINDS[dtype], _at(out.scales), *rows.shape, _threads(),
        )  # fmt: skip
        return out

    def turn(
        self, heads: Activations, weight: torch.Tensor | None, eps: float, angles: Angles, out: torch.Tensor
    ) -> None:
        cosines, sines = angles
        self.library.rerankd_turn(
            heads.values.data_ptr(), heads.values.stride(0), out.data_ptr(), _KINDS[out.dtype], _at(heads.scales),
            *heads.values.shape, _at(weight), eps, cosines.data_ptr(), sines.data_ptr(), _threads(),
        )  # fmt: skip

    def gate(self, gate: Activations, up: Activations, dtype: torch.dtype) -> Activations:
        out = _empty(gate.values.shape, dtype)
        self.library.rerankd_gate(
            gate.values.data_ptr(), up.values.data_ptr(), gate.values.stride(0), _KINDS[gate.values.dtype],
            _at(gate.scales), out.values.data_ptr(), _KINDS[dtype], _at(out.scales), *gate.values.shape, _threads(),
        )  # fmt: skip
        return out

    def product(self, rows: torch.Tensor, weight: torch.Tensor, out: torch.Tensor, room: torch.Tensor) -> None:
        """Float32 rows (n, in) times bfloat16 weights (out, in), to float32's last bits, into ``out`` (n, out), which
        may be a slice of wider rows; ``room`` from `room_for`. Needs tiles."""
        self.library.rerankd_product(
            rows.data_ptr(), *rows.shape, weight.data_ptr(), len(weight), out.data_ptr(), out.stride(0),
            room.data_ptr(), _threads(),
        )  # fmt: skip

    def room_for(self, rows: torch.Tensor) -> torch.Tensor:
        """Where `product` puts the rows: three terms of each number, in whole blocks of 32 rows."""
        return torch.empty(-(-len(rows) // 32) * 32 * 3 * rows.shape[1], dtype=torch.bfloat16)


def _empty(shape: torch.Size, dtype: torch.dtype) -> Activations:
    scales = torch.empty(shape[0]) if dtype == torch.uint8 else None
    return Activations(torch.empty(shape, dtype=dtype), scales)


def _at(tensor: torch.Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _threads() -> int:
    return torch.get_num_threads()


@cache
def kernels() -> Kernels | None:
    """The kernels, built where they are not yet; None where there is no compiler or what it builds is not right."""
    library = _built()
    if library is None:
        return None
    try:
        found = Kernels(ctypes.CDLL(str(library)))
    except (OSError, AttributeError):
        return None
    return found if _agrees(found) else None


def _built() -> Path | None:
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    sources = [Path(__file__).with_name(name) for name in _SOURCES]
    wide = [_WIDE] if platform.machine() in ("x86_64", "AMD64") else []
    command = [compiler, *_FLAGS, *wide]
    texts = [Path(__file__).with_name(name).read_text(encoding="utf-8") for name in (*_SOURCES, *_HEADERS)]
    key = hashlib.sha256("\0".join([*command, _processor(), *texts]).encode())
    try:
        folder = _folder()
        target = folder / f"kernels-{key.hexdigest()[:32]}.so"
        if not target.exists():
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                built = Path(scratch) / target.name
                call = [*command, *map(str, sources), "-o", str(built)]
                subprocess.run(call, check=True, capture_output=True, timeout=_BUILD_SECONDS)  # noqa: S603
                built.replace(target)
    except (OSError, subprocess.SubprocessError):
        return None
    return target


def _folder() -> Path:
    """A folder that nobody else can write to: what lies in it is run."""
    folder = Path.home() / ".cache" / "rerankd" / "kernels"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    status = folder.stat()
    if status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise PermissionError(f"{folder} can be written by others")
    return folder


def _processor() -> str:
    """What tells one kind of processor from another: the cache may be shared by machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())


def _agrees(found: Kernels) -> bool:
    """Whether the kernels give what torch gives, on small random rows: a compiler is not to be trusted blindly."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    rows, added, weight, heads, angles = random(3, 64), random(3, 64), random(64), random(3, 2, 32), random(3, 16)
    turns = (angles.cos(), angles.sin())
    results = []
    pieces: Pieces
    for pieces in (found, TorchPieces()):
        turned = torch.empty(3, 2, 32)
        pieces.turn(Activations(heads), weight.view(2, 32), 1e-6, turns, turned)
        normed = pieces.norm(rows.clone(), Activations(added), weight, 1e-6, torch.float32).values
        gated = pieces.gate(Activations(rows.clone()), Activations(added), torch.float32).values
        results.append(torch.cat([turned.flatten(), normed.flatten(), gated.flatten()]))
    return bool(torch.allclose(results[0], results[1], rtol=1e-5, atol=1e-5))
