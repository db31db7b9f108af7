"""Qwen3 with one output, the architecture of the embedded model: a decoder whose head reads the last token.

Source: Qwen3 technical report, https://arxiv.org/abs/2505.09388. Larger decoders are the native engine's, which
shares prefixes; here every prompt is computed whole.
"""

from __future__ import annotations

import numpy as np

from rerankd.engine.native.config import ModelConfig
from rerankd.engine.onnx.graph import MICROSOFT, GraphBuilder
from rerankd.engine.onnx.graphs.inputs import Inputs
from rerankd.engine.onnx.graphs.rotary import Rotary
from rerankd.engine.onnx.protobuf import DataType
from rerankd.errors import ConfigurationError


class _Decoder:
    def __init__(self, graph: GraphBuilder, config: ModelConfig, length: int) -> None:
        self.graph = graph
        self.config = config
        self.inputs = Inputs(graph)
        self._rotary = Rotary(graph, config.head_dim, config.rope_theta, length)
        one = graph.constant(np.int32(1))
        self._last_positions = graph.node("Sub", self.inputs.lengths, one)
        self._longest = graph.node("Cast", graph.node("Squeeze", self.inputs.length), to=DataType.INT32)

    def decode(self) -> str:
        """The last token's hidden state, normed, (batch, hidden)."""
        config = self.config
        table = "model.embed_tokens.weight"
        rows = self.graph.embedding(table, self.inputs.flat_ids, config.vocabulary, config.hidden)
        for index in range(config.layers):
            rows = self._layer(rows, index)
        return self.graph.rms_norm(rows, "model.norm", config.hidden, config.norm_eps)

    def _layer(self, rows: str, index: int) -> str:
        """One layer; behind the last attention the last token of each sequence goes on alone."""
        graph, config = self.graph, self.config
        base = f"model.layers.{index}"
        normed = graph.rms_norm(rows, f"{base}.input_layernorm", config.hidden, config.norm_eps)
        attended = self._attention(normed, f"{base}.self_attn")
        if index == config.layers - 1:
            attended, rows = self.inputs.last_rows(attended), self.inputs.last_rows(rows)
        width = config.heads * config.head_dim
        mixed = graph.linear(attended, f"{base}.self_attn.o_proj", width, config.hidden, bias=config.output_bias)
        rows = graph.node("Add", rows, mixed)
        normed = graph.rms_norm(rows, f"{base}.post_attention_layernorm", config.hidden, config.norm_eps)
        return graph.node("Add", rows, self._mlp(normed, f"{base}.mlp"))

    def _attention(self, rows: str, base: str) -> str:
        """Causal attention with grouped heads; the operator rotates queries and keys itself."""
        graph, config = self.graph, self.config
        query = self._heads(rows, f"{base}.q", config.heads, norm=True)
        key = self._heads(rows, f"{base}.k", config.kv_heads, norm=True)
        value = self._heads(rows, f"{base}.v", config.kv_heads, norm=False)
        tables = (self._rotary.cosines, self._rotary.sines)
        names = (query, key, value, "", "", self._last_positions, self._longest, *tables)
        heads = {"num_heads": config.heads, "kv_num_heads": config.kv_heads}
        attended = graph.nodes("GroupQueryAttention", 3, *names, domain=MICROSOFT, do_rotary=1, **heads)[0]
        return graph.reshape(attended, -1, config.heads * config.head_dim)

    def _heads(self, rows: str, base: str, heads: int, *, norm: bool) -> str:
        """A projection of all rows, (batch, length, heads * head_dim); with ``norm`` each head is normed."""
        graph, config = self.graph, self.config
        width = heads * config.head_dim
        projected = graph.linear(rows, f"{base}_proj", config.hidden, width, bias=config.qkv_bias)
        if norm and config.family.qk_norm:
            projected = graph.reshape(projected, -1, config.head_dim)
            projected = graph.rms_norm(projected, f"{base}_norm", config.head_dim, config.norm_eps)
        return self.inputs.unflatten(projected, width)

    def _mlp(self, rows: str, base: str) -> str:
        graph, hidden, wide = self.graph, self.config.hidden, self.config.intermediate
        gate = graph.linear(rows, f"{base}.gate_proj", hidden, wide, bias=False)
        up = graph.linear(rows, f"{base}.up_proj", hidden, wide, bias=False)
        gated = graph.node("Mul", graph.node("QuickGelu", gate, domain=MICROSOFT, alpha=1.0), up)
        return graph.linear(gated, f"{base}.down_proj", wide, hidden, bias=False)


def build_qwen3(graph: GraphBuilder, config: ModelConfig, length: int) -> bytes:
    """``Qwen3ForSequenceClassification``: ``score.weight`` (1, hidden) on the last token of each sequence."""
    if config.rope_scaling:
        raise ConfigurationError("the onnx engine has no scaled rotary positions; use the native engine")
    decoder = _Decoder(graph, config, length)
    logits = graph.linear(decoder.decode(), "score", config.hidden, 1, bias=False, quantize=False)
    return graph.model(decoder.inputs.names, logits)
