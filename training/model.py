"""The training-time forward pass: many queries against many documents, each document encoded once.

The layout of a pair is ``<bos> document <q> query <end>``. Nothing of a document depends on the query, so a cluster
of documents and queries is computed as the documents (n_documents rows) and, behind every document, all query
blocks, each of which sees that document and itself. It is the same function as a plain causal pass over every
single pair.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from training.initialise import Shape, State
from training.tokenizer import BOS, END, PAD, QUERY

Ids = NDArray[np.int32]


@dataclass(frozen=True)
class Cluster:
    """Index tensors of one forward pass. T = document tokens + n_documents * Lq, Lq = tokens of all query blocks."""

    tokens: torch.Tensor  # (T,) int64: the documents one after another, then Lq query tokens for every document
    positions: torch.Tensor  # (T,) int64
    padded: torch.Tensor  # (n_documents, Ld) int64: where each document token lies in ``tokens``
    lengths: torch.Tensor  # (n_documents,) int64
    mask: torch.Tensor  # (n_documents, 1, Lq, Ld + Lq) float32: 0 where a query token looks, -inf elsewhere
    ends: torch.Tensor  # (n_documents, n_queries) int64: the place of each <end> among the Lq

    @property
    def document_tokens(self) -> int:
        return int(self.lengths.sum())


def pack(documents: Sequence[Ids], queries: Sequence[Ids], document_limit: int) -> Cluster:
    """Every query behind every document. Adds the frame's control tokens to bare ids."""
    return pack_lists(documents, [queries] * len(documents), document_limit)


def pack_lists(documents: Sequence[Ids], asked: Sequence[Sequence[Ids]], document_limit: int) -> Cluster:
    """Each document with queries of its own; shorter lists are padded, and their last ends repeat."""
    rows = [np.concatenate([[BOS], ids[: document_limit - 1]]) for ids in documents]
    blocks = [[np.concatenate([[QUERY], ids, [END]]) for ids in queries] for queries in asked]
    lengths = torch.tensor([len(row) for row in rows])
    longest = int(lengths.max())
    widest = max(sum(len(block) for block in row) for row in blocks)
    most = max(len(row) for row in blocks)
    tokens = torch.full((len(rows), widest), PAD)
    offsets = torch.zeros(len(rows), widest, dtype=torch.int64)
    block_of = torch.full((len(rows), widest), -1)
    ends = torch.zeros(len(rows), most, dtype=torch.int64)
    for row, own_blocks in enumerate(blocks):
        sizes = [len(block) for block in own_blocks]
        total = sum(sizes)
        tokens[row, :total] = torch.from_numpy(np.concatenate(own_blocks).astype(np.int64))
        offsets[row, :total] = torch.cat([torch.arange(size) for size in sizes])
        block_of[row, :total] = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
        last = np.cumsum(sizes) - 1
        ends[row] = torch.from_numpy(np.pad(last, (0, most - len(last)), mode="edge"))
    place = torch.arange(longest)
    own = (block_of[:, :, None] == block_of[:, None, :]) & (offsets[:, :, None] >= offsets[:, None, :])
    of_document = (place[None, :] < lengths[:, None])[:, None, :].expand(-1, widest, -1)
    seen = torch.cat([of_document, own], dim=-1)
    starts = lengths.cumsum(0) - lengths
    return Cluster(
        tokens=torch.cat([torch.from_numpy(np.concatenate(rows).astype(np.int64)), tokens.flatten()]),
        positions=torch.cat([*(place[: int(length)] for length in lengths), (lengths[:, None] + offsets).flatten()]),
        padded=starts[:, None] + torch.minimum(place[None, :], lengths[:, None] - 1),
        lengths=lengths,
        mask=torch.zeros(seen.shape).masked_fill(~seen, float("-inf"))[:, None],
        ends=ends,
    )


def normalised(hidden: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    return hidden * torch.rsqrt(hidden.square().mean(-1, keepdim=True) + eps) * weight


def turned(
    split: torch.Tensor, weight: torch.Tensor, eps: float, cos: torch.Tensor, sin: torch.Tensor
) -> torch.Tensor:
    """Heads normalised and rotated by position; ``cos`` and ``sin`` are half as wide as a head."""
    left, right = normalised(split.float(), weight, eps).chunk(2, dim=-1)
    return torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1)


def gated(projected: torch.Tensor) -> torch.Tensor:
    gate, up = projected.chunk(2, dim=-1)
    return F.silu(gate) * up


Function = Callable[..., torch.Tensor]


def compiled(function: Function) -> Function:
    found: Function = torch.compile(function, dynamic=True)
    return found


class PackedModel(torch.nn.Module):
    """Qwen3 with a one-number head.

    Parameters and attention are float32; all other matrix products run in ``dtype``. Bfloat16 is the faster one
    where the processor multiplies it in tiles (AMX), but not in attention, whose products are small.
    """

    def __init__(self, shape: Shape, state: State, dtype: torch.dtype = torch.float32, fuse: bool = False) -> None:
        super().__init__()
        self.shape = shape
        self.dtype = dtype
        self.names = list(state)
        self.weights = torch.nn.ParameterList(
            [torch.nn.Parameter(state[name].float().clone()) for name in self.names]
        )
        self.place = {name: index for index, name in enumerate(self.names)}
        self.frequencies = shape.frequencies()
        # Between the matrix products everything is memory traffic: compiled into one pass each, a quarter of it goes.
        between: list[Function] = [normalised, turned, gated]
        self.normalised, self.turned, self.gated = map(compiled, between) if fuse else between

    def weight(self, name: str) -> torch.Tensor:
        found: torch.Tensor = self.weights[self.place[name]]
        return found

    def state(self) -> State:
        """The weights by their Hugging Face names, detached."""
        return {name: parameter.detach() for name, parameter in zip(self.names, self.weights, strict=True)}

    def norm(self, hidden: torch.Tensor, name: str) -> torch.Tensor:
        return self.normalised(hidden, self.weight(f"{name}.weight"), self.shape.eps)

    def linear(self, hidden: torch.Tensor, *names: str) -> torch.Tensor:
        """One product with the weights of several projections side by side."""
        parts = [self.weight(f"{name}.weight") for name in names]
        weight = parts[0] if len(parts) == 1 else torch.cat(parts)
        return F.linear(hidden.to(self.dtype), weight.to(self.dtype))

    def heads(self, projected: torch.Tensor, name: str, rotation: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """q or k: split into heads, normalised and turned, (tokens, heads, head_dim)."""
        split = projected.view(projected.shape[0], -1, self.shape.head_dim)
        return self.turned(split, self.weight(f"{name}.weight"), self.shape.eps, *rotation)

    def rotation(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        angles = positions[:, None, None].float() * self.frequencies
        return angles.cos(), angles.sin()

    def mlp(self, hidden: torch.Tensor, layer: str) -> torch.Tensor:
        normed = self.norm(hidden, f"{layer}.post_attention_layernorm")
        mixed = self.gated(self.linear(normed, f"{layer}.mlp.gate_proj", f"{layer}.mlp.up_proj"))
        return hidden + self.linear(mixed, f"{layer}.mlp.down_proj").float()

    def attend_documents(self, cluster: Cluster, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """q, k, v (n_documents, Ld, heads, head_dim) -> (document tokens, hidden); causality hides the padding."""
        mixed = F.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=True
        )
        inside = torch.arange(q.shape[1])[None, :] < cluster.lengths[:, None]
        return mixed.transpose(1, 2).flatten(2)[inside]

    def attend_queries(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """q (n_documents, any, heads, head_dim), k, v (n_documents, Ld + Lq, ...) -> (n_documents, any, hidden)."""
        mixed = F.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=mask
        )
        return mixed.transpose(1, 2).flatten(2)

    def layer(self, hidden: torch.Tensor, index: int, cluster: Cluster) -> torch.Tensor:
        """All tokens through one layer, (T, hidden)."""
        name = f"model.layers.{index}"
        q, k, v = self.projected(hidden, name, cluster.positions)
        keys, values = self.visible(k, cluster), self.visible(v, cluster)
        longest = cluster.padded.shape[1]
        asking, own = self.parts(q, cluster)
        of_documents = self.attend_documents(cluster, asking, keys[:, :longest], values[:, :longest])
        of_queries = self.attend_queries(own, keys, values, cluster.mask).flatten(0, 1)
        mixed = torch.cat([of_documents, of_queries])
        hidden = hidden + self.linear(mixed, f"{name}.self_attn.o_proj").float()
        return self.mlp(hidden, name)

    def projected(
        self, hidden: torch.Tensor, name: str, positions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        normed = self.norm(hidden, f"{name}.input_layernorm")
        q, k, v = self.linear(normed, *(f"{name}.self_attn.{part}_proj" for part in "qkv")).chunk(3, dim=-1)
        rotation = self.rotation(positions)
        q = self.heads(q, f"{name}.self_attn.q_norm", rotation)
        k = self.heads(k, f"{name}.self_attn.k_norm", rotation)
        return q, k, v.reshape(k.shape).float()

    def visible(self, flat: torch.Tensor, cluster: Cluster) -> torch.Tensor:
        """(T, ...) -> (n_documents, Ld + Lq, ...): what the query blocks of each document may look at."""
        return torch.cat(self.parts(flat, cluster), dim=1)

    def parts(self, flat: torch.Tensor, cluster: Cluster) -> tuple[torch.Tensor, torch.Tensor]:
        """(T, ...) -> documents (n_documents, Ld, ...), padded, and query blocks (n_documents, Lq, ...)."""
        of_documents, own = torch.split(flat, [cluster.document_tokens, len(flat) - cluster.document_tokens])
        return of_documents[cluster.padded], own.view(len(cluster.lengths), -1, *flat.shape[1:])

    def last_layer(self, hidden: torch.Tensor, index: int, cluster: Cluster) -> torch.Tensor:
        """Only the <end> tokens go through: nothing reads the others, (n_documents * n_queries, hidden)."""
        name, documents = f"model.layers.{index}", len(cluster.lengths)
        normed = self.norm(hidden, f"{name}.input_layernorm")
        k, v = self.linear(normed, f"{name}.self_attn.k_proj", f"{name}.self_attn.v_proj").chunk(2, dim=-1)
        k = self.heads(k, f"{name}.self_attn.k_norm", self.rotation(cluster.positions))
        v = v.reshape(k.shape).float()
        step = cluster.mask.shape[2]
        last = (cluster.document_tokens + torch.arange(documents)[:, None] * step + cluster.ends).flatten()
        q = self.linear(normed[last], f"{name}.self_attn.q_proj")
        q = self.heads(q, f"{name}.self_attn.q_norm", self.rotation(cluster.positions[last]))
        q = q.view(documents, -1, *q.shape[1:])
        mask = torch.take_along_dim(cluster.mask, cluster.ends[:, None, :, None], dim=2)
        mixed = self.attend_queries(q, self.visible(k, cluster), self.visible(v, cluster), mask).flatten(0, 1)
        return self.mlp(hidden[last] + self.linear(mixed, f"{name}.self_attn.o_proj").float(), name)

    def forward(self, cluster: Cluster) -> torch.Tensor:
        """Logits (n_queries, n_documents), float32."""
        hidden = F.embedding(cluster.tokens, self.weight("model.embed_tokens.weight"))
        for index in range(self.shape.layers - 1):
            hidden = self.layer(hidden, index, cluster)
        hidden = self.last_layer(hidden, self.shape.layers - 1, cluster)
        logits = F.linear(self.norm(hidden, "model.norm"), self.weight("score.weight"))
        return logits.view(len(cluster.lengths), -1).T
