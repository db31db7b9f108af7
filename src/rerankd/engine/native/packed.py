"""The network over packed rows, for CUDA: few large kernels, and nothing that waits for the device."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from rerankd.engine.base import Batch, HeadSpec
from rerankd.engine.native.config import ModelConfig
from rerankd.engine.native.fusing import fused
from rerankd.engine.native.layers import Rotary
from rerankd.engine.native.loading import Loader
from rerankd.engine.native.model import Layer
from rerankd.engine.native.packing import Sight, pack
from rerankd.engine.native.varlen import Varlen, attend, flash, merge

Turn = tuple[torch.Tensor, torch.Tensor]
"""Cosines and sines of each row's position, (rows, 1, head_dim / 2)."""


class PackedModel:
    """Weights and the forward pass; takes what :class:`~rerankd.engine.native.model.Model` takes.

    ``varlen`` attends within packed sequences; it decides on which device this network runs.
    """

    def __init__(
        self, config: ModelConfig, loader: Loader, head: HeadSpec, length: int, varlen: Varlen = flash
    ) -> None:
        self.config = config
        self._device = loader.device
        self._dtype = loader.dtype
        self._varlen = varlen
        self._embedding = loader.embedding()
        self._rotary = Rotary(config.head_dim, config.rope_theta, length, loader.device)
        self._layers = [Layer.load(config, loader, index) for index in range(config.layers)]
        self._norm = loader.vector("model.norm.weight", config.hidden)
        self._head = loader.head(head)
        self._add_norm = fused(add_norm, loader.device)
        self._turned = fused(turned, loader.device)
        self._gated = fused(gated, loader.device)
        self._merge = fused(merge, loader.device)

    def __call__(self, batch: Batch) -> torch.Tensor:
        """Raw scores, float32 (pairs,), on the device and perhaps not yet computed."""
        eps = self.config.norm_eps
        plan = pack(batch, self._device)
        turn = self._rotary.at(plan.positions)
        rows = F.embedding(plan.ids, self._embedding).to(self._dtype)
        normed = normalised(rows, self._layers[0].input_norm, eps)
        for layer, following in zip(self._layers[:-1], self._layers[1:], strict=True):
            queries, keys, values = self._heads(layer, normed, turn)
            rows, normed = self._add_norm(
                rows, layer.output(self._attend(queries, keys, values, plan.every)), layer.mlp_norm, eps
            )
            rows, normed = self._add_norm(rows, self._mlp(layer, normed), following.input_norm, eps)
        # The last layer: every row gives keys and values, the last row of each pair alone goes on.
        layer = self._layers[-1]
        queries, keys, values = self._heads(layer, normed, turn)
        attended = self._attend(queries.index_select(0, plan.last), keys, values, plan.final)
        rows, normed = self._add_norm(rows.index_select(0, plan.last), layer.output(attended), layer.mlp_norm, eps)
        rows = rows + self._mlp(layer, normed)
        scores = F.rms_norm(rows.float(), self._norm.shape, self._norm, eps) @ self._head
        return scores.index_select(0, plan.order)

    def _heads(self, layer: Layer, normed: torch.Tensor, turn: Turn) -> tuple[torch.Tensor, ...]:
        """Queries, keys and values, (rows, heads, d)."""
        config = self.config
        heads = layer.qkv(normed).view(len(normed), -1, config.head_dim)
        both, values = torch.split(heads, [config.heads + config.kv_heads, config.kv_heads], dim=1)
        both = self._turned(both, layer.head_norm, *turn, config.norm_eps)
        return *torch.split(both, [config.heads, config.kv_heads], dim=1), values

    def _attend(self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, sight: Sight) -> torch.Tensor:
        return attend(queries, keys, values, sight, self._varlen, self._merge)

    def _mlp(self, layer: Layer, normed: torch.Tensor) -> torch.Tensor:
        return layer.down(self._gated(layer.gate_up(normed)))


def add_norm(
    rows: torch.Tensor, added: torch.Tensor, weight: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The residual rows with what a block adds, and those normalised for the next block."""
    rows = rows + added
    return rows, normalised(rows, weight, eps)


def normalised(rows: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """Root-mean-square normalisation, computed in float32."""
    return F.rms_norm(rows.float(), weight.shape, weight, eps).to(rows.dtype)


def turned(
    heads: torch.Tensor, norm: torch.Tensor | None, cosines: torch.Tensor, sines: torch.Tensor, eps: float
) -> torch.Tensor:
    """Queries and keys (rows, heads, d), each head normalised where the model does, turned by position."""
    wide = heads.float()
    if norm is not None:
        wide = F.rms_norm(wide, wide.shape[-1:], None, eps) * norm
    left, right = wide.chunk(2, dim=-1)
    parts = (left * cosines - right * sines, right * cosines + left * sines)
    return torch.cat(parts, dim=-1).to(heads.dtype)


def gated(gate_up: torch.Tensor) -> torch.Tensor:
    """silu(gate) * up, where ``gate_up`` (rows, 2 * n) holds both side by side."""
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate) * up
