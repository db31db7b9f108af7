"""A decoder with RMSNorm, RoPE and a gated MLP, from packed token ids to one raw score a pair.

What Qwen3, Qwen2, Llama and Gemma do differently is data: `Family` in ``config.py``.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from rerankd.engine.base import HeadSpec
from rerankd.engine.native.activations import QuantizedTensor
from rerankd.engine.native.backend import Backend, GateUp, Linear
from rerankd.engine.native.config import ModelConfig
from rerankd.engine.native.cpu.torch_ops import rms_norm
from rerankd.engine.native.forward_batch import ForwardBatch
from rerankd.engine.native.rope import RotaryEmbedding
from rerankd.engine.native.weight_loader import WeightLoader


@dataclass(slots=True)
class ForwardState:
    """What one forward pass carries from layer to layer.

    Attributes:
        blocks: the rows that go through a layer's GEMMs together.
        hidden_states: the residual stream, (tokens, hidden).
        cos, sin: of each token's rotary angles, (tokens, head_dim / 2).
        queries, keys, values: (rows, heads, head_dim), overwritten by each layer; keys and values from the KV cache
            come behind those of the computed tokens.
        pending_residual: the last MLP's output, not yet added to the residual stream: the next norm adds it in the
            same pass over memory. None before the first layer.
    """

    batch: ForwardBatch
    blocks: list[slice]
    hidden_states: torch.Tensor
    cos: torch.Tensor
    sin: torch.Tensor
    queries: torch.Tensor
    keys: torch.Tensor
    values: torch.Tensor
    pending_residual: QuantizedTensor | None = None


class Decoder:
    """Weights and the forward pass.

    Args:
        config: the checkpoint's numbers.
        loader: where the weights come from; its backend computes.
        head: how the raw score is read from the last position.
        length: tokens of the longest pair.
    """

    def __init__(self, config: ModelConfig, loader: WeightLoader, head: HeadSpec, length: int) -> None:
        self._config = config
        self._precision = loader.backend.precision
        self._block_rows = loader.backend.block_rows
        self._embedding = loader.embedding()
        self._rotary = RotaryEmbedding(config, length, loader.backend.device)
        self._layers = [DecoderLayer.load(config, loader, index) for index in range(config.layers)]
        self._norm = loader.norm("model.norm", config.hidden)
        self._head = loader.head(head)

    def __call__(self, batch: ForwardBatch) -> torch.Tensor:
        """Raw scores, float32 (pairs,)."""
        state = self._embed(batch)
        for layer in self._layers[:-1]:
            layer(state)
        hidden_states = self._layers[-1].last_token(state)
        return rms_norm(hidden_states, self._norm, self._config.norm_eps) @ self._head

    def _embed(self, batch: ForwardBatch) -> ForwardState:
        config = self._config
        hidden_states = F.embedding(batch.ids, self._embedding).to(self._precision.residual_dtype)
        if config.family.scales_embedding:
            hidden_states = hidden_states * math.sqrt(config.hidden)
        tokens, cached = len(hidden_states), batch.prefix_kv.rows

        def buffer(rows: int, heads: int) -> torch.Tensor:
            return hidden_states.new_empty(rows, heads, config.head_dim, dtype=self._precision.compute_dtype)

        return ForwardState(
            batch,
            _blocks(tokens, self._block_rows),
            hidden_states,
            *self._rotary.at(batch.positions),
            queries=buffer(tokens, config.heads),
            keys=buffer(tokens + cached, config.kv_heads),
            values=buffer(tokens + cached, config.kv_heads),
        )


@dataclass(frozen=True, slots=True)
class DecoderLayer:
    """Attention, then the gated MLP, each added to the residual stream (tokens, hidden)."""

    index: int
    config: ModelConfig
    backend: Backend
    input_norm: torch.Tensor
    qkv: Linear
    query_norm: torch.Tensor | None
    """(heads, head_dim)"""
    key_norm: torch.Tensor | None
    """(kv_heads, head_dim)"""
    output: Linear
    mlp_norm: torch.Tensor
    gate_up: GateUp
    down: Linear

    @classmethod
    def load(cls, config: ModelConfig, loader: WeightLoader, index: int) -> DecoderLayer:
        base = f"model.layers.{index}"
        attention, mlp = f"{base}.self_attn", f"{base}.mlp"
        query, key = config.heads * config.head_dim, config.kv_heads * config.head_dim
        return cls(
            index=index,
            config=config,
            backend=loader.backend,
            input_norm=loader.norm(f"{base}.input_layernorm", config.hidden),
            # Attention averages many values: random errors of theirs average out, the quantisation error of their
            # weights does not. In one int8 term it took the largest error of 200 pairs from .016 to .022.
            qkv=loader.linear(
                {f"{attention}.q_proj": query, f"{attention}.k_proj": key, f"{attention}.v_proj": key},
                config.hidden,
                bias=config.qkv_bias,
                two_term_int8=1,
            ),
            query_norm=loader.head_norm(f"{attention}.q_norm", config.heads),
            key_norm=loader.head_norm(f"{attention}.k_norm", config.kv_heads),
            # In int8 it would give half of all the error, and its input would have to be quantised for it alone.
            output=loader.linear(
                {f"{attention}.o_proj": config.hidden}, query, bias=config.output_bias, keep_unquantized=True
            ),
            mlp_norm=loader.norm(f"{base}.post_attention_layernorm", config.hidden),
            gate_up=loader.gate_up(f"{mlp}.gate_proj", f"{mlp}.up_proj"),
            down=loader.linear({f"{mlp}.down_proj": config.hidden}, config.intermediate),
        )

    def __call__(self, state: ForwardState) -> None:
        """Every token through attention and MLP."""
        self._qkv(state)
        attended = state.batch.attention.prefill(state.queries, state.keys, state.values)
        state.pending_residual = self._output_and_mlp(state.hidden_states, attended, state.blocks)

    def last_token(self, state: ForwardState) -> torch.Tensor:
        """The last layer: every token gives keys and values, the last one of each pair goes on, (pairs, hidden)."""
        self._qkv(state)
        last = state.batch.last
        attended = state.batch.attention.last_token(state.queries[last], state.keys, state.values)
        hidden_states = state.hidden_states[last]
        blocks = _blocks(len(hidden_states), self.backend.block_rows)
        return hidden_states + self._output_and_mlp(hidden_states, attended, blocks).dequantize()

    def _qkv(self, state: ForwardState) -> None:
        """Add the pending residual; then queries, keys and values of every token, the first two rotated."""
        config, ops = self.config, self.backend.ops
        dtype = self.backend.precision.activation_dtype
        for rows in state.blocks:
            pending = None if state.pending_residual is None else state.pending_residual[rows]
            normed = ops.add_rms_norm(state.hidden_states[rows], pending, self.input_norm, config.norm_eps, dtype)
            query, key, value = self.qkv(normed)
            heads, cos_sin = config.head_dim, (state.cos[rows], state.sin[rows])
            ops.qk_norm_rope(query.split_heads(heads), self.query_norm, config.norm_eps, cos_sin, state.queries[rows])
            ops.qk_norm_rope(key.split_heads(heads), self.key_norm, config.norm_eps, cos_sin, state.keys[rows])
            value.split_heads(heads).dequantize_into(state.values[rows])
        state.batch.prefix_kv(self.index, state.keys, state.values)

    def _output_and_mlp(
        self, hidden_states: torch.Tensor, attended: torch.Tensor, blocks: list[slice]
    ) -> QuantizedTensor:
        """Add attention's output to ``hidden_states`` in place; the MLP's output comes back, to be added later."""
        ops, dtype = self.backend.ops, self.backend.precision.activation_dtype
        parts: list[QuantizedTensor] = []
        for rows in blocks:
            (mixed,) = self.output(QuantizedTensor(attended[rows]))
            normed = ops.add_rms_norm(hidden_states[rows], mixed, self.mlp_norm, self.config.norm_eps, dtype)
            parts.extend(self.down(self.gate_up(normed)))
        return QuantizedTensor.concat(parts)


def _blocks(rows: int, most: int) -> list[slice]:
    """Blocks of nearly equal size: a small last one would cost a GEMM as much as a large one."""
    if rows <= most:
        return [slice(0, rows)]
    blocks = -(-rows // most)
    bounds = [rows * block // blocks for block in range(blocks + 1)]
    return [slice(begin, end) for begin, end in itertools.pairwise(bounds)]
