"""Weights as the model wants them: fused, in the number format of the computation, on its device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from rerankd.engine.base import HeadSpec
from rerankd.engine.native import tiled
from rerankd.engine.native.config import ModelConfig
from rerankd.engine.native.cpu.library import CpuKernels, PackedWeight
from rerankd.engine.native.fp8 import Fp8Linear
from rerankd.engine.native.layers import FP8, Inputs, Pieces
from rerankd.engine.native.linear import (
    LEVELS,
    DenseLinear,
    FusedLinear,
    Gate,
    Int8Linear,
    Linear,
    VectorLinear,
    WidenedLinear,
    library_levels,
    side_by_side,
)
from rerankd.engine.native.numbers import Numbers
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
        kernels: CpuKernels | None = None,
    ) -> None:
        self.numbers = numbers
        self.device = device
        self.parameters = 0
        self._config = config
        self._files = files
        self.tiles = kernels if kernels and kernels.has_amx and self._fits_tiles else None
        """What multiplies in tiles, if anything does: then all products of the layers are done there."""
        vectors = kernels if kernels and kernels.has_avx2 and self._fits_vectors else None
        self._vectors = vectors if vectors and vectors.prefers_avx2 and self._is_readable else None
        """What multiplies float32 rows in vectors, if anything does."""
        inexact = numbers.weights == torch.int8 and library_levels() < LEVELS
        self._vectors_in_int8 = vectors if inexact else None
        """What multiplies eight-bit rows in vectors, if anything does."""

    @property
    def _fits_tiles(self) -> bool:
        numbers = self.numbers
        # In float32 tiles take bfloat16 weights alone, of which all checkpoints are that have been released.
        exact = numbers.weights == torch.float32 and self._formats == {"BF16"}
        return self._is_whole(tiled.WHOLE) and (exact or numbers.rows == torch.bfloat16)

    @property
    def _fits_vectors(self) -> bool:
        return self._is_whole(VectorLinear.WHOLE) and self.numbers.rows == torch.float32

    @property
    def _is_readable(self) -> bool:
        """Whether vectors take the weights as they lie."""
        return self.numbers.weights != torch.float16 and self._formats <= {"BF16", "F32"}

    @property
    def _formats(self) -> set[str]:
        return self._files.formats("_proj.weight")

    def _is_whole(self, part: int) -> bool:
        """Whether every side of every matrix is a multiple of ``part``."""
        config = self._config
        heads = (config.heads * config.head_dim, config.kv_heads * config.head_dim)
        return not any(width % part for width in (config.hidden, config.intermediate, *heads))

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
        weights = [self._read(f"{name}.weight", out, size) for name, out in parts.items()]
        biases = [self.vector(f"{name}.bias", out).to(numbers.rows) for name, out in parts.items()] if bias else None
        if self.tiles:
            return tiled.TiledLinear(self.tiles, self._panels(weights, whole, fine), numbers.rows, biases)
        if numbers.weights == torch.int8 and not whole:
            return self._in_int8(weights, biases, fine)
        if numbers.weights == FP8 and not whole:
            return Fp8Linear([weight.to(self.device) for weight in weights], numbers.rows, biases)
        if self._vectors:
            narrow = numbers.weights == torch.bfloat16
            return VectorLinear(self._vectors, [w.bfloat16() for w in weights] if narrow else weights, biases)
        if numbers.weights != torch.int8:
            kept = numbers.rows if numbers.weights == FP8 else numbers.weights
            weights = [weight.to(self.device, kept) for weight in weights]
        if self.device.type != "cpu":
            return FusedLinear(weights, biases)
        as_computed = all(weight.dtype == numbers.rows for weight in weights)
        return (DenseLinear if as_computed else WidenedLinear)(weights, biases)

    def gated(self, gate: str, up: str, pieces: Pieces) -> Gate:
        """The first half of the MLP, from the matrices (intermediate, hidden) of these names."""
        config, numbers = self._config, self.numbers
        if self.tiles:
            weights = (self._read(f"{name}.weight", config.intermediate, config.hidden) for name in (gate, up))
            panels = tiled.gated(*weights, in_eight_bits=numbers.weights == torch.int8)
            return tiled.TiledGate(self.tiles, panels, numbers.rows)
        both = self.linear({gate: config.intermediate, up: config.intermediate}, config.hidden)

        def gated(rows: Inputs) -> Inputs:
            left, right = both(rows)
            return pieces.silu_and_mul(left, right, numbers.inputs)

        return gated

    def _in_int8(self, weights: Sequence[torch.Tensor], biases: Sequence[torch.Tensor] | None, fine: int) -> Linear:
        rows, vectors, exact = self.numbers.rows, self._vectors_in_int8, len(weights) - fine
        first = Int8Linear(weights[:exact], rows, biases[:exact] if biases else None, kernels=vectors)
        if not fine:
            return first
        rest = Int8Linear(weights[exact:], rows, biases[exact:] if biases else None, fine=True, kernels=vectors)
        return side_by_side(first, rest)

    def _panels(self, weights: Sequence[torch.Tensor], whole: bool, fine: int) -> Sequence[PackedWeight]:
        if self.numbers.weights != torch.int8 or whole:
            return [*map(tiled.in_place, weights)]
        exact = len(weights) - fine
        return [*map(tiled.rounded, weights[:exact]), *map(tiled.finely_rounded, weights[exact:])]

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
