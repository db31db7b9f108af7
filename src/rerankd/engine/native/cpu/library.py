"""The C kernels: built once with the machine's own compiler, kept in the user's cache, loaded with ctypes.

They are an extra, never a need: without a compiler, or where a kernel does not give what torch gives
(``selftest.py``), the engine runs on torch alone and says so in its log line.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from rerankd.engine.native.activations import AmxPackedActivations, LinearInput, QuantizedTensor
from rerankd.engine.native.ops import CosSin

_CSRC = Path(__file__).with_name("csrc")
_SOURCES = ("elementwise.c", "attention_amx_bf16.c", "attention_f32.c", "gemm_amx.c", "gemm_avx2.c")
_HEADERS = ("fast_exp.h", "attention.h", "gemm_pack.h", "amx_tiles.h")
_FLAGS = (
    "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-fPIC", "-shared", "-lm",
)  # fmt: skip
_WIDE = "-mprefer-vector-width=512"
_KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.uint8: 2, torch.int8: 2}
_BUILD_SECONDS = 60
MAX_WIDTH = 32_768
"""Numbers of a row that the kernels hold at a time ..."""
MAX_HEAD_DIM = 1024
"""... and of a head."""

Table: TypeAlias = NDArray[np.int64]

_POINTER, _FLOAT, _LONG, _INT = ctypes.c_void_p, ctypes.c_float, ctypes.c_int64, ctypes.c_int
_SIGNATURES = {
    "rerankd_norm": [
        _POINTER, _POINTER, _INT, _POINTER, _POINTER, _FLOAT, _POINTER, _INT, _INT, _POINTER, _LONG, _LONG, _INT,
    ],
    "rerankd_turn": [
        _POINTER, _LONG, _POINTER, _INT, _POINTER, _LONG, _LONG, _LONG, _POINTER, _FLOAT, _POINTER, _POINTER, _INT,
    ],
    "rerankd_gate": [
        _POINTER, _POINTER, _LONG, _INT, _POINTER, _POINTER, _INT, _POINTER, _LONG, _LONG, _INT,
    ],
    "rerankd_pack": [_POINTER, _INT, _POINTER, _INT, _POINTER, _LONG, _LONG, _INT],
    "rerankd_product": [
        _POINTER, _LONG, _LONG, _INT, _POINTER, _POINTER, _LONG, _LONG, _INT, _POINTER, _POINTER, _POINTER, _POINTER,
        _LONG, _INT, _INT,
    ],
    "rerankd_vector_product": [_POINTER, _LONG, _LONG, _POINTER, _INT, _LONG, _POINTER, _POINTER, _LONG, _INT],
    "rerankd_attend": [
        *[_POINTER] * 4, _LONG, _LONG, _LONG, _POINTER, _POINTER, _LONG, _POINTER, _LONG, _LONG, _POINTER, _POINTER,
        _INT,
    ],
    "rerankd_attend_wide": [
        *[_POINTER] * 4, _LONG, _LONG, _LONG, _POINTER, _POINTER, _LONG, _POINTER, _LONG, _POINTER, _INT,
    ],
}  # fmt: skip


class Epilogue(IntEnum):
    """What becomes of the two tiles a and b of a panel of weights."""

    NONE = 0
    """Outputs side by side."""
    SILU_MUL = 1
    """silu(a) * b; but for eight bits, packed as the rows of another product."""
    SUM = 2
    """a + b; of eight-bit weights alone."""


@dataclass(frozen=True, slots=True)
class PackedWeight:
    """Weights as tiles take them: in panels of two tiles, of sixteen outputs each.

    Attributes:
        left, right: where the first panel's tiles begin: in bfloat16 (out, in), or both in one tensor of packed int8.
        num_panels: how many.
        panel_stride_bytes: bytes from panel to panel, in place.
        outputs: of the product.
        scales: float32 (32 * num_panels,), of int8 weights.
        zero_point_corrections: int32 (32 * num_panels,), what the middle of eight-bit rows adds to the sums.
    """

    epilogue: Epilogue
    left: torch.Tensor
    right: torch.Tensor
    num_panels: int
    panel_stride_bytes: int
    outputs: int
    scales: torch.Tensor | None = None
    zero_point_corrections: torch.Tensor | None = None


class CpuKernels:
    """The built library. Tensors are on the CPU; rows are contiguous but for what a product gave, which may be a
    slice of wider rows."""

    def __init__(self, library: ctypes.CDLL, supports_packed: bool = False) -> None:
        """``supports_packed``: norms give rows as products in tiles take them."""
        for name, arguments in _SIGNATURES.items():
            getattr(library, name).argtypes = arguments
            getattr(library, name).restype = None
        self._library = library
        self.has_amx = library.rerankd_attention_ready() == 0
        """Whether attention and products run here too: AMX tiles, lent by the system."""
        self.has_avx2 = bool(library.rerankd_has_vectors())
        """Whether `gemm` runs here: AVX2 ..."""
        self.prefers_avx2 = bool(library.rerankd_vectors_are_widest())
        """... and nothing wider."""
        self._packs = supports_packed

    def with_amx_packing(self) -> CpuKernels:
        """The same, whose norms give rows as products in tiles take them. Needs tiles."""
        return CpuKernels(self._library, supports_packed=True)

    def add_rms_norm(
        self, rows: torch.Tensor, added: QuantizedTensor | None, weight: torch.Tensor, eps: float, dtype: torch.dtype
    ) -> LinearInput:
        out: LinearInput
        if self._packs:
            out = AmxPackedActivations.empty(rows.shape, dtype)
            into = out.tiles
        else:
            out = _empty(rows.shape, dtype)
            into = out.values
        added = added or QuantizedTensor(rows.new_empty(0))
        self._library.rerankd_norm(
            rows.data_ptr(), added.values.data_ptr() or None, _KINDS[added.values.dtype], _at(added.scales),
            weight.data_ptr(), eps, into.data_ptr(), _KINDS[dtype], self._packs, _at(out.scales), *rows.shape,
            _threads(),
        )  # fmt: skip
        return out

    def qk_norm_rope(
        self, heads: QuantizedTensor, weight: torch.Tensor | None, eps: float, angles: CosSin, out: torch.Tensor
    ) -> None:
        cosines, sines = angles
        self._library.rerankd_turn(
            heads.values.data_ptr(), heads.values.stride(0), out.data_ptr(), _KINDS[out.dtype], _at(heads.scales),
            *heads.values.shape, _at(weight), eps, cosines.data_ptr(), sines.data_ptr(), _threads(),
        )  # fmt: skip

    def silu_and_mul(self, gate: QuantizedTensor, up: QuantizedTensor, dtype: torch.dtype) -> QuantizedTensor:
        out = _empty(gate.values.shape, dtype)
        self._library.rerankd_gate(
            gate.values.data_ptr(), up.values.data_ptr(), gate.values.stride(0), _KINDS[gate.values.dtype],
            _at(gate.scales), out.values.data_ptr(), _KINDS[dtype], _at(out.scales), *gate.values.shape, _threads(),
        )  # fmt: skip
        return out

    def attention(
        self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, out: torch.Tensor, room: torch.Tensor,
        sequences: Table, blocks: Table, items: Table, width: int,
    ) -> None:  # fmt: skip
        """AttentionBackend of queries (n, heads, d) among keys and values (rows, kv_heads, d), into ``out``.

        ``kernel_attention.py`` makes the tables; keys, and values in bfloat16, are packed in ``room``
        (1 or 2, blocks, kv_heads, 32, d).
        """
        tables = (sequences.ctypes.data, blocks.ctypes.data, len(blocks), items.ctypes.data, len(items))
        given = (*(tensor.data_ptr() for tensor in (queries, keys, values, out)), queries.shape[1], *keys.shape[1:])
        if queries.dtype == torch.bfloat16:
            self._library.rerankd_attend(*given, *tables, width, room[0].data_ptr(), room[1].data_ptr(), _threads())
        else:
            self._library.rerankd_attend_wide(*given, *tables, room.data_ptr(), _threads())

    def pack(self, rows: torch.Tensor, dtype: torch.dtype) -> AmxPackedActivations:
        """Rows (n, width), float32 or bfloat16, as `gemm_packed` takes them, in that format."""
        out = AmxPackedActivations.empty(rows.shape, dtype)
        self._library.rerankd_pack(
            rows.data_ptr(), _KINDS[rows.dtype], out.tiles.data_ptr(), _KINDS[dtype], _at(out.scales), *rows.shape,
            _threads(),
        )  # fmt: skip
        return out

    def gemm_packed(
        self, rows: AmxPackedActivations, weight: PackedWeight, out: torch.Tensor | AmxPackedActivations
    ) -> None:
        """Rows (n, in) times ``weight``, into ``out`` (n, out). Needs tiles.

        It is float32 for float32 rows, to float32's last bits, and bfloat16 for others.
        """
        if isinstance(out, AmxPackedActivations):
            into, apart = out.tiles, out.k_tiles
        else:
            into, apart = out, out.stride(0) * out.element_size()
        self._library.rerankd_product(
            rows.tiles.data_ptr(), rows.num_rows, rows.k_tiles, _KINDS[rows.dtype], weight.left.data_ptr(),
            weight.right.data_ptr(), weight.panel_stride_bytes, weight.num_panels, weight.epilogue,
            _at(rows.scales), _at(weight.scales), _at(weight.zero_point_corrections),
            into.data_ptr(), apart, _KINDS[out.dtype], _threads(),
        )  # fmt: skip

    def gemm(
        self, rows: torch.Tensor, weight: torch.Tensor, out: torch.Tensor, scales: torch.Tensor | None = None
    ) -> None:
        """Rows (n, in) times a weight (out, in), into ``out``, float32 (n, out). Needs vectors.

        Rows are float32 and the weight float32 or bfloat16; or rows are uint8 around `ZERO_POINT`, the weight int8,
        and what comes out is multiplied with ``scales``, float32 (out,). Both sides of a weight are multiples of 16.
        """
        outputs, width = weight.shape
        self._library.rerankd_vector_product(
            rows.data_ptr(), len(rows), width, weight.data_ptr(), _KINDS[weight.dtype], outputs, _at(scales),
            out.data_ptr(), out.stride(0), _threads(),
        )  # fmt: skip


def _empty(shape: torch.Size, dtype: torch.dtype) -> QuantizedTensor:
    scales = torch.empty(shape[0]) if dtype == torch.uint8 else None
    return QuantizedTensor(torch.empty(shape, dtype=dtype), scales)


def _at(tensor: torch.Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _threads() -> int:
    return torch.get_num_threads()


def load_kernels() -> CpuKernels | None:
    """The kernels as built by this machine's compiler; None where it has none, or none that can."""
    library = _built()
    if library is None:
        return None
    try:
        return CpuKernels(ctypes.CDLL(str(library)))
    except (OSError, AttributeError):
        return None


def _built() -> Path | None:
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    sources = [_CSRC / name for name in _SOURCES]
    wide = [_WIDE] if platform.machine() in ("x86_64", "AMD64") else []
    command = [compiler, *_FLAGS, *wide]
    texts = [(_CSRC / name).read_text(encoding="utf-8") for name in (*_SOURCES, *_HEADERS)]
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
    except (OSError, RuntimeError, subprocess.SubprocessError):  # no home, no room, no right to it, no such flag
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
