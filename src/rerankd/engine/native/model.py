"""The whole network: a decoder of the Qwen3 kind, from packed token ids to one raw score a pair."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from rerankd.engine.base import HeadSpec
from rerankd.engine.native.attention import attend
from rerankd.engine.native.config import ModelConfig
from rerankd.engine.native.layers import Rotary, gated, rms_norm, rotate
from rerankd.engine.native.linear import Linear
from rerankd.engine.native.loading import Loader
from rerankd.engine.native.plan import Plan

_BLOCK = 1024
"""Rows that go through an MLP together: its widest value stays in the caches, and memory bounded."""


class Model:
    """Weights and the forward pass.

    Args:
        config: the checkpoint's numbers.
        loader: where the weights come from, in which number format and on which device they are kept.
        head: how the raw score is read from the last position.
        length: tokens of the longest pair.
    """

    def __init__(self, config: ModelConfig, loader: Loader, head: HeadSpec, length: int) -> None:
        self.config = config
        self._dtype = loader.dtype
        self._embedding = loader.embedding()
        self._rotary = Rotary(config.head_dim, config.rope_theta, length, loader.device)
        self._layers = [Layer.load(config, loader, index) for index in range(config.layers)]
        self._norm = loader.vector("model.norm.weight", config.hidden)
        self._head = loader.head(head)

    def __call__(self, plan: Plan) -> torch.Tensor:
        """Raw scores, float32 (pairs,)."""
        rows = F.embedding(plan.ids, self._embedding).to(self._dtype)
        rotation = self._rotary.at(plan.positions)
        for layer in self._layers[:-1]:
            rows = layer(rows, rotation, plan)
        rows = self._layers[-1].last(rows, rotation, plan)
        return rms_norm(rows, self._norm, self.config.norm_eps).float() @ self._head


@dataclass(frozen=True, slots=True)
class Layer:
    """One block: attention, then the gated MLP, each added to the residual rows (rows, hidden)."""

    config: ModelConfig
    input_norm: torch.Tensor
    qkv: Linear
    head_norm: torch.Tensor | None
    """(heads + kv_heads, head_dim): the norms of queries and keys, side by side."""
    output: Linear
    mlp_norm: torch.Tensor
    gate_up: Linear
    down: Linear

    @classmethod
    def load(cls, config: ModelConfig, loader: Loader, index: int) -> Layer:
        base = f"model.layers.{index}"
        attention, mlp = f"{base}.self_attn", f"{base}.mlp"
        query, key = config.heads * config.head_dim, config.kv_heads * config.head_dim
        return cls(
            config=config,
            input_norm=loader.vector(f"{base}.input_layernorm.weight", config.hidden),
            qkv=loader.linear(
                {f"{attention}.q_proj": query, f"{attention}.k_proj": key, f"{attention}.v_proj": key},
                config.hidden,
                bias=config.family.qkv_bias,
            ),
            head_norm=loader.head_norm(attention) if config.family.qk_norm else None,
            output=loader.linear({f"{attention}.o_proj": config.hidden}, query),
            mlp_norm=loader.vector(f"{base}.post_attention_layernorm.weight", config.hidden),
            gate_up=loader.linear(
                {f"{mlp}.gate_proj": config.intermediate, f"{mlp}.up_proj": config.intermediate}, config.hidden
            ),
            down=loader.linear({f"{mlp}.down_proj": config.hidden}, config.intermediate),
        )

    def __call__(self, rows: torch.Tensor, rotation: tuple[torch.Tensor, torch.Tensor], plan: Plan) -> torch.Tensor:
        queries, keys, values = self._project(rows, rotation)
        rows = rows.add_(self.output(attend(queries, keys, values, plan.stacks)))
        return self._feed_forward(rows)

    def last(self, rows: torch.Tensor, rotation: tuple[torch.Tensor, torch.Tensor], plan: Plan) -> torch.Tensor:
        """The last layer: every row gives keys and values, the last row of each pair alone goes on."""
        queries, keys, values = self._project(rows, rotation)
        attended = attend(queries[plan.last], keys, values, plan.last_stacks)
        return self._feed_forward(rows[plan.last].add_(self.output(attended)))

    def _project(
        self, rows: torch.Tensor, rotation: tuple[torch.Tensor, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries (rows, heads, d), keys and values (rows, kv_heads, d); the first two turned by position."""
        config = self.config
        split = config.heads + config.kv_heads
        heads = self.qkv(rms_norm(rows, self.input_norm, config.norm_eps)).view(len(rows), -1, config.head_dim)
        turned = heads[:, :split]
        if self.head_norm is not None:
            turned = rms_norm(turned, self.head_norm, config.norm_eps)
        turned = rotate(turned, *rotation)
        return turned[:, : config.heads], turned[:, config.heads :], heads[:, split:]

    def _feed_forward(self, rows: torch.Tensor) -> torch.Tensor:
        for block in torch.split(rows, _BLOCK):
            normed = rms_norm(block, self.mlp_norm, self.config.norm_eps)
            block.add_(self.down(gated(self.gate_up(normed))))
        return rows
