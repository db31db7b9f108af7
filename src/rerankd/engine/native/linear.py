"""Matrix products by number format: each takes the checkpoint's (out, in) matrices that share an input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
import torch.nn.functional as F

Linear: TypeAlias = Callable[[torch.Tensor], torch.Tensor]
"""(rows, in) -> (rows, out)."""


class DenseLinear:
    """One matrix in the number format of the computation."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> None:
        self._weight = weight
        self._bias = bias

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        return F.linear(rows, self._weight, self._bias)


class MappedLinear:
    """Several matrices side by side that stay where they are, in the mapped file.

    Fusing them would copy the weights into this process; writing the products side by side costs nothing.
    """

    def __init__(self, weights: Sequence[torch.Tensor]) -> None:
        self._weights = tuple(weight.t() for weight in weights)
        self._ends = [0]
        for weight in weights:
            self._ends.append(self._ends[-1] + len(weight))

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        out = rows.new_empty(len(rows), self._ends[-1])
        for begin, weight in zip(self._ends, self._weights, strict=False):
            torch.mm(rows, weight, out=out.narrow(1, begin, weight.shape[1]))
        return out
