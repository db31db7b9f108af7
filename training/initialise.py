"""Weights that already match words before the first training step.

With random layers nothing is learned in an hour on two cores. So the circuit of a term matcher is written into the
weights by hand: a segment flag that tells query from document, a previous-token head, two layers of heads in which
each query token looks for its like in the document, neurons that multiply the finding with the token's rarity, and a
last head that averages the products over the query. Training bends it into something better.

In the comments ``q[d, x] = a`` is the weight from stream dimension x to head dimension d.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from training.content import CONTENT_DIMS
from training.tokenizer import BOS, END, PAD, QUERY


@dataclass(frozen=True)
class Shape:
    """Sizes of the model; head count times ``head_dim`` equals ``hidden``."""

    vocabulary: int
    hidden: int = 256
    layers: int = 4
    heads: int = 4
    head_dim: int = 64
    intermediate: int = 640
    # So large a base leaves two thirds of the rotary pairs practically free of position: content can match anywhere.
    rope_theta: float = 1e10
    eps: float = 1e-6

    def frequencies(self) -> torch.Tensor:
        """Inverse frequencies (head_dim / 2,), float32."""
        half = torch.arange(0, self.head_dim, 2, dtype=torch.float32) / self.head_dim
        return self.rope_theta**-half


# The map of the residual stream.
RARITY, CONSTANT, BOS_MARK, QUERY_MARK, END_MARK, SEGMENT = 192, 193, 194, 195, 196, 197
PREVIOUS = slice(198, 238)
FLAGS = {1: (240, 241, 242, 243), 2: (248, 249, 250, 251)}
PRODUCTS = (244, 245, 246, 247)
OUTPUT = 252

# Head dimensions whose rotary pair turns so slowly that position does not matter; 30 and 31 are for sink and segment.
SLOW = [*range(10, 30), *range(42, 64)]
SINK_DIM, SEGMENT_DIM = 30, 31
# Cosine below which nothing counts as a match. High, or long documents match everything a little.
SINK_THRESHOLDS = {1: (0.9, 0.75, 0.9, 0.85), 2: (0.9, 0.85, 0.9, 0.9)}
QK_NORM = {0: math.sqrt(2.5), 1: math.sqrt(5.0), 2: math.sqrt(5.0), 3: math.sqrt(2.5)}
SEMANTIC_DIMS = 144

State = dict[str, torch.Tensor]


class Initialiser:
    """Fills a state dict (Hugging Face names, float32) with noise and then with the circuit."""

    def __init__(self, shape: Shape, seed: int) -> None:
        self.shape = shape
        self.random = torch.Generator().manual_seed(seed)
        self.state: State = {}

    def noise(self, *size: int, scale: float = 0.02) -> torch.Tensor:
        return torch.randn(*size, generator=self.random) * scale

    def orthonormal(self, rows: int, columns: int) -> torch.Tensor:
        """Orthonormal rows, scaled to keep the length of a vector on average."""
        square: torch.Tensor = torch.linalg.qr(torch.randn(columns, columns, generator=self.random)).Q
        return square[:rows] * math.sqrt(columns / rows)

    def head(self, layer: int, part: str, head: int) -> torch.Tensor:
        """A view (head_dim, hidden) of one head's rows of q, k or v; for ``o`` its columns (hidden, head_dim)."""
        weight = self.state[f"model.layers.{layer}.self_attn.{part}_proj.weight"]
        place = slice(head * self.shape.head_dim, (head + 1) * self.shape.head_dim)
        return weight[:, place] if part == "o" else weight[place]

    def random_layers(self) -> None:
        shape, width = self.shape, self.shape.heads * self.shape.head_dim
        for layer in range(shape.layers):
            name = f"model.layers.{layer}"
            for part in "qkv":
                self.state[f"{name}.self_attn.{part}_proj.weight"] = self.noise(width, shape.hidden)
            self.state[f"{name}.self_attn.o_proj.weight"] = self.noise(shape.hidden, width)
            for part in ("q", "k"):
                self.state[f"{name}.self_attn.{part}_norm.weight"] = torch.full((shape.head_dim,), QK_NORM[layer])
            self.state[f"{name}.mlp.gate_proj.weight"] = self.noise(shape.intermediate, shape.hidden)
            self.state[f"{name}.mlp.up_proj.weight"] = self.noise(shape.intermediate, shape.hidden)
            self.state[f"{name}.mlp.down_proj.weight"] = self.noise(shape.hidden, shape.intermediate, scale=0.006)
            for norm in ("input_layernorm", "post_attention_layernorm"):
                self.state[f"{name}.{norm}.weight"] = torch.ones(shape.hidden)
        self.state["model.norm.weight"] = torch.ones(shape.hidden)

    def embeddings(self, content: NDArray[np.float32], rarity: NDArray[np.float32]) -> None:
        table = self.noise(self.shape.vocabulary, self.shape.hidden, scale=0.05)
        table[:, :CONTENT_DIMS] = torch.from_numpy(content) * 12
        table[:, RARITY] = torch.from_numpy(rarity) * 0.6
        table[:, CONSTANT] = 6
        for token, mark in ((BOS, BOS_MARK), (QUERY, QUERY_MARK), (END, END_MARK)):
            table[token, RARITY] = 0
            table[token, mark] = 12
        table[PAD] = 0
        self.state["model.embed_tokens.weight"] = table

    def segment_head(self) -> None:
        """Layer 0, head 0: everything from <q> on looks at <q>, everything before it at <bos>."""
        self.head(0, "q", 0)[SEGMENT_DIM, CONSTANT] = 1
        key = self.head(0, "k", 0)
        key[SEGMENT_DIM, CONSTANT], key[SEGMENT_DIM, BOS_MARK], key[SEGMENT_DIM, QUERY_MARK] = -1, 1, 3
        key[SINK_DIM, BOS_MARK] = 0.8
        self.head(0, "v", 0)[0, QUERY_MARK] = 1
        self.head(0, "o", 0)[SEGMENT, 0] = 0.46

    def previous_token_head(self) -> None:
        """Layer 0, head 1: the fast rotary pairs, turned by one position, find the token before; head 2: a window."""
        query, key = self.head(0, "q", 1), self.head(0, "k", 1)
        frequencies = self.shape.frequencies()
        for pair in range(4):
            query[pair, CONSTANT] = 1
            key[pair, CONSTANT] = torch.cos(frequencies[pair])
            key[pair + self.shape.head_dim // 2, CONSTANT] = torch.sin(frequencies[pair])
        self.head(0, "v", 1)[:40, :CONTENT_DIMS] = self.orthonormal(40, CONTENT_DIMS)
        self.head(0, "o", 1)[PREVIOUS, :40] = torch.eye(40) * 0.6
        for part in "qk":
            local = self.head(0, part, 2)
            local *= 0.1
            local[2, CONSTANT], local[3, CONSTANT] = 1, 1

    def match_head(self, layer: int, head: int) -> None:
        """A query token looks for its like in the document, or at <bos> when nothing is alike enough."""
        query, key = self.head(layer, "q", head), self.head(layer, "k", head)
        project = self.orthonormal(len(SLOW), CONTENT_DIMS)
        if (layer, head) == (1, 1):
            project = torch.zeros(len(SLOW), CONTENT_DIMS)
            project[:, :SEMANTIC_DIMS] = self.orthonormal(len(SLOW), SEMANTIC_DIMS)
        if head == 2:
            project = project * 0.75
        for weight in (query, key):
            weight[SLOW, :CONTENT_DIMS] = project
            if head == 2:
                weight[SLOW, PREVIOUS] = self.previous_projection(layer) * 1.1
        query[SEGMENT_DIM, SEGMENT], key[SEGMENT_DIM, SEGMENT] = 2, -2
        query[SINK_DIM, CONSTANT], key[SINK_DIM, BOS_MARK] = 2 * SINK_THRESHOLDS[layer][head], 2
        value = self.head(layer, "v", head)
        value[0, CONSTANT], value[0, BOS_MARK] = 1, -0.5
        self.head(layer, "o", head)[FLAGS[layer][head], 0] = 1.1

    def previous_projection(self, layer: int) -> torch.Tensor:
        """(len(SLOW), 40), the same for query and key of one layer."""
        random = torch.Generator().manual_seed(layer)
        square: torch.Tensor = torch.linalg.qr(torch.randn(len(SLOW), len(SLOW), generator=random)).Q
        return square[:, :40]

    def rarity_neurons(self, layer: int) -> None:
        for neuron, (flag, product) in enumerate(zip(FLAGS[layer], PRODUCTS, strict=True)):
            name = f"model.layers.{layer}.mlp"
            self.state[f"{name}.gate_proj.weight"][neuron, flag] = 0.8
            self.state[f"{name}.up_proj.weight"][neuron, RARITY] = 1
            self.state[f"{name}.down_proj.weight"][product, neuron] = 0.3

    def aggregate_head(self) -> None:
        """Layer 3, head 0: <end> averages the products of the query tokens into the output dimension."""
        self.head(3, "q", 0)[SEGMENT_DIM, CONSTANT] = 1
        key = self.head(3, "k", 0)
        key[SEGMENT_DIM, SEGMENT], key[SEGMENT_DIM, CONSTANT] = 2, -1
        key[SEGMENT_DIM, END_MARK], key[SEGMENT_DIM, QUERY_MARK] = -3, -3
        for dim, product in enumerate(PRODUCTS):
            self.head(3, "v", 0)[dim, product] = 1
            self.head(3, "o", 0)[OUTPUT, dim] = 0.5
        score = self.noise(1, self.shape.hidden, scale=0.012)
        score[0, OUTPUT] = 6.0
        self.state["score.weight"] = score


def initial_state(shape: Shape, content: NDArray[np.float32], rarity: NDArray[np.float32], seed: int) -> State:
    """The compiled start: ``content`` (vocabulary, 192) unit rows, ``rarity`` (vocabulary,)."""
    initialiser = Initialiser(shape, seed)
    initialiser.random_layers()
    initialiser.embeddings(content, rarity)
    initialiser.segment_head()
    initialiser.previous_token_head()
    for layer in (1, 2):
        for head in range(shape.heads):
            initialiser.match_head(layer, head)
        initialiser.rarity_neurons(layer)
    initialiser.aggregate_head()
    return initialiser.state
