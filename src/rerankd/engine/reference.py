"""The truth that every other engine is tested against: transformers, float32, one pair at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rerankd.engine.base import Batch, EngineFault, EngineInfo, EngineOptions, HeadSpec
from rerankd.engine.native.config import ModelConfig
from rerankd.engine.native.safetensors_reader import SafetensorsCheckpoint
from rerankd.errors import ConfigurationError
from rerankd.types import IdArray

_BATCH_TOKENS = 2048
"""Pairs run one after another, so a batch is no faster than its pairs; it only has to end soon."""


class ReferenceEngine:
    """The released model code as it is: no padding, no sharing, no shortcut but the last position's logits."""

    def __init__(self, options: EngineOptions) -> None:
        if options.dtype not in ("auto", "float32"):
            raise ConfigurationError("the reference engine computes in float32; use --dtype float32 or auto")
        self._options = options
        self._device = "cpu" if options.device == "auto" else options.device
        self._config = ModelConfig.read(options.folder)
        self._model: Any = None

    def load(self) -> None:
        """Build the model with transformers.

        Raises:
            ConfigurationError: transformers is not installed, or the checkpoint cannot be read.
        """
        # The native reader refuses pickled weights and missing shards with a clear message.
        SafetensorsCheckpoint(self._options.folder)
        if self._options.threads:
            torch.set_num_threads(self._options.threads)
        transformers = _transformers()
        auto = "AutoModelForSequenceClassification" if self._config.classifier else "AutoModelForCausalLM"
        model = getattr(transformers, auto).from_pretrained(
            self._options.folder, dtype=torch.float32, trust_remote_code=False, use_safetensors=True
        )
        self._model = model.to(self._device).eval()

    def warm_up(self) -> None:
        """Nothing to measure."""

    @property
    def info(self) -> EngineInfo:
        parameters = sum(tensor.numel() for tensor in self._model.parameters()) if self._model else 0
        return EngineInfo(
            engine="reference",
            device=self._device,
            dtype="float32",
            architecture=self._config.architecture,
            max_length=self._config.max_length,
            parameters=parameters,
            max_batch_tokens=self._options.max_batch_tokens or _BATCH_TOKENS,
            shares_prefix=False,
            details="one pair at a time",
        )

    def score(self, batch: Batch) -> NDArray[np.float32]:
        """Raw scores, float32 (pairs,)."""
        if self._model is None:
            raise EngineFault("the engine is not loaded")
        with torch.inference_mode():
            return np.array([self._one(ids) for ids in batch.prompts()], dtype=np.float32)

    def health(self) -> bool:
        return self._model is not None

    def close(self) -> None:
        """Let the weights go."""
        self._model = None

    def _one(self, ids: IdArray) -> float:
        tokens = torch.from_numpy(ids.astype(np.int64)).to(self._device)[None]
        # The classifier cannot find the last token by itself in ids that hold its padding token.
        hidden = self._model.model(input_ids=tokens).last_hidden_state[0, -1]
        if self._config.classifier:
            return float(self._model.score(hidden)[0])
        return _difference(self._model.lm_head(hidden), self._options.head)


def _difference(logits: torch.Tensor, head: HeadSpec) -> float:
    if head.positive is None:
        raise ConfigurationError("the template wants a `score.weight`, which this checkpoint does not have")
    negative = 0.0 if head.negative is None else float(logits[head.negative])
    return float(logits[head.positive]) - negative


def _transformers() -> Any:
    try:
        import transformers
    except ImportError:
        raise ConfigurationError(
            "the reference engine needs transformers: pip install 'rerankd[reference]'"
        ) from None
    return transformers
