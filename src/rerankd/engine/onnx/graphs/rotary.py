"""Rotary position embedding: Su et al. 2021, https://arxiv.org/abs/2104.09864, in the NeoX layout (half-split)."""

from __future__ import annotations

import numpy as np

from rerankd.engine.onnx.graph import MICROSOFT, GraphBuilder


class Rotary:
    """Cosines and sines of all positions, float32 (length, head / 2), as initializers of a graph.

    Args:
        head: numbers of one head.
        theta: the base of the frequencies.
        length: positions of the longest sequence.
    """

    def __init__(self, graph: GraphBuilder, head: int, theta: float, length: int) -> None:
        self._graph = graph
        frequencies = theta ** (-np.arange(0, head, 2, dtype=np.float64) / head)
        angles = np.arange(length, dtype=np.float64)[:, None] * frequencies
        self.cosines = graph.constant(np.cos(angles).astype(np.float32))
        self.sines = graph.constant(np.sin(angles).astype(np.float32))

    def __call__(self, heads: str) -> str:
        """Every token's heads rotated by its position in the sequence, (batch, length, width)."""
        first = self._graph.constant([0])
        return self._graph.node("RotaryEmbedding", heads, first, self.cosines, self.sines, domain=MICROSOFT)
