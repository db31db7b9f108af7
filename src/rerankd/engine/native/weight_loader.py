"""From a checkpoint's tensors to a model's layers: names, shapes, and what is fused."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from rerankd.engine.base import HeadSpec
from rerankd.engine.native.backend import Backend, GateUp, Linear
from rerankd.engine.native.config import ModelConfig
from rerankd.engine.native.safetensors_reader import SafetensorsCheckpoint
from rerankd.errors import ConfigurationError


class WeightLoader:
    """Reads one checkpoint; ``parameters`` counts what was read."""

    def __init__(self, config: ModelConfig, checkpoint: SafetensorsCheckpoint, backend: Backend) -> None:
        self.backend = backend
        self.parameters = 0
        self._config = config
        self._checkpoint = checkpoint

    def norm(self, name: str, size: int) -> torch.Tensor:
        """What an RMSNorm multiplies with, float32 (size,)."""
        return self._vector(f"{name}.weight", size) + self._config.family.norm_offset

    def head_norm(self, name: str, heads: int) -> torch.Tensor | None:
        """The norm of each head, float32 (heads, head_dim); None in families that have none."""
        if not self._config.family.qk_norm:
            return None
        return self.norm(name, self._config.head_dim).expand(heads, -1).contiguous()

    def embedding(self) -> torch.Tensor:
        """(vocabulary, hidden), in the file's format; on a CPU it stays in the file: only the rows used are read."""
        weight = self._read("model.embed_tokens.weight", self._config.vocabulary, self._config.hidden)
        return weight.to(self.backend.device)

    def linear(
        self,
        outputs: Mapping[str, int],
        size: int,
        *,
        bias: bool = False,
        keep_unquantized: bool = False,
        two_term_int8: int = 0,
    ) -> Linear:
        """The layer of the matrices (out, ``size``) of these names, which share their input; see `Backend.linear`."""
        weights = [self._read(f"{name}.weight", out, size) for name, out in outputs.items()]
        dtype = self.backend.precision.compute_dtype
        biases = [self._vector(f"{name}.bias", out).to(dtype) for name, out in outputs.items()] if bias else None
        return self.backend.linear(weights, biases, keep_unquantized=keep_unquantized, two_term_int8=two_term_int8)

    def gate_up(self, gate: str, up: str) -> GateUp:
        """The first half of the MLP, from the matrices (intermediate, hidden) of these names."""
        config = self._config
        return self.backend.gate_up(
            *(self._read(f"{name}.weight", config.intermediate, config.hidden) for name in (gate, up))
        )

    def head(self, spec: HeadSpec) -> torch.Tensor:
        """What the last hidden state is multiplied with, float32 (hidden,).

        For words it is the difference of two rows of the output matrix: the score needs logit(yes) - logit(no), not
        151,669 logits.

        Raises:
            ConfigurationError: the template asks for another head than the checkpoint has.
        """
        config = self._config
        if config.classifier:
            return self._read("score.weight", 1, config.hidden)[0].to(self.backend.device, torch.float32)
        if spec.kind == "linear" or spec.positive is None:
            raise ConfigurationError(
                f"the template wants a `score.weight`, which {config.architecture} does not have"
            )
        for token in (spec.positive, spec.negative):
            if token is not None and not 0 <= token < config.vocabulary:
                raise ConfigurationError(
                    f"the template's answer is token {token}, and the model has {config.vocabulary}: "
                    "the tokenizer belongs to another model"
                )
        name = "model.embed_tokens.weight" if config.tied else "lm_head.weight"
        matrix = self._checkpoint.tensor(name, config.vocabulary, config.hidden)
        head = matrix[spec.positive].float()
        if spec.negative is not None:
            head = head - matrix[spec.negative].float()
        return head.to(self.backend.device)

    def _vector(self, name: str, size: int) -> torch.Tensor:
        return self._read(name, size).to(self.backend.device, torch.float32)

    def _read(self, name: str, *shape: int) -> torch.Tensor:
        tensor = self._checkpoint.tensor(name, *shape)
        self.parameters += tensor.numel()
        return tensor
