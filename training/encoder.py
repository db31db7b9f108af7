"""A BERT encoder written out, so that the teachers need no model library."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from tokenizers import Tokenizer

WINDOW, WINDOWS = 126, 2
BATCH_TOKENS = 4_096

Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Encoded:
    """One text. ``means`` (windows, width): the pooled vector of each window; ``tokens`` (n, width): all its tokens.

    Unit vectors, float32; control tokens and the prefix have no row in ``tokens``.
    """

    means: NDArray[np.float32]
    tokens: NDArray[np.float32]


@dataclass(frozen=True)
class Layout:
    """What an encoder wants around a text: control tokens, and the prefix of a query and of a document."""

    start: int
    stop: int
    query: str = ""
    document: str = ""


class Encoder:
    """Post-LayerNorm BERT with mean pooling. ``weights`` by their BertModel names."""

    def __init__(
        self,
        weights: Weights,
        tokenizer: Tokenizer,
        layout: Layout,
        heads: int = 12,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.weights = {name: weight.to(dtype) for name, weight in weights.items() if weight.is_floating_point()}
        self.layers = 1 + max(int(name.split(".")[2]) for name in weights if name.startswith("encoder.layer."))
        self.heads, self.layout, self.tokenizer = heads, layout, tokenizer
        self.width = self.weights["embeddings.LayerNorm.weight"].shape[0]

    def encode(self, texts: list[str], prefix: str = "") -> NDArray[np.float32]:
        """Unit vectors (len(texts), width) of the texts' first windows."""
        return np.stack([found.means[0] for found in self._texts(texts, prefix, windows=1)])

    def queries(self, texts: list[str]) -> list[Encoded]:
        return self._texts(texts, self.layout.query, windows=1)

    def documents(self, texts: list[str]) -> list[Encoded]:
        """A long document is seen window by window, at most `WINDOWS` of them."""
        return self._texts(texts, self.layout.document, WINDOWS)

    def _texts(self, texts: list[str], prefix: str, windows: int) -> list[Encoded]:
        before = self.tokenizer.encode(prefix, add_special_tokens=False).ids
        cut = [self._windows(ids, windows) for ids in self._ids(texts)]
        flat = self._encode([[*before, *ids] for text in cut for ids in text])
        found, place = [], 0
        for text in cut:
            means, hidden = zip(*flat[place : place + len(text)], strict=True)
            tokens = np.concatenate([rows[len(before) :] for rows in hidden])
            found.append(Encoded(np.stack(means), tokens))
            place += len(text)
        return found

    def _ids(self, texts: list[str]) -> list[list[int]]:
        return [row.ids for row in self.tokenizer.encode_batch(texts, add_special_tokens=False)]

    def _windows(self, ids: list[int], windows: int) -> list[list[int]]:
        """Pieces of at most `WINDOW` tokens; the last one overlaps the one before."""
        kept = ids[: windows * WINDOW]
        starts = [min(start, max(len(kept) - WINDOW, 0)) for start in range(0, max(len(kept), 1), WINDOW)]
        return [kept[start : start + WINDOW] for start in starts]

    def _encode(self, rows: list[list[int]]) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """(mean, tokens) of each row; rows of like length share a batch, so little is padded."""
        order = sorted(range(len(rows)), key=lambda place: len(rows[place]))
        found: dict[int, tuple[NDArray[np.float32], NDArray[np.float32]]] = {}
        while order:
            count = max(1, BATCH_TOKENS // (len(rows[order[-1]]) + 2))
            batch, order = order[-count:], order[:-count]
            hidden = self._forward([[self.layout.start, *rows[place], self.layout.stop] for place in batch])
            for place, states in zip(batch, hidden, strict=True):
                states = states[: len(rows[place]) + 2]
                mean = F.normalize(states.mean(0), dim=-1).numpy()
                found[place] = mean, F.normalize(states[1:-1], dim=-1).numpy()
        return [found[place] for place in range(len(rows))]

    @torch.no_grad()
    def _forward(self, ids: list[list[int]]) -> torch.Tensor:
        """Hidden states (rows, longest, width), float32, of full rows of token ids; padding holds anything."""
        longest = max(len(row) for row in ids)
        tokens = torch.tensor([row + [self.layout.stop] * (longest - len(row)) for row in ids])
        lengths = torch.tensor([len(row) for row in ids])
        hidden = F.embedding(tokens, self.weights["embeddings.word_embeddings.weight"])
        hidden = hidden + self.weights["embeddings.position_embeddings.weight"][:longest]
        hidden = hidden + self.weights["embeddings.token_type_embeddings.weight"][0]
        hidden = self._norm(hidden, "embeddings.LayerNorm")
        mask = (torch.arange(longest)[None, :] < lengths[:, None])[:, None, None, :]
        for layer in range(self.layers):
            hidden = self._layer(hidden, mask, f"encoder.layer.{layer}")
        return hidden.float()

    def _layer(self, hidden: torch.Tensor, mask: torch.Tensor, name: str) -> torch.Tensor:
        rows, length, _ = hidden.shape

        def heads(part: str) -> torch.Tensor:
            projected = self._linear(hidden, f"{name}.attention.self.{part}")
            return projected.view(rows, length, self.heads, -1).transpose(1, 2)

        mixed = F.scaled_dot_product_attention(heads("query"), heads("key"), heads("value"), attn_mask=mask)
        mixed = mixed.transpose(1, 2).reshape(rows, length, self.width)
        output = self._linear(mixed, f"{name}.attention.output.dense")
        hidden = self._norm(hidden + output, f"{name}.attention.output.LayerNorm")
        inner = F.gelu(self._linear(hidden, f"{name}.intermediate.dense"))
        return self._norm(hidden + self._linear(inner, f"{name}.output.dense"), f"{name}.output.LayerNorm")

    def _linear(self, hidden: torch.Tensor, name: str) -> torch.Tensor:
        return F.linear(hidden, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def _norm(self, hidden: torch.Tensor, name: str) -> torch.Tensor:
        return F.layer_norm(
            hidden, (self.width,), self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], 1e-12
        )


def max_sim(query: Encoded, document: Encoded) -> float:
    """Mean over the query's tokens of the cosine with the token of the document that is most like it (ColBERT)."""
    if not len(query.tokens) or not len(document.tokens):
        return 0.0
    return float((query.tokens @ document.tokens.T).max(axis=1).mean())


Load = Callable[[torch.dtype], Encoder]
