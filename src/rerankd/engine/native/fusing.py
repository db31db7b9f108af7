"""Small pieces of the network made into one kernel each, where the device and the machine can."""

from __future__ import annotations

import importlib.util
import os
import shutil
import warnings
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
T = TypeVar("T")


def fused(function: Callable[P, T], device: torch.device) -> Callable[P, T]:
    """``function``, compiled for CUDA; as it stands where nothing can compile it.

    Compiled first for the sizes it meets, then, where a size changes, for any: after two batches of a kind
    (:func:`~rerankd.engine.native.packing.kinds`) nothing is compiled any more.
    """
    if not can_fuse(device):
        return function
    from torch._inductor import config

    # For a handful of small kernels torch would start a pool of processes that stay.
    config.compile_threads = 1
    # A hint about float32 products, of which these functions have none.
    warnings.filterwarnings("ignore", "TensorFloat32 tensor cores", UserWarning)
    return torch.compile(function)


def can_fuse(device: torch.device) -> bool:
    """Whether kernels can be made for ``device``: torch's compiler needs Triton, and Triton a C compiler."""
    has_compiler = any(map(shutil.which, (os.environ.get("CC", "cc"), "gcc", "clang")))
    return device.type == "cuda" and has_compiler and importlib.util.find_spec("triton") is not None
