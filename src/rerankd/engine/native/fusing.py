"""Small pieces of the network made into one kernel each, where the device and the machine can."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
T = TypeVar("T")


def fused(function: Callable[P, T], device: torch.device) -> Callable[P, T]:
    """``function``, compiled for any number of rows on CUDA; as it stands where nothing can compile it."""
    return torch.compile(function, dynamic=True) if can_fuse(device) else function


def can_fuse(device: torch.device) -> bool:
    """Whether kernels can be made for ``device``: torch's compiler needs Triton, and Triton a C compiler."""
    has_compiler = any(map(shutil.which, (os.environ.get("CC", "cc"), "gcc", "clang")))
    return device.type == "cuda" and has_compiler and importlib.util.find_spec("triton") is not None
