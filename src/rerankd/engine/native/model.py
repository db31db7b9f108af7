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

_CPU_BLOCK = 256
"""Rows that go between two attentions together on a CPU: what lies between products stays in the caches, and small
enough for the allocator to hand the same pages out again, where large blocks are mapped and cleared each time."""
_CUDA_BLOCK = 32_768


@dataclass(frozen=True, slots=True)
class Pass:
    """What one forward pass keeps from layer to layer.

    Attributes:
        plan: the batch.
        cosines, sines: of each row's position, (rows, 1, head_dim / 2).
        queries, keys, values: (rows, heads, head_dim), written anew by each layer.
        block: rows that are worked on together.
    """

    plan: Plan
    cosines: torch.Tensor
    sines: torch.Tensor
    queries: torch.Tensor
    keys: torch.Tensor
    values: torch.Tensor
    block: int


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
        self._block = _CPU_BLOCK if loader.device.type == "cpu" else _CUDA_BLOCK
        self._embedding = loader.embedding()
        self._rotary = Rotary(config.head_dim, config.rope_theta, length, loader.device)
        self._layers = [Layer.load(config, loader, index) for index in range(config.layers)]
        self._norm = loader.vector("model.norm.weight", config.hidden)
        self._head = loader.head(head)

    def __call__(self, plan: Plan) -> torch.Tensor:
        """Raw scores, float32 (pairs,)."""
        rows = F.embedding(plan.ids, self._embedding).to(self._dtype)
        current = self._begin(plan, rows)
        for layer in self._layers[:-1]:
            layer(rows, current)
        rows = self._layers[-1].last(rows, current)
        return rms_norm(rows, self._norm, self.config.norm_eps) @ self._head

    def _begin(self, plan: Plan, rows: torch.Tensor) -> Pass:
        config = self.config
        cosines, sines = self._rotary.at(plan.positions)

        def heads(count: int) -> torch.Tensor:
            return rows.new_empty(len(rows), count, config.head_dim)

        queries, keys, values = heads(config.heads), heads(config.kv_heads), heads(config.kv_heads)
        return Pass(plan, cosines, sines, queries, keys, values, self._block)


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

    def __call__(self, rows: torch.Tensor, current: Pass) -> None:
        """Work on ``rows`` in place."""
        self._project(rows, current)
        attended = attend(current.queries, current.keys, current.values, current.plan.stacks)
        self._finish(rows, attended, current.block)

    def last(self, rows: torch.Tensor, current: Pass) -> torch.Tensor:
        """The last layer: every row gives keys and values, the last row of each pair alone goes on."""
        self._project(rows, current)
        last = current.plan.last
        attended = attend(current.queries[last], current.keys, current.values, current.plan.last_stacks)
        rows = rows[last]
        self._finish(rows, attended, current.block)
        return rows

    def _project(self, rows: torch.Tensor, current: Pass) -> None:
        """Queries, keys and values of every row, the first two turned by position."""
        config = self.config
        turned = config.heads + config.kv_heads
        for part in _slices(len(rows), current.block):
            normed = rms_norm(rows[part], self.input_norm, config.norm_eps).to(rows.dtype)
            heads = self.qkv(normed).view(len(normed), -1, config.head_dim)
            current.values[part] = heads[:, turned:]
            heads = heads[:, :turned].float()
            if self.head_norm is not None:
                heads = rms_norm(heads, self.head_norm, config.norm_eps)
            cosines, sines = current.cosines[part], current.sines[part]
            rotate(heads[:, : config.heads], cosines, sines, current.queries[part])
            rotate(heads[:, config.heads :], cosines, sines, current.keys[part])

    def _finish(self, rows: torch.Tensor, attended: torch.Tensor, size: int) -> None:
        """Add attention's part and then the MLP's to the rows."""
        for part in _slices(len(rows), size):
            block = rows[part].add_(self.output(attended[part]))
            normed = rms_norm(block, self.mlp_norm, self.config.norm_eps).to(rows.dtype)
            block.add_(self.down(gated(self.gate_up(normed))))


def _slices(rows: int, size: int) -> list[slice]:
    return [slice(begin, begin + size) for begin in range(0, rows, size)]
