"""The native engine behind the contract of ``engine/base.py``."""

from __future__ import annotations

import gc
from contextlib import nullcontext

import numpy as np
import torch
from numpy.typing import NDArray

from rerankd.engine.base import Batch, EngineFault, EngineInfo, EngineOptions, EngineOutOfMemory
from rerankd.engine.native.backend import Run, choose_backend
from rerankd.engine.native.config import ModelConfig
from rerankd.engine.native.forward_batch import TokenLayout
from rerankd.engine.native.malloc_tuning import returned_while_loading
from rerankd.engine.native.models.decoder import Decoder
from rerankd.engine.native.safetensors_reader import SafetensorsCheckpoint
from rerankd.engine.native.token_budget import probe_batch, profile_max_batch_tokens
from rerankd.engine.native.weight_loader import WeightLoader
from rerankd.errors import ConfigurationError

_CHECKED_TOKENS = 64
"""Of the pair whose score warm-up looks at."""


class NativeEngine:
    """A decoder on a CPU or one CUDA device."""

    def __init__(self, options: EngineOptions) -> None:
        self._options = options
        self._config = ModelConfig.read(options.folder)
        self._backend = choose_backend(options, self._config)
        self._length = min(options.max_pair_tokens, self._config.max_length)
        self._parameters = 0
        self._budget = options.max_batch_tokens
        self._model: Run | None = None

    def load(self) -> None:
        """Read the weights. Threads are set for the calling thread's work.

        Raises:
            ConfigurationError: the checkpoint is incomplete, does not fit its config.json, or holds more than that
                speaks of.
        """
        with returned_while_loading() if self._is_cpu else nullcontext():
            self._load()

    def warm_up(self) -> None:
        """Run the kernels once, and find the token budget unless the settings fix it.

        Raises:
            ConfigurationError: scores are not finite, so the weights are damaged.
        """
        pair = probe_batch(_CHECKED_TOKENS, min(_CHECKED_TOKENS, self._length), self._config.vocabulary)
        if not np.isfinite(self.score(pair)).all():
            raise ConfigurationError(
                f"the checkpoint in {self._options.folder} gives scores that are not finite numbers in "
                f"{self._backend.precision.name}: its weights are damaged, or need a wider --dtype"
            )
        if not self._options.max_batch_tokens:
            self._budget = profile_max_batch_tokens(self.score, self._backend.device, self._length)

    @property
    def info(self) -> EngineInfo:
        return EngineInfo(
            engine="native",
            device=str(self._backend.device),
            dtype=self._backend.precision.name,
            architecture=self._config.architecture,
            max_length=self._config.max_length,
            parameters=self._parameters,
            max_batch_tokens=self._budget,
            kernels=self._backend.kernels,
            shares_prefix=True,
            kv_cache_slots=self._backend.kv_cache.slots,
            details=self._backend.describe(),
        )

    def score(self, batch: Batch) -> NDArray[np.float32]:
        """Raw scores, float32 (pairs,), in the order of the batch.

        Raises:
            EngineOutOfMemory: the batch does not fit, a smaller one may. The KV cache is empty after that.
            EngineFault: the device failed for good.
            ValueError: a prompt is longer than the engine was made for, or has an id that the model does not know.
        """
        if not batch.pairs:
            return np.empty(0, dtype=np.float32)
        self._check(batch)
        failure: Exception
        try:
            return self._forward(batch)
        except (MemoryError, RuntimeError) as error:
            failure = _classified(error)
        # Out of the except block: until here the traceback kept every tensor of the failed pass alive.
        if isinstance(failure, EngineOutOfMemory):
            self._free()
        raise failure

    def health(self) -> bool:
        """Score one pair of two tokens."""
        return bool(np.isfinite(self.score(probe_batch(2, min(2, self._length)))).all())

    def close(self) -> None:
        """Let go of the weights and of the KV cache."""
        self._model = None
        if self._is_cpu:
            # Nothing on a CPU waits for a collection, which would hold up whoever is served during a reload.
            self._backend.free_memory()
        else:
            self._free()

    def _forward(self, batch: Batch) -> NDArray[np.float32]:
        if self._model is None:
            raise EngineFault("the engine is not loaded")
        with torch.inference_mode():
            forward_batch = self._backend.plan(batch)
            # On CUDA nothing waits for the device but this copy of the scores.
            scores: NDArray[np.float32] = self._backend.run(self._model, forward_batch).cpu().numpy()
        return scores[: batch.pairs]

    def _check(self, batch: Batch) -> None:
        """What would be read beyond the tables of positions and of embeddings, which on CUDA is the device's end."""
        longest = int(TokenLayout.of(batch).ends.max())
        if longest > self._length:
            raise ValueError(
                f"a prompt of {longest} tokens: this engine was made for {self._length} (max_pair_tokens)"
            )
        if not 0 <= int(batch.token_ids.min()) <= int(batch.token_ids.max()) < self._config.vocabulary:
            raise ValueError(
                f"a token id that is not below {self._config.vocabulary}: the tokenizer belongs to another model"
            )

    def _load(self) -> None:
        checkpoint = SafetensorsCheckpoint(self._options.folder)
        self._backend.prepare(checkpoint.dtypes("_proj.weight"))
        loader = WeightLoader(self._config, checkpoint, self._backend)
        with torch.inference_mode():
            self._model = Decoder(self._config, loader, self._options.head, self._length)
        checkpoint.require_all_read()
        self._parameters = loader.parameters

    @property
    def _is_cpu(self) -> bool:
        return self._backend.device.type == "cpu"

    def _free(self) -> None:
        gc.collect()
        self._backend.free_memory()


def _classified(error: Exception) -> Exception:
    """The contract's exception for a failure of torch; anything unknown is this batch's own failure."""
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in text:
        return EngineOutOfMemory(text)
    if "CUDA error" in text or "device-side assert" in text or "cublas" in text.lower():
        return EngineFault(text)
    return RuntimeError(text)
