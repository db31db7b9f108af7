"""The C kernels: a shared library in the wheel (``build_kernels.py``), loaded with ctypes.

The library has every kernel for several instruction sets, and `CpuKernels` binds the widest one that the processor
runs; ``RERANKD_CPU_ISA`` names a narrower one, for tests, or ``none``. Their OpenMP runtime is the one that torch has
loaded, so that there is one pool of threads.

They are an extra, never a need: where there are none, or where they do not give what torch gives (``selftest.py``),
the engine runs on torch alone and says why.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from rerankd.engine.native.activations import AmxPackedActivations, LinearInput, QuantizedTensor
from rerankd.engine.native.ops import CosSin
from rerankd.errors import ConfigurationError

LIBRARY: Final = Path(__file__).with_name("librerankd_kernels.so")
ISA_VARIABLE: Final = "RERANKD_CPU_ISA"
NO_KERNELS: Final = "none"
"""What `ISA_VARIABLE` says for torch alone, and what the server reports then."""
MAX_WIDTH: Final = 32_768
"""Values of a row that the kernels hold at a time ..."""
MAX_HEAD_DIM: Final = 1024
"""... and of a head."""

_ISAS = {
    "x86_64": ("baseline", "avx2", "avx512", "avx512_bf16", "amx"),
    "AMD64": ("baseline", "avx2", "avx512", "avx512_bf16", "amx"),
    "aarch64": ("neon",),
    "arm64": ("neon",),
}
"""Instruction sets of an architecture, from the narrowest to the widest; each has those before it."""
_OUT_OF_MEMORY, _UNSUPPORTED = 1, 2
_DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.uint8: 2, torch.int8: 2}

Table: TypeAlias = NDArray[np.int64]

_POINTER, _FLOAT, _LONG, _INT = ctypes.c_void_p, ctypes.c_float, ctypes.c_int64, ctypes.c_int
_SIGNATURES = {
    "add_rms_norm": [
        _POINTER, _POINTER, _INT, _POINTER, _POINTER, _FLOAT, _POINTER, _INT, _INT, _POINTER, _LONG, _LONG, _INT,
    ],
    "qk_norm_rope": [
        _POINTER, _LONG, _POINTER, _INT, _POINTER, _LONG, _LONG, _LONG, _POINTER, _FLOAT, _POINTER, _POINTER, _INT,
    ],
    "silu_and_mul": [
        _POINTER, _POINTER, _LONG, _INT, _POINTER, _POINTER, _INT, _POINTER, _LONG, _LONG, _INT,
    ],
    "pack_activations": [_POINTER, _INT, _POINTER, _INT, _POINTER, _LONG, _LONG, _INT],
    "gemm": [_POINTER, _LONG, _LONG, _POINTER, _INT, _LONG, _POINTER, _POINTER, _LONG, _INT],
    "gemm_packed": [
        _POINTER, _LONG, _LONG, _INT, _POINTER, _POINTER, _LONG, _LONG, _INT, _POINTER, _POINTER, _POINTER, _POINTER,
        _LONG, _INT, _INT,
    ],
    "attention_f32": [
        *[_POINTER] * 4, _LONG, _LONG, _LONG, _POINTER, _POINTER, _LONG, _POINTER, _LONG, _POINTER, _INT,
    ],
    "attention_bf16": [
        *[_POINTER] * 4, _LONG, _LONG, _LONG, _POINTER, _POINTER, _LONG, _POINTER, _LONG, _LONG, _POINTER, _POINTER,
        _INT,
    ],
}  # fmt: skip
"""Arguments of each kernel, as its C source has them."""


class KernelsUnavailable(Exception):
    """There are no kernels that can be used here; the message says why."""


class Epilogue(IntEnum):
    """What `CpuKernels.gemm_packed` makes of the left and right sums, a and b, of a panel (``gemm_amx.c``)."""

    NONE = 0
    """Outputs side by side."""
    SILU_MUL = 1
    """silu(a) * b, packed as the activations of another GEMM; not packed of int8 weights."""
    SUM = 2
    """a + b; of int8 weights alone."""


@dataclass(frozen=True, slots=True)
class PackedWeight:
    """A weight (outputs, in) as B of the GEMM in AMX tiles: panels of two tiles, 16 outputs each (``gemm_amx.c``).

    Attributes:
        left, right: where the first panel's tiles begin: bfloat16 (outputs, in) in place, or both one tensor of int8
            tiles, packed.
        num_panels: how many.
        panel_stride_bytes: from panel to panel, in place.
        outputs: of the product, after the epilogue.
        scales: float32 (32 * num_panels,), of int8 weights.
        zero_point_corrections: int32 (32 * num_panels,), of int8 weights: what the zero point of the activations adds
            to the sums, 128 times the sum of an output's weights.
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
    """The kernels for one instruction set. Tensors are on the CPU; rows are contiguous but for what a GEMM gave,
    which may be a slice of wider rows.

    Every method raises MemoryError where scratch memory could not be had, and ValueError for formats or sizes that
    the kernel does not have.
    """

    def __init__(self, library: ctypes.CDLL, isa: str, packs: bool = False) -> None:
        """``packs``: norms give rows packed for `gemm_packed`."""
        self.isa = isa
        self._library = library
        self._packs = packs
        self._functions = {name: _bind(library, name, isa) for name in _SIGNATURES}
        self.has_amx = self._functions["gemm_packed"] is not None
        """Whether `gemm_packed`, `pack_activations` and attention in bfloat16 are there."""
        self.has_avx2 = self._functions["gemm"] is not None
        """Whether `gemm` is there ..."""
        self.prefers_avx2 = isa == "avx2"
        """... and the processor has nothing wider, so that it is the fastest."""

    def with_amx_packing(self) -> CpuKernels:
        """The same, whose norms give rows packed for `gemm_packed`. Needs AMX."""
        return CpuKernels(self._library, self.isa, packs=True)

    def add_rms_norm(
        self, rows: torch.Tensor, added: QuantizedTensor | None, weight: torch.Tensor, eps: float, dtype: torch.dtype
    ) -> LinearInput:
        """`FusedOps.add_rms_norm`."""
        out: LinearInput
        if self._packs:
            out = AmxPackedActivations.empty(rows.shape, dtype)
            into = out.tiles
        else:
            out = _empty(rows.shape, dtype)
            into = out.values
        added = added or QuantizedTensor(rows.new_empty(0))
        self._call(
            "add_rms_norm", rows, added.values, _DTYPES[added.values.dtype],
            added.scales, weight, eps, into, _DTYPES[dtype], self._packs,
            out.scales, *rows.shape,
        )  # fmt: skip
        return out

    def qk_norm_rope(
        self, heads: QuantizedTensor, weight: torch.Tensor | None, eps: float, angles: CosSin, out: torch.Tensor
    ) -> None:
        """`FusedOps.qk_norm_rope`."""
        cosines, sines = angles
        self._call(
            "qk_norm_rope", heads.values, heads.values.stride(0), out, _DTYPES[out.dtype],
            heads.scales, *heads.values.shape, weight, eps, cosines, sines,
        )  # fmt: skip

    def silu_and_mul(self, gate: QuantizedTensor, up: QuantizedTensor, dtype: torch.dtype) -> QuantizedTensor:
        """`FusedOps.silu_and_mul`."""
        out = _empty(gate.values.shape, dtype)
        self._call(
            "silu_and_mul", gate.values, up.values, gate.values.stride(0),
            _DTYPES[gate.values.dtype], gate.scales, out.values, _DTYPES[dtype],
            out.scales, *gate.values.shape,
        )  # fmt: skip
        return out

    def attention(
        self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, out: torch.Tensor,
        packed: torch.Tensor, sequences: Table, blocks: Table, items: Table, width: int,
    ) -> None:  # fmt: skip
        """Attention of queries (tokens, heads, d) to keys and values (rows, kv_heads, d), into ``out``.

        Args:
            packed: room for keys, and values in bfloat16, in blocks: (1 or 2, blocks, kv_heads, 32, d).
            sequences, blocks, items: the work list (``csrc/attention.h``).
            width: keys of the longest sequence, in whole blocks.
        """
        tables = (sequences.ctypes.data, blocks.ctypes.data, len(blocks), items.ctypes.data, len(items))
        given = (queries, keys, values, out, queries.shape[1], *keys.shape[1:])
        if queries.dtype == torch.bfloat16:
            self._call("attention_bf16", *given, *tables, width, packed[0], packed[1])
        else:
            self._call("attention_f32", *given, *tables, packed)

    def pack_activations(self, rows: torch.Tensor, dtype: torch.dtype) -> AmxPackedActivations:
        """Rows (tokens, width), float32 or bfloat16, as `gemm_packed` takes them, in that format."""
        out = AmxPackedActivations.empty(rows.shape, dtype)
        self._call(
            "pack_activations", rows, _DTYPES[rows.dtype], out.tiles, _DTYPES[dtype],
            out.scales, *rows.shape,
        )  # fmt: skip
        return out

    def gemm_packed(
        self, rows: AmxPackedActivations, weight: PackedWeight, out: torch.Tensor | AmxPackedActivations
    ) -> None:
        """Rows (tokens, in) times a weight, into ``out`` (tokens, outputs). Needs AMX.

        It is float32 for float32 rows, to float32's last bits, and bfloat16 for others.
        """
        if isinstance(out, AmxPackedActivations):
            into, stride = out.tiles, out.k_tiles
        else:
            into, stride = out, out.stride(0) * out.element_size()
        self._call(
            "gemm_packed", rows.tiles, rows.num_rows, rows.k_tiles, _DTYPES[rows.dtype],
            weight.left, weight.right, weight.panel_stride_bytes, weight.num_panels,
            weight.epilogue, rows.scales, weight.scales, weight.zero_point_corrections,
            into, stride, _DTYPES[out.dtype],
        )  # fmt: skip

    def gemm(
        self, rows: torch.Tensor, weight: torch.Tensor, out: torch.Tensor, scales: torch.Tensor | None = None
    ) -> None:
        """Rows (tokens, in) times a weight (outputs, in), into ``out``, float32 (tokens, outputs). Needs AVX2.

        Rows are float32 and the weight float32 or bfloat16; or rows are uint8 around the zero point, the weight int8,
        and what comes out is multiplied with ``scales``, float32 (outputs,). Both sides of the weight are multiples
        of 16.
        """
        outputs, width = weight.shape
        self._call(
            "gemm", rows, len(rows), width, weight, _DTYPES[weight.dtype], outputs,
            scales, out, out.stride(0),
        )  # fmt: skip

    def _call(self, name: str, *arguments: torch.Tensor | int | float | None) -> None:
        """Run a kernel; it takes the address of a tensor."""
        function = self._functions[name]
        values = [one.data_ptr() if isinstance(one, torch.Tensor) else one for one in arguments]
        status = _UNSUPPORTED if function is None else function(*values, torch.get_num_threads())
        if status == _OUT_OF_MEMORY:
            raise MemoryError(f"scratch memory of the kernel {name}")
        if status:
            raise ValueError(f"the kernel {name} has no code for these formats or sizes on {self.isa}")


_Function: TypeAlias = Callable[..., int]


def _bind(library: ctypes.CDLL, name: str, isa: str) -> _Function | None:
    """The kernel for ``isa``, or for the widest narrower one that has it."""
    isas = _isas()
    for candidate in reversed(isas[: isas.index(isa) + 1]):
        try:
            function = getattr(library, f"rerankd_{name}_{candidate}")
        except AttributeError:
            continue
        function.argtypes, function.restype = _SIGNATURES[name], _INT
        return function  # type: ignore[no-any-return]
    return None


def _isas() -> tuple[str, ...]:
    return _ISAS.get(platform.machine(), ("baseline",))


def _empty(shape: torch.Size, dtype: torch.dtype) -> QuantizedTensor:
    scales = torch.empty(shape[0]) if dtype == torch.uint8 else None
    return QuantizedTensor(torch.empty(shape, dtype=dtype), scales)


def usable_isas(library: ctypes.CDLL) -> list[str]:
    """What the library has and the processor and its system run, from the narrowest to the widest."""
    library.rerankd_cpu_supports.argtypes = [ctypes.c_char_p]
    built = [isa for isa in _isas() if any(hasattr(library, f"rerankd_{name}_{isa}") for name in _SIGNATURES)]
    return [isa for isa in built if library.rerankd_cpu_supports(isa.encode())]


def load_kernels(path: Path = LIBRARY) -> CpuKernels:
    """The kernels for the widest instruction set of this processor, or for the one that `ISA_VARIABLE` names.

    Raises:
        KernelsUnavailable: there is no library, or it cannot be loaded.
        ConfigurationError: `ISA_VARIABLE` names what there is not.
    """
    wanted = os.environ.get(ISA_VARIABLE, "")
    if wanted == NO_KERNELS:
        raise KernelsUnavailable(f"{ISA_VARIABLE} is {NO_KERNELS}")
    library = load_library(path)
    usable = usable_isas(library)
    if wanted and wanted not in usable:
        raise ConfigurationError(f"{ISA_VARIABLE} is {wanted!r}; here it may be {', '.join([*usable, NO_KERNELS])}")
    if not usable:
        raise KernelsUnavailable("the kernels have no code for this processor")
    return CpuKernels(library, wanted or usable[-1])


def load_library(path: Path) -> ctypes.CDLL:
    """The shared library, with torch's OpenMP runtime as its own."""
    if not path.is_file():
        raise KernelsUnavailable("rerankd was installed without kernels: there was no C compiler to build them")
    _check_whole(path)
    try:
        _share_openmp()
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise KernelsUnavailable(f"the kernels cannot be loaded: {error}") from None


def _check_whole(path: Path) -> None:
    """Refuse a file that was cut short: the loader maps it, and the first touch of what is missing is SIGBUS.

    Offsets as in ELF-64: the header's e_shoff at 40, e_shentsize and e_shnum at 58; linkers put the section headers
    last. Libraries of other systems are left to their own loaders.
    """
    with path.open("rb") as file:
        header = file.read(64)
    if header[:4] != b"\x7fELF"[: len(header)]:
        return
    if len(header) == 64:
        (sections,) = struct.unpack_from("<Q", header, 40)
        size, count = struct.unpack_from("<HH", header, 58)
        if sections + size * count <= path.stat().st_size:
            return
    raise KernelsUnavailable(f"the kernels cannot be loaded: {path.name} was cut short, install rerankd again")


class _SymbolInfo(ctypes.Structure):
    """``Dl_info`` of ``dladdr``."""

    _fields_ = [("file", ctypes.c_char_p), ("base", _POINTER), ("name", ctypes.c_char_p), ("address", _POINTER)]


def _share_openmp() -> None:
    """Let libraries that are loaded from now on find the OpenMP runtime that torch computes with.

    The kernels' library names no runtime of its own. A second one in the process would have a second pool of threads,
    which spin against the first.
    """
    try:
        # Looked up among the libraries that torch itself depends on.
        start = ctypes.CDLL(torch._C.__file__).GOMP_parallel
    except AttributeError:
        raise KernelsUnavailable("this build of torch has no OpenMP runtime that the kernels could share") from None
    info = _SymbolInfo()
    if not ctypes.CDLL(None).dladdr(ctypes.cast(start, _POINTER), ctypes.byref(info)):
        raise KernelsUnavailable("the file of torch's OpenMP runtime is not to be found")
    ctypes.CDLL(os.fsdecode(info.file), mode=ctypes.RTLD_GLOBAL)
