"""What lies between the products, one compiled kernel each, for CUDA."""

from __future__ import annotations

import importlib.util
import os
import shutil
import warnings
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

from rerankd.engine.native.layers import Activations, Angles, TorchPieces, rms_norm

P = ParamSpec("P")
T = TypeVar("T")


def can_compile(device: torch.device) -> bool:
    """Whether kernels can be made for ``device``: torch's compiler needs Triton, and Triton a C compiler."""
    has_compiler = any(map(shutil.which, (os.environ.get("CC", "cc"), "gcc", "clang")))
    return device.type == "cuda" and has_compiler and importlib.util.find_spec("triton") is not None


def compiled(function: Callable[P, T]) -> Callable[P, T]:
    """``function`` as one kernel: first for the sizes it meets, then, where a size changes, for any.

    After the batches of :func:`~rerankd.engine.native.packing.kinds` nothing is compiled any more.
    """
    from torch._inductor import config

    # For a handful of small kernels torch would start a pool of processes that stay.
    config.compile_threads = 1
    # A hint about float32 products, of which these functions have none.
    warnings.filterwarnings("ignore", "TensorFloat32 tensor cores", UserWarning)
    return torch.compile(function, fullgraph=True)


class CompiledPieces:
    """`TorchPieces`, compiled."""

    def __init__(self) -> None:
        self._norm = compiled(_norm)
        self._turn = compiled(_turn)
        self._gate = compiled(_gate)

    def norm(
        self, rows: torch.Tensor, added: Activations | None, weight: torch.Tensor, eps: float, dtype: torch.dtype
    ) -> Activations:
        return Activations(*self._norm(rows, None if added is None else added.values, weight, eps, dtype))

    def turn(
        self, heads: Activations, weight: torch.Tensor | None, eps: float, angles: Angles, out: torch.Tensor
    ) -> None:
        self._turn(heads.values, weight, eps, *angles, out)

    def gate(self, gate: Activations, up: Activations, dtype: torch.dtype) -> Activations:
        return Activations(*self._gate(gate.values, up.values, dtype))


_PIECES = TorchPieces()
_Result = tuple[torch.Tensor, torch.Tensor | None]


def _norm(
    rows: torch.Tensor, added: torch.Tensor | None, weight: torch.Tensor, eps: float, dtype: torch.dtype
) -> _Result:
    normed = _PIECES.norm(rows, None if added is None else Activations(added), weight, eps, dtype)
    return normed.values, normed.scales


def _turn(
    heads: torch.Tensor,
    weight: torch.Tensor | None,
    eps: float,
    cosines: torch.Tensor,
    sines: torch.Tensor,
    out: torch.Tensor,
) -> None:
    # Not as `TorchPieces` does it, in place by halves: the compiler cannot follow that.
    wide = heads.float()
    if weight is not None:
        wide = rms_norm(wide, weight, eps)
    left, right = wide.chunk(2, dim=-1)
    cosines, sines = cosines.unsqueeze(1), sines.unsqueeze(1)
    out.copy_(torch.cat((left * cosines - right * sines, right * cosines + left * sines), dim=-1))


def _gate(gate: torch.Tensor, up: torch.Tensor, dtype: torch.dtype) -> _Result:
    gated = _PIECES.gate(Activations(gate), Activations(up), dtype)
    return gated.values, gated.scales
