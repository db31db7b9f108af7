"""What the model card shows and most servers run: transformers, left padding, logits of the whole vocabulary."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rerankd.engine.base import Batch, EngineOptions
from rerankd.engine.reference import ReferenceEngine

_PAIRS = 8
"""Pairs of one forward pass: the model card passes all at once, which needs 5 GB for sixteen short documents."""


class UsualCode(ReferenceEngine):
    """The reference engine's model, used the usual way, in the number format of the options."""

    def __init__(self, options: EngineOptions) -> None:
        self._dtype = getattr(torch, options.dtype)
        super().__init__(EngineOptions(folder=options.folder, head=options.head, threads=options.threads))

    def load(self) -> None:
        super().load()
        self._model = self._model.to(self._dtype)

    def score(self, batch: Batch) -> NDArray[np.float32]:
        prompts = batch.prompts()
        parts = [self._padded(prompts[at : at + _PAIRS]) for at in range(0, len(prompts), _PAIRS)]
        return np.concatenate(parts)

    @torch.inference_mode()
    def _padded(self, prompts: list[Any]) -> NDArray[np.float32]:
        longest = max(map(len, prompts))
        ids = torch.zeros(len(prompts), longest, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for line, seen, prompt in zip(ids, mask, prompts, strict=True):
            line[longest - len(prompt) :] = torch.from_numpy(prompt.astype(np.int64))
            seen[longest - len(prompt) :] = 1
        logits = self._model(input_ids=ids, attention_mask=mask).logits
        head = self._options.head
        if head.positive is None or head.negative is None:
            scores = logits[:, 0]
        else:
            scores = logits[:, -1, head.positive] - logits[:, -1, head.negative]
        result: NDArray[np.float32] = scores.float().numpy()
        return result
