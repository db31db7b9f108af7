"""config.json of an encoder: what is absurd is refused in one short line, before anything of that size is made."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rerankd.engine.onnx.config import EncoderConfig, ModernBertConfig, max_length_of, pad_id_of, require_one_label
from rerankd.errors import ConfigurationError

BERT: dict[str, Any] = {
    "vocab_size": 500,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "num_labels": 1,
}


@pytest.mark.promise("P7")
@pytest.mark.parametrize("read", [EncoderConfig.read, ModernBertConfig.read])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_hidden_layers", 2**31 - 1),
        ("num_hidden_layers", True),
        ("num_hidden_layers", [3]),
        ("hidden_size", 10**4000),
        ("hidden_size", -1),
        ("vocab_size", "x" * 100_000),
        ("max_position_embeddings", 10**12),
        ("max_position_embeddings", float("nan")),
    ],
)
def test_an_absurd_size_is_refused(read: Callable[[dict[str, Any]], Any], name: str, value: object) -> None:
    read(BERT)
    _refused(lambda: read({**BERT, name: value}))


@pytest.mark.promise("P7")
@pytest.mark.parametrize(
    "changes",
    [
        {"layer_types": 5},
        {"layer_types": ["full_attention"] * 2},
        {"layer_types": {"a": 1}},
        {"classifier_pooling": "x" * 100_000},
        {"norm_bias": "\n" * 10_000},
        {"norm_eps": float("inf")},
        {"local_attention": "all"},
        {"global_rope_theta": 10**400},
        {"rope_parameters": {"full_attention": {"rope_type": "x" * 10_000}}},
    ],
)
def test_absurd_values_of_a_modernbert_are_refused(changes: dict[str, Any]) -> None:
    _refused(lambda: ModernBertConfig.read({**BERT, **changes}))


@pytest.mark.promise("P7")
@pytest.mark.parametrize("labels", [2, "x" * 100_000, [1], {"a": 1}, 10**4000])
def test_labels_that_are_not_one_are_refused(labels: object) -> None:
    _refused(lambda: require_one_label({"num_labels": labels}))


@pytest.mark.promise("P7")
@pytest.mark.parametrize("value", [10**30, 2**31, -1, "0", None, [1]])
def test_padding_is_a_token_of_32_bits(value: object) -> None:
    assert pad_id_of({"pad_token_id": value}) == 0
    assert pad_id_of({"pad_token_id": 7}) == 7


@pytest.mark.promise("P7")
@pytest.mark.parametrize("limit", [10**400, float("inf"), float("nan"), -5, "many", 10**30])
def test_an_absurd_limit_of_the_tokenizer_is_none(tmp_path: Path, limit: object) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"model_max_length": limit}))
    assert max_length_of(tmp_path, BERT) == 512


def _refused(read: Callable[[], object]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read()
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 300
