"""A graph's inputs, and what follows from them: positions, masks, attention over padded sequences."""

from __future__ import annotations

from functools import cached_property

from rerankd.engine.onnx.graph import MICROSOFT, GraphBuilder
from rerankd.engine.onnx.protobuf import DataType


class Inputs:
    """``input_ids``, ``attention_mask`` and, once asked for, ``token_type_ids``: int64 (batch, length).

    Sequences are padded on the right.
    """

    def __init__(self, graph: GraphBuilder) -> None:
        self._graph = graph
        self.names = ["input_ids", "attention_mask"]

    @cached_property
    def flat_ids(self) -> str:
        """Token ids of all sequences one after another, (batch * length,)."""
        return self._graph.reshape("input_ids", -1)

    @cached_property
    def token_types(self) -> str:
        """Segments of all tokens, (batch * length,)."""
        self.names.append("token_type_ids")
        return self._graph.reshape("token_type_ids", -1)

    @cached_property
    def batch(self) -> str:
        """Number of sequences, int64 (1,)."""
        return self._graph.node("Shape", "input_ids", start=0, end=1)

    @cached_property
    def length(self) -> str:
        """Length of the longest sequence, int64 (1,)."""
        return self._graph.node("Shape", "input_ids", start=1, end=2)

    @cached_property
    def mask(self) -> str:
        """int32 (batch, length): 1 for a token, 0 for padding."""
        return self._graph.node("Cast", "attention_mask", to=DataType.INT32)

    @cached_property
    def lengths(self) -> str:
        """Tokens of each sequence, int32 (batch,)."""
        return self._graph.node("ReduceSum", self.mask, self._graph.constant([1]), keepdims=0)

    @cached_property
    def is_full(self) -> str:
        """Whether no sequence is padded, bool ()."""
        return self._graph.node("Cast", self._graph.node("ReduceMin", self.mask, keepdims=0), to=DataType.BOOL)

    def positions(self, first: int) -> str:
        """``first`` and the numbers after it, int64 (length,)."""
        graph = self._graph
        end = graph.node("Add", graph.node("Squeeze", self.length), graph.constant(first))
        return graph.node("Range", graph.constant(first), end, graph.constant(1))

    def flatten(self, by_position: str) -> str:
        """Rows of one sequence (length, width) for every sequence, (batch * length, width)."""
        graph = self._graph
        one = graph.constant([1])
        return graph.node("Tile", by_position, graph.node("Concat", self.batch, one, axis=0))

    def unflatten(self, rows: str, width: int) -> str:
        """(batch * length, width) -> (batch, length, width)"""
        return self._graph.reshape(rows, self.batch, self.length, width)

    def first_rows(self, rows: str, width: int) -> str:
        """The row of each sequence's first token, (batch, width)."""
        graph = self._graph
        return graph.node("Gather", self.unflatten(rows, width), graph.constant(0), axis=1)

    def mean_rows(self, rows: str, width: int) -> str:
        """The mean over each sequence's tokens, (batch, width)."""
        graph = self._graph
        weights = graph.reshape(graph.node("Cast", self.mask, to=DataType.FLOAT), 0, 0, 1)
        total = graph.node(
            "ReduceSum", graph.node("Mul", self.unflatten(rows, width), weights), graph.constant([1]), keepdims=0
        )
        count = graph.reshape(graph.node("Cast", self.lengths, to=DataType.FLOAT), -1, 1)
        return graph.node("Div", total, count)

    def last_rows(self, rows: str) -> str:
        """The row of each sequence's last token, (batch, width)."""
        graph = self._graph
        ends = graph.node("Cast", self.lengths, to=DataType.INT64)
        starts = graph.node("Mul", self._sequence_numbers, self.length)
        last = graph.node("Sub", graph.node("Add", starts, ends), graph.constant([1]))
        return graph.node("Gather", rows, last)

    @cached_property
    def _sequence_numbers(self) -> str:
        graph = self._graph
        return graph.node("Range", graph.constant(0), graph.node("Squeeze", self.batch), graph.constant(1))

    def attention(self, query: str, key: str, value: str, heads: int) -> str:
        """Softmax attention of every token to every token of its sequence, (batch, queries, width).

        Where nothing is padded the operator needs no mask and runs in blocks (flash attention), in memory that does
        not grow with the square of the length.
        """
        graph = self._graph

        def flash() -> str:
            return graph.node("MultiHeadAttention", query, key, value, domain=MICROSOFT, num_heads=heads)

        def masked() -> str:
            names = (query, key, value, "", self.mask)
            return graph.node("MultiHeadAttention", *names, domain=MICROSOFT, num_heads=heads)

        return graph.either(self.is_full, flash, masked)
