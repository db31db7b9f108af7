"""Weights as the model wants them: fused, in the number format of the computation, on its device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from rerankd.engine.base import HeadSpec
from rerankd.engine.native.config import ModelConfig
from rerankd.engine.native.fp8 import Fp8Linear
from rerankd.engine.native.kernels import Kernels
from rerankd.engine.native.layers import FP8, Activations, Pieces
from rerankd.engine.native.linear import (
    DenseLinear,
    FusedLinear,
    Int8Linear,
    Linear,
    WidenedLinear,
    side_by_side,
)
from rerankd.engine.native.numbers import Numbers
from rerankd.engine.native.tiled import (
    TiledLinear,
    finely_rounded,
    fits_tiles,
    gated_in_place,
    gated_rounded,
    in_place,
    rounded,
)
from rerankd.engine.native.weights import WeightFiles
from rerankd.errors import ConfigurationError


class Loader:
    """Reads one checkpoint; ``parameters`` counts what was read."""

    def __init__(
        self,
        config: ModelConfig,
        files: WeightFiles,
        numbers: Numbers,
        device: torch.device,
        kernels: Kernels | None = None,
    ) -> None:
        self.numbers = numbers
        self.device = device
        self.parameters = 0
        self._config = config
        self._files = files
        self._kernels = kernels

    def vector(self, name: str, size: int) -> torch.Tensor:
        """A norm's weight, float32 (size,)."""
        return self._read(name, size).to(self.device, torch.float32)

    def head_norm(self, name: str, heads: int) -> torch.Tensor | None:
        """The norm of each head, float32 (heads, head_dim); None in families that have none."""
        config = self._config
        if not config.family.qk_norm:
            return None
        return self.vector(f"{name}.weight", config.head_dim).expand(heads, -1).contiguous()

    def embedding(self) -> torch.Tensor:
        """(vocabulary, hidden). In the file's format; on a CPU it stays in the file: only the rows used are read."""
        weight = self._read("model.embed_tokens.weight", self._config.vocabulary, self._config.hidden)
        return weight.to(self.device)

    def linear(
        self, parts: Mapping[str, int], size: int, *, bias: bool = False, whole: bool = False, fine: int = 0
    ) -> Linear:
        """The products with matrices (out, ``size``) that share their input.

        Where others are kept in eight bits, ``whole`` ones are not, and the last ``fine`` ones in twice eight.
        """
        numbers = self.numbers
        weights: Sequence[torch.Tensor]
        weights = [self._read(f"{name}.weight", out, size) for name, out in parts.items()]
        biases = [self.vector(f"{name}.bias", out).to(numbers.rows) for name, out in parts.items()] if bias else None
        eight = numbers.weights in (torch.int8, FP8) and not whole
        if eight and numbers.weights == FP8:
            return Fp8Linear([weight.to(self.device) for weight in weights], numbers.rows, biases)
        if not eight:
            weights = self._kept(weights)
        if self._kernels and fits_tiles(self._kernels, weights, numbers.rows, in_eight_bits=eight):
            exact = len(weights) - fine
            panels = [*map(rounded, weights[:exact]), *map(finely_rounded, weights[exact:])]
            return TiledLinear(self._kernels, panels if eight else [*map(in_place, weights)], numbers.rows, biases)
        if eight:
            return _in_int8(weights, numbers.rows, biases, fine)
        if self.device.type != "cpu":
            return FusedLinear(weights, biases)
        as_computed = all(weight.dtype == numbers.rows for weight in weights)
        return (DenseLinear if as_computed else WidenedLinear)(weights, biases)

    def gated(self, gate: str, up: str, width: int, size: int, pieces: Pieces) -> Linear:
        """The first half of the MLP, silu(gate) * up, (rows, ``width``), for the product behind it."""
        numbers = self.numbers
        if self._kernels:
            eight = numbers.weights == torch.int8
            stored = [self._files.tensor(f"{name}.weight", width, size) for name in (gate, up)]
            weights = stored if eight else self._kept(stored)
            if fits_tiles(self._kernels, weights, numbers.rows, in_eight_bits=eight):
                self.parameters += sum(weight.numel() for weight in weights)
                panels = (gated_rounded if eight else gated_in_place)(*weights)
                return TiledLinear(self._kernels, [panels], numbers.rows)
        both = self.linear({gate: width, up: width}, size)

        def gated(rows: Activations) -> Sequence[Activations]:
            left, right = both(rows)
            return [pieces.gate(left, right, numbers.inputs)]

        return gated

    def _kept(self, weights: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
        """Matrices that are not in eight bits, as they stay: in the file, or in the format of the computation."""
        numbers = self.numbers
        if numbers.weights == torch.int8 or (self._kernels and fits_tiles(self._kernels, weights, numbers.rows)):
            return weights
        kept = numbers.rows if numbers.weights == FP8 else numbers.weights
        return [weight.to(self.device, kept) for weight in weights]

    def head(self, spec: HeadSpec) -> torch.Tensor:
        """What the last hidden state is multiplied with, float32 (hidden,).

        For words it is the difference of two rows of the output matrix: the score needs logit(yes) -
        logit(no), not 151,669 logits.
        """
        config = self._config
        if config.classifier:
            return self._read("score.weight", 1, config.hidden)[0].to(self.device, torch.float32)
        if spec.kind == "linear" or spec.positive is None:
            raise ConfigurationError(
                f"the template wants a `score.weight`, which {config.architecture} does not have"
            )
        name = "model.embed_tokens.weight" if config.tied else "lm_head.weight"
        matrix = self._files.tensor(name, config.vocabulary, config.hidden)
        head = matrix[spec.positive].float()
        if spec.negative is not None:
            head = head - matrix[spec.negative].float()
        return head.to(self.device)

    def _read(self, name: str, *shape: int) -> torch.Tensor:
        tensor = self._files.tensor(name, *shape)
        self.parameters += tensor.numel()
        return tensor


def _in_int8(
    weights: Sequence[torch.Tensor], rows: torch.dtype, biases: Sequence[torch.Tensor] | None, fine: int
) -> Linear:
    if not fine:
        return Int8Linear(weights, rows, biases)
    first = Int8Linear(weights[:-fine], rows, biases[:-fine] if biases else None)
    return side_by_side(first, Int8Linear(weights[-fine:], rows, biases[-fine:] if biases else None, fine=True))
