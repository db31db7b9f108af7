"""The whole network: a decoder of the Qwen3 kind, from packed token ids to one raw score a pair."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from rerankd.engine.base import HeadSpec
from rerankd.engine.native.config import ModelConfig
from rerankd.engine.native.layers import Activations, Pieces, Rotary, rms_norm
from rerankd.engine.native.linear import Gate, Linear
from rerankd.engine.native.loading import Loader
from rerankd.engine.native.numbers import Numbers
from rerankd.engine.native.plan import Plan


@dataclass(slots=True)
class Pass:
    """What one forward pass keeps from layer to layer.

    Attributes:
        rows: the residual, (rows, hidden).
        added: what the last MLP gave, not yet added to the residual: the next norm does it in passing. None before
            the first layer.
        cosines, sines: of each row's position, (rows, head_dim / 2).
        queries, keys, values: (rows, heads, head_dim), written anew by each layer; kept keys and values lie last.
    """

    plan: Plan
    rows: torch.Tensor
    cosines: torch.Tensor
    sines: torch.Tensor
    queries: torch.Tensor
    keys: torch.Tensor
    values: torch.Tensor
    added: Activations | None = None


class Model:
    """Weights and the forward pass.

    Args:
        config: the checkpoint's numbers.
        loader: where the weights come from, in which number format and on which device they are kept.
        pieces: what computes between the products.
        block: rows that go between two attentions together.
        head: how the raw score is read from the last position.
        length: tokens of the longest pair.
    """

    def __init__(
        self, config: ModelConfig, loader: Loader, pieces: Pieces, block: int, head: HeadSpec, length: int
    ) -> None:
        self.config = config
        self._numbers = loader.numbers
        self._embedding = loader.embedding()
        self._rotary = Rotary(config.head_dim, config.rope_theta, length, loader.device)
        self._layers = [Layer.load(config, loader, pieces, block, index) for index in range(config.layers)]
        self._norm = loader.vector("model.norm.weight", config.hidden)
        self._head = loader.head(head)

    def __call__(self, plan: Plan) -> torch.Tensor:
        """Raw scores, float32 (pairs,)."""
        current = self._begin(plan)
        for layer in self._layers[:-1]:
            layer(current)
        rows = self._layers[-1].last(current)
        return rms_norm(rows, self._norm, self.config.norm_eps) @ self._head

    def _begin(self, plan: Plan) -> Pass:
        config = self.config
        rows = F.embedding(plan.ids, self._embedding).to(self._numbers.residual)
        cosines, sines = self._rotary.at(plan.positions)

        def heads(count: int, kept: int = 0) -> torch.Tensor:
            return rows.new_empty(len(rows) + kept, count, config.head_dim, dtype=self._numbers.rows)

        keys, values = (heads(config.kv_heads, plan.exchange.rows) for _ in range(2))
        queries = heads(config.heads)
        return Pass(plan, rows, cosines, sines, queries, keys, values)


@dataclass(frozen=True, slots=True)
class Layer:
    """One block: attention, then the gated MLP, each added to the residual rows (rows, hidden)."""

    index: int
    config: ModelConfig
    numbers: Numbers
    pieces: Pieces
    block: int
    input_norm: torch.Tensor
    qkv: Linear
    query_norm: torch.Tensor | None
    """(heads, head_dim)"""
    key_norm: torch.Tensor | None
    """(kv_heads, head_dim)"""
    output: Linear
    mlp_norm: torch.Tensor
    gated: Gate
    down: Linear

    @classmethod
    def load(cls, config: ModelConfig, loader: Loader, pieces: Pieces, block: int, index: int) -> Layer:
        base = f"model.layers.{index}"
        attention, mlp = f"{base}.self_attn", f"{base}.mlp"
        query, key = config.heads * config.head_dim, config.kv_heads * config.head_dim
        return cls(
            index=index,
            config=config,
            numbers=loader.numbers,
            pieces=pieces,
            block=block,
            input_norm=loader.vector(f"{base}.input_layernorm.weight", config.hidden),
            # Attention averages many values: what is random in them gets small, what rounding took from their
            # weights does not. In eight bits alone these took the largest error of 200 pairs from .016 to .022.
            qkv=loader.linear(
                {f"{attention}.q_proj": query, f"{attention}.k_proj": key, f"{attention}.v_proj": key},
                config.hidden,
                bias=config.family.qkv_bias,
                fine=1,
            ),
            query_norm=loader.head_norm(f"{attention}.q_norm", config.heads),
            key_norm=loader.head_norm(f"{attention}.k_norm", config.kv_heads),
            # In eight bits it would give half of all the error, and its input would have to be scaled for it alone.
            output=loader.linear({f"{attention}.o_proj": config.hidden}, query, whole=True),
            mlp_norm=loader.vector(f"{base}.post_attention_layernorm.weight", config.hidden),
            gated=loader.gated(f"{mlp}.gate_proj", f"{mlp}.up_proj", pieces),
            down=loader.linear({f"{mlp}.down_proj": config.hidden}, config.intermediate),
        )

    def __call__(self, current: Pass) -> None:
        """Every row through attention and MLP."""
        self._project(current)
        attended = current.plan.attention.every(current.queries, current.keys, current.values)
        current.added = self._finish(current.rows, attended)

    def last(self, current: Pass) -> torch.Tensor:
        """The last layer: every row gives keys and values, the last row of each pair goes on, (pairs, hidden)."""
        self._project(current)
        last = current.plan.last
        attended = current.plan.attention.last(current.queries[last], current.keys, current.values)
        rows = current.rows[last]
        added = self._finish(rows, attended)
        return rows + added.numbers()

    def _project(self, current: Pass) -> None:
        """Add what is left to add; then queries, keys and values of every row, the first two turned by position."""
        config, pieces = self.config, self.pieces
        for part in _slices(len(current.rows), self.block):
            added = None if current.added is None else current.added[part]
            normed = pieces.add_rms_norm(
                current.rows[part], added, self.input_norm, config.norm_eps, self.numbers.inputs
            )
            query, key, value = (product.heads(config.head_dim) for product in self.qkv(normed))
            angles = (current.cosines[part], current.sines[part])
            pieces.qk_norm_rope(query, self.query_norm, config.norm_eps, angles, current.queries[part])
            pieces.qk_norm_rope(key, self.key_norm, config.norm_eps, angles, current.keys[part])
            value.into(current.values[part])
        current.plan.exchange(self.index, current.keys, current.values)

    def _finish(self, rows: torch.Tensor, attended: torch.Tensor) -> Activations:
        """Add attention's part to the rows; the MLP's part comes back."""
        inputs, pieces = self.numbers.inputs, self.pieces
        parts: list[Activations] = []
        for part in _slices(len(rows), self.block):
            (mixed,) = self.output(Activations(attended[part]))
            normed = pieces.add_rms_norm(rows[part], mixed, self.mlp_norm, self.config.norm_eps, inputs)
            parts.extend(self.down(self.gated(normed)))
        return Activations.joined(parts)


def _slices(rows: int, most: int) -> list[slice]:
    """Parts of nearly equal size: a small last one would cost a product as much as a large one."""
    bounds = [rows * part // -(-rows // most) for part in range(-(-rows // most) + 1)]
    return [slice(begin, end) for begin, end in itertools.pairwise(bounds)]
