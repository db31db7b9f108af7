"""Small models of every layout, and which of them are computed in which formats."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

import pytest
from tests.checkpoints import Layout

SMALL = Layout()
LAYOUTS = {
    "tied": (SMALL, 1),
    "untied, one head of keys": (replace(SMALL, tie_word_embeddings=False, num_key_value_heads=1), 1),
    "sharded, four heads of keys": (replace(SMALL, num_key_value_heads=4), 3),
    "eight heads of keys": (replace(SMALL, num_attention_heads=16, num_key_value_heads=8), 1),
    "classifier": (replace(SMALL, architecture="Qwen3ForSequenceClassification", rope_theta=1e10), 1),
    "biases, no head norms": (replace(SMALL, architecture="Qwen2ForCausalLM"), 1),
    "biases and head norms": (replace(SMALL, attention_bias=True), 1),
    "YaRN": (replace(SMALL, yarn_factor=4.0), 1),
    "Llama": (replace(SMALL, architecture="LlamaForCausalLM", tie_word_embeddings=False, llama3_factor=8.0), 1),
    "Llama, biases, classifier": (
        replace(SMALL, architecture="LlamaForSequenceClassification", attention_bias=True),
        1,
    ),
    "Gemma": (replace(SMALL, architecture="GemmaForCausalLM", num_key_value_heads=1), 1),
}
"""Each with its number of shards."""


FEW = ("tied", "untied, one head of keys", "sharded, four heads of keys", "Gemma")
"""Those that lay out heads and caches in different ways; the others differ in what is done with a row."""


def in_formats(formats: Iterable[str], layouts: Collection[str] = tuple(LAYOUTS)) -> pytest.MarkDecorator:
    """``checkpoint`` and ``dtype``: one layout in all formats and ``layouts`` in the first; the rest is thorough."""
    first, *others = formats
    rows = []
    for dtype in (first, *others):
        quick = layouts if dtype == first else ("tied",)
        rows += [
            pytest.param(layout, dtype, marks=() if layout in quick else pytest.mark.thorough) for layout in LAYOUTS
        ]
    return pytest.mark.parametrize(("checkpoint", "dtype"), rows, indirect=["checkpoint"], scope="session")
