"""What the model card shows and most servers run: transformers, left padding, logits of the whole vocabulary."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from rerankd.engine.base import Batch, EngineInfo, EngineOptions
from rerankd.engine.reference import ReferenceEngine


class TransformersBaseline(ReferenceEngine):
    """The reference engine's model, used the usual way, in the number format of the options."""

    def __init__(self, options: EngineOptions) -> None:
        self._dtype = getattr(torch, options.dtype)
        super().__init__(EngineOptions(folder=options.folder, head=options.head, threads=options.threads))

    def load(self) -> None:
        super().load()
        self._model = self._model.to(self._dtype)

    @property
    def info(self) -> EngineInfo:
        words = "all pairs in one pass, left padding, logits of all positions"
        return replace(super().info, dtype=str(self._dtype).removeprefix("torch."), details=words)

    @torch.inference_mode()
    def score(self, batch: Batch) -> NDArray[np.float32]:
        """All pairs of the request in one pass, as the model card does it."""
        ids, mask = left_padded(batch)
        logits = self._model(input_ids=ids, attention_mask=mask).logits
        head = self._options.head
        if head.positive is None or head.negative is None:
            scores = logits[:, 0]
        else:
            scores = logits[:, -1, head.positive] - logits[:, -1, head.negative]
        result: NDArray[np.float32] = scores.float().numpy()
        return result


def left_padded(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """All prompts as ids and mask, int64 (pairs, longest), padded at their beginning."""
    prompts = batch.prompts()
    longest = max(map(len, prompts))
    ids = torch.zeros(len(prompts), longest, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for line, seen, prompt in zip(ids, mask, prompts, strict=True):
        line[longest - len(prompt) :] = torch.from_numpy(prompt.astype(np.int64))
        seen[longest - len(prompt) :] = 1
    return ids, mask
