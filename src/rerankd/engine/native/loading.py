"""Weights as the model wants them: fused, in the number format of the computation, on its device."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from rerankd.engine.base import HeadSpec
from rerankd.engine.native.config import ModelConfig
from rerankd.engine.native.fp8 import FP8, Fp8Linear
from rerankd.engine.native.linear import DenseLinear, Int8Linear, Linear, MappedLinear
from rerankd.engine.native.numbers import Numbers
from rerankd.engine.native.weights import WeightFiles
from rerankd.errors import ConfigurationError


class Loader:
    """Reads one checkpoint; ``parameters`` counts what was read."""

    def __init__(self, config: ModelConfig, files: WeightFiles, numbers: Numbers, device: torch.device) -> None:
        self.dtype = numbers.rows
        self.device = device
        self.parameters = 0
        self._config = config
        self._files = files
        self._weights = numbers.weights

    def vector(self, name: str, size: int) -> torch.Tensor:
        """A norm's weight, float32 (size,)."""
        return self._read(name, size).to(self.device, torch.float32)

    def head_norm(self, attention: str) -> torch.Tensor:
        """The norms of queries and keys, float32 (heads + kv_heads, head_dim)."""
        config = self._config
        query = self.vector(f"{attention}.q_norm.weight", config.head_dim)
        key = self.vector(f"{attention}.k_norm.weight", config.head_dim)
        return torch.cat([query.expand(config.heads, -1), key.expand(config.kv_heads, -1)])

    def embedding(self) -> torch.Tensor:
        """(vocabulary, hidden). On a CPU it stays in the file, in the file's format: only the rows used are read."""
        weight = self._read("model.embed_tokens.weight", self._config.vocabulary, self._config.hidden)
        return weight if self.device.type == "cpu" else weight.to(self.device, self.dtype)

    def linear(self, parts: Mapping[str, int], size: int, *, bias: bool = False) -> Linear:
        """The product with matrices (out, ``size``) that share their input, results side by side."""
        weights = [self._read(f"{name}.weight", out, size) for name, out in parts.items()]
        added = torch.cat([self.vector(f"{name}.bias", out) for name, out in parts.items()]) if bias else None
        added = None if added is None else added.to(self.dtype)
        if self._weights == torch.int8:
            return Int8Linear(torch.cat(weights), added)
        if self._weights == FP8:
            return Fp8Linear(torch.cat([weight.to(self.device) for weight in weights]), added)
        if self.device.type == "cpu" and all(weight.dtype == self._weights for weight in weights):
            return MappedLinear(weights, added)
        fused = torch.cat([weight.to(self.device, self._weights) for weight in weights])
        return DenseLinear(fused, added) if self._weights == self.dtype else MappedLinear([fused], added)

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
