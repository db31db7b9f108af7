"""The number formats of a model in memory and in computation, and why they were chosen."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Precision:
    """Four dtypes of one forward pass.

    Attributes:
        name: the setting's value, such as ``bfloat16``.
        weight_dtype: of the matrices in memory.
        activation_dtype: of what a GEMM multiplies them by.
        compute_dtype: of what comes out of a GEMM, of queries, keys and values.
        residual_dtype: of the sum that runs through all layers.
        reason: for the log: what was chosen and why.
    """

    name: str
    weight_dtype: torch.dtype
    activation_dtype: torch.dtype
    compute_dtype: torch.dtype
    residual_dtype: torch.dtype
    reason: str
