"""BERT and XLM-RoBERTa with one output: post-norm encoder layers, then a head on the first token.

Source: Devlin et al. 2018, https://arxiv.org/abs/1810.04805; names and epsilons as in the released checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass

from rerankd.engine.onnx.config import EncoderConfig
from rerankd.engine.onnx.graph import MICROSOFT, GraphBuilder
from rerankd.engine.onnx.graphs.inputs import Inputs

_BERT, _XLM_ROBERTA = "bert", "roberta"


@dataclass(frozen=True, slots=True)
class _Encoder:
    graph: GraphBuilder
    config: EncoderConfig
    inputs: Inputs
    prefix: str

    def embed(self, token_types: bool) -> str:
        """Word, position and segment embeddings, normed: (batch * length, hidden)."""
        graph, config, hidden = self.graph, self.config, self.config.hidden
        base = f"{self.prefix}.embeddings"
        words = graph.embedding(f"{base}.word_embeddings.weight", self.inputs.flat_ids, config.vocabulary, hidden)
        table = f"{base}.position_embeddings.weight"
        positions = graph.embedding(table, self.inputs.positions(config.first_position), config.positions, hidden)
        words = graph.node("Add", words, self.inputs.flatten(positions))
        segments = f"{base}.token_type_embeddings.weight"
        kinds = self.inputs.token_types if token_types else graph.constant([0])
        words = graph.node("Add", words, graph.embedding(segments, kinds, config.token_types, hidden))
        return graph.layer_norm(words, f"{base}.LayerNorm", hidden, config.norm_eps)

    def layer(self, rows: str, index: int) -> str:
        """One layer; the last one computes its output for the first token of each sequence alone."""
        config = self.config
        base = f"{self.prefix}.encoder.layer.{index}"
        is_last = index == config.layers - 1
        kept = self.inputs.first_rows(rows, config.hidden) if is_last else rows
        attended = self._attention(kept, rows, f"{base}.attention.self", is_last)
        # A few rows cost nothing in float32 either.
        wide, quantize = config.intermediate, not is_last
        kept = self._add_norm(attended, kept, f"{base}.attention.output", config.hidden, quantize=quantize)
        inner = self.graph.linear(kept, f"{base}.intermediate.dense", config.hidden, wide, quantize=quantize)
        return self._add_norm(self.graph.node("Gelu", inner), kept, f"{base}.output", wide, quantize=quantize)

    def _attention(self, queries: str, rows: str, base: str, is_last: bool) -> str:
        graph, hidden = self.graph, self.config.hidden
        query = graph.linear(queries, f"{base}.query", hidden, hidden, quantize=not is_last)
        key = graph.linear(rows, f"{base}.key", hidden, hidden)
        value = graph.linear(rows, f"{base}.value", hidden, hidden)
        query = graph.reshape(query, -1, 1, hidden) if is_last else self.inputs.unflatten(query, hidden)
        key, value = self.inputs.unflatten(key, hidden), self.inputs.unflatten(value, hidden)
        attended = self.inputs.attention(query, key, value, self.config.heads)
        return graph.reshape(attended, -1, hidden)

    def _add_norm(self, rows: str, residual: str, base: str, width: int, *, quantize: bool) -> str:
        graph, config = self.graph, self.config
        rows = graph.linear(rows, f"{base}.dense", width, config.hidden, bias=False, quantize=quantize)
        # The norm adds the layer's bias on its way.
        names = (f"{base}.LayerNorm.weight", f"{base}.LayerNorm.bias", f"{base}.dense.bias")
        vectors = [graph.weight(name, config.hidden) for name in names]
        return graph.node(
            "SkipLayerNormalization", rows, residual, *vectors, domain=MICROSOFT, epsilon=config.norm_eps
        )

    def encode(self, token_types: bool) -> str:
        """The last layer's output for the first tokens, (batch, hidden)."""
        rows = self.embed(token_types)
        for index in range(self.config.layers):
            rows = self.layer(rows, index)
        return rows


def build_bert(graph: GraphBuilder, config: EncoderConfig) -> bytes:
    """``BertForSequenceClassification``: pooler (dense, tanh), then the classifier."""
    inputs = Inputs(graph)
    first = _Encoder(graph, config, inputs, _BERT).encode(token_types=True)
    return _classify(graph, config, inputs, first, f"{_BERT}.pooler.dense", "classifier")


def build_xlm_roberta(graph: GraphBuilder, config: EncoderConfig) -> bytes:
    """``XLMRobertaForSequenceClassification``: dense, tanh, then the projection to one output."""
    inputs = Inputs(graph)
    first = _Encoder(graph, config, inputs, _XLM_ROBERTA).encode(token_types=False)
    return _classify(graph, config, inputs, first, "classifier.dense", "classifier.out_proj")


def _classify(
    graph: GraphBuilder, config: EncoderConfig, inputs: Inputs, first: str, dense: str, output: str
) -> bytes:
    pooled = graph.node("Tanh", graph.linear(first, dense, config.hidden, config.hidden, quantize=False))
    return graph.model(inputs.names, graph.linear(pooled, output, config.hidden, 1, quantize=False))
