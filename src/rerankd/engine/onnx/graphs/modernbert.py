"""ModernBERT with one output: pre-norm layers, rotary positions, gated MLP, local attention in most layers.

Source: Warner et al. 2024, https://arxiv.org/abs/2412.13663.
"""

from __future__ import annotations

import numpy as np

from rerankd.engine.onnx.config import ModernBertConfig
from rerankd.engine.onnx.graph import MICROSOFT, GraphBuilder
from rerankd.engine.onnx.graphs.inputs import Inputs
from rerankd.engine.onnx.graphs.rotary import Rotary

_MASKED = -10_000.0
"""Added to the score of a token outside the window, as ONNX Runtime's operators add it to that of padding."""


class _Encoder:
    def __init__(self, graph: GraphBuilder, config: ModernBertConfig) -> None:
        self.graph = graph
        self.config = config
        self.inputs = Inputs(graph)
        head = config.hidden // config.heads
        self._global = Rotary(graph, head, config.global_rope_theta, config.max_length)
        self._local = Rotary(graph, head, config.local_rope_theta, config.max_length)

    def encode(self) -> str:
        """What the head reads of each sequence, (batch, hidden)."""
        config = self.config
        ids = self.inputs.flat_ids
        rows = self.graph.embedding("model.embeddings.tok_embeddings.weight", ids, config.vocabulary, config.hidden)
        rows = self._norm(rows, "model.embeddings.norm")
        for index in range(config.layers):
            rows = self._layer(rows, index)
        rows = self._norm(rows, "model.final_norm")
        return self.inputs.mean_rows(rows, config.hidden) if config.mean_pooling else rows

    def _layer(self, rows: str, index: int) -> str:
        """One layer; the last one keeps the first token of each sequence alone where the head reads no other."""
        graph, config = self.graph, self.config
        base = f"model.layers.{index}"
        firsts_only = index == config.layers - 1 and not config.mean_pooling
        normed = self._norm(rows, f"{base}.attn_norm") if index else rows
        kept = self.inputs.first_rows(rows, config.hidden) if firsts_only else rows
        queries = self.inputs.first_rows(normed, config.hidden) if firsts_only else normed
        attended = self._attention(queries, normed, f"{base}.attn", config.is_local[index], firsts_only)
        attended = graph.linear(attended, f"{base}.attn.Wo", config.hidden, config.hidden, bias=False)
        kept = graph.node("Add", kept, attended)
        return graph.node("Add", kept, self._mlp(self._norm(kept, f"{base}.mlp_norm"), f"{base}.mlp"))

    def _attention(self, queries: str, rows: str, base: str, is_local: bool, firsts_only: bool) -> str:
        graph, inputs, hidden = self.graph, self.inputs, self.config.hidden
        rotary = self._local if is_local else self._global
        query, key, value = (
            graph.linear(source, f"{base}.Wqkv", hidden, hidden, bias=False, part=(index, 3))
            for index, source in enumerate((queries, rows, rows))
        )
        key, value = rotary(inputs.unflatten(key, hidden)), inputs.unflatten(value, hidden)
        if firsts_only:
            # At position 0 the rotation is none.
            query = graph.reshape(query, -1, 1, hidden)
            attended = self._of_first(query, key, value) if is_local else self._of_all(query, key, value)
        else:
            query = rotary(inputs.unflatten(query, hidden))
            attended = self._within_window(query, key, value) if is_local else self._of_all(query, key, value)
        return graph.reshape(attended, -1, hidden)

    def _of_all(self, query: str, key: str, value: str) -> str:
        return self.inputs.attention(query, key, value, self.config.heads)

    def _of_first(self, query: str, key: str, value: str) -> str:
        """Attention of the first token within its window."""
        graph = self.graph
        bounds = (graph.constant([0]), graph.constant([self.config.window + 1]), graph.constant([1]))
        key, value, mask = (graph.node("Slice", whole, *bounds) for whole in (key, value, self.inputs.mask))
        names = (query, key, value, "", mask)
        return graph.node("MultiHeadAttention", *names, domain=MICROSOFT, num_heads=self.config.heads)

    def _within_window(self, query: str, key: str, value: str) -> str:
        """Sliding-window attention in time and memory linear in the length.

        Sequences are cut into blocks as long as the window's reach; each block of queries sees the keys of its own
        and the two neighbouring blocks, less those that are out of reach.
        """
        graph, inputs, config = self.graph, self.inputs, self.config
        block = config.window
        over = graph.node("Mod", graph.node("Neg", inputs.length), graph.constant([block]))
        queries = graph.reshape(self._pad(query, 0, over), -1, block, config.hidden)
        keys, values = (self._neighbourhoods(whole, over, config.hidden) for whole in (key, value))
        mask = graph.reshape(self._neighbourhoods(graph.reshape(inputs.mask, 0, 0, 1), over, 1), -1, 3 * block)
        names = (queries, keys, values, "", mask, self._reach())
        attended = graph.node("MultiHeadAttention", *names, domain=MICROSOFT, num_heads=config.heads)
        attended = graph.reshape(attended, inputs.batch, graph.constant([-1]), config.hidden)
        return graph.node("Slice", attended, graph.constant([0]), inputs.length, graph.constant([1]))

    def _neighbourhoods(self, whole: str, over: str, width: int) -> str:
        """(batch, length, width) -> (batch * blocks, 3 * block, width): each block between its neighbours."""
        graph, block = self.graph, self.config.window
        padded = self._pad(whole, block, graph.node("Add", over, graph.constant([block])))
        shifted = []
        for shift in range(3):
            bounds = (graph.constant([shift * block]), graph.constant([(shift - 2) * block or 2**62]))
            part = graph.node("Slice", padded, *bounds, graph.constant([1]))
            shifted.append(graph.reshape(part, -1, block, width))
        return graph.node("Concat", *shifted, axis=1)

    def _pad(self, whole: str, before: int, after: str) -> str:
        """Zeros before and after each sequence of (batch, length, width)."""
        graph = self.graph
        return graph.node(
            "Pad", whole, graph.node("Concat", graph.constant([before]), after, axis=0), "", graph.constant([1])
        )

    def _reach(self) -> str:
        """What is added to the scores of a block of queries, (1, 1, block, 3 * block)."""
        block = self.config.window
        distance = np.arange(3 * block)[None, :] - block - np.arange(block)[:, None]
        return self.graph.constant(np.where(np.abs(distance) <= block, 0, _MASKED).astype(np.float32)[None, None])

    def _mlp(self, rows: str, base: str) -> str:
        graph, hidden, wide = self.graph, self.config.hidden, self.config.intermediate
        value, gate = (
            graph.linear(rows, f"{base}.Wi", hidden, wide, bias=False, part=(index, 2)) for index in range(2)
        )
        gated = graph.node("Mul", graph.node("Gelu", value), gate)
        return graph.linear(gated, f"{base}.Wo", wide, hidden, bias=False)

    def _norm(self, rows: str, name: str) -> str:
        return self.graph.layer_norm(rows, name, self.config.hidden, self.config.norm_eps, bias=False)


def build_modernbert(graph: GraphBuilder, config: ModernBertConfig) -> bytes:
    """``ModernBertForSequenceClassification``: dense, GELU, norm, then the classifier."""
    encoder = _Encoder(graph, config)
    hidden = config.hidden
    rows = graph.linear(encoder.encode(), "head.dense", hidden, hidden, bias=False, quantize=False)
    rows = graph.layer_norm(graph.node("Gelu", rows), "head.norm", hidden, config.norm_eps, bias=False)
    return graph.model(encoder.inputs.names, graph.linear(rows, "classifier", hidden, 1, quantize=False))
