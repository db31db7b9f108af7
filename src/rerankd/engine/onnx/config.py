"""``config.json`` of a cross-encoder, checked: what is not understood is refused by name, never guessed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rerankd.errors import ConfigurationError
from rerankd.files import read_json_object
from rerankd.printable import shown

_ROBERTAS = ("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet")
_MAX_SIZE = 2**31 - 1
_MAX_LAYERS = 1024


def max_length_of(folder: Path, raw: dict[str, Any]) -> int:
    """Tokens of one pair: what the positions allow, and no more than the tokenizer's own ``model_max_length``.

    RoBERTa's positions begin behind the padding token's, so that its tables have so many rows more.
    """
    positions = _size(raw, "max_position_embeddings", 512) - first_position(raw)
    return max(1, min(positions, _tokenizer_limit(folder)))


def first_position(raw: dict[str, Any]) -> int:
    """The position of a sequence's first token."""
    return pad_id_of(raw) + 1 if str(raw.get("model_type")) in _ROBERTAS else 0


def pad_id_of(raw: dict[str, Any]) -> int:
    """The token that fills up shorter sequences; 0 where config.json names none: padding is never attended to."""
    value = raw.get("pad_token_id")
    return value if isinstance(value, int) and 0 <= value < _MAX_SIZE else 0


def _tokenizer_limit(folder: Path) -> int:
    """``model_max_length`` of tokenizer_config.json; transformers writes 10^30 for none."""
    file, unlimited = folder / "tokenizer_config.json", 2**31
    limit = read_json_object(file).get("model_max_length") if file.is_file() else None
    return int(min(limit, unlimited)) if isinstance(limit, int | float) and limit > 0 else unlimited


def require_one_label(raw: dict[str, Any]) -> None:
    """A reranker has one output.

    Raises:
        ConfigurationError: the classifier has several, or none that is known.
    """
    named = raw.get("id2label")
    labels = raw.get("num_labels") or (len(named) if isinstance(named, dict) else 2)
    if labels != 1:
        raise ConfigurationError(f"the checkpoint is a classifier with {shown(labels)} labels; a reranker has one")


@dataclass(frozen=True, slots=True)
class EncoderConfig:
    """The sizes of a BERT or XLM-RoBERTa."""

    vocabulary: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    positions: int
    """Rows of the table of position embeddings."""
    first_position: int
    token_types: int
    norm_eps: float

    @classmethod
    def read(cls, raw: dict[str, Any]) -> EncoderConfig:
        """From ``config.json`` as it stands.

        Raises:
            ConfigurationError: a size is missing, or the model differs from the released ones in a way that
                matters for its scores.
        """
        _require(raw, "hidden_act", "gelu")
        _require(raw, "position_embedding_type", "absolute")
        _require(raw, "is_decoder", False)
        return cls(
            vocabulary=_size(raw, "vocab_size"),
            hidden=_size(raw, "hidden_size"),
            intermediate=_size(raw, "intermediate_size"),
            layers=_size(raw, "num_hidden_layers", most=_MAX_LAYERS),
            heads=_size(raw, "num_attention_heads"),
            positions=_size(raw, "max_position_embeddings"),
            first_position=first_position(raw),
            token_types=_size(raw, "type_vocab_size"),
            norm_eps=_number(raw, "layer_norm_eps", 1e-12),
        )


@dataclass(frozen=True, slots=True)
class ModernBertConfig:
    """The sizes of a ModernBERT."""

    vocabulary: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    max_length: int
    norm_eps: float
    is_local: tuple[bool, ...]
    """Whether each layer attends within a window alone."""
    window: int
    """Tokens on either side that a local layer attends to."""
    global_rope_theta: float
    local_rope_theta: float
    mean_pooling: bool
    """The head reads the mean of all tokens, not the first token."""

    @classmethod
    def read(cls, raw: dict[str, Any]) -> ModernBertConfig:
        """See :meth:`EncoderConfig.read`."""
        _require(raw, "hidden_activation", "gelu")
        _require(raw, "classifier_activation", "gelu")
        for bias in ("attention_bias", "mlp_bias", "norm_bias", "classifier_bias"):
            _require(raw, bias, False)
        layers = _size(raw, "num_hidden_layers", most=_MAX_LAYERS)
        pooling = raw.get("classifier_pooling", "cls")
        if pooling not in ("cls", "mean"):
            raise ConfigurationError(f"the onnx engine knows the pooling 'cls' and 'mean', not {shown(pooling)}")
        return cls(
            vocabulary=_size(raw, "vocab_size"),
            hidden=_size(raw, "hidden_size"),
            intermediate=_size(raw, "intermediate_size"),
            layers=layers,
            heads=_size(raw, "num_attention_heads"),
            max_length=_size(raw, "max_position_embeddings"),
            norm_eps=_number(raw, "norm_eps", 1e-5),
            is_local=_local_layers(raw, layers),
            window=_size(raw, "local_attention", 128) // 2,
            global_rope_theta=_rope_theta(raw, "full_attention", "global_rope_theta", 160_000.0),
            local_rope_theta=_rope_theta(raw, "sliding_attention", "local_rope_theta", 10_000.0),
            mean_pooling=pooling == "mean",
        )


def _local_layers(raw: dict[str, Any], layers: int) -> tuple[bool, ...]:
    # transformers 5 writes layer_types, older releases the distance between global layers.
    kinds = raw.get("layer_types")
    if kinds is None:
        every = _size(raw, "global_attn_every_n_layers", 3)
        return tuple(index % every != 0 for index in range(layers))
    if not isinstance(kinds, list) or len(kinds) != layers:
        raise ConfigurationError(f"config.json has to name one of layer_types for each of {layers} layers")
    return tuple(kind == "sliding_attention" for kind in kinds)


def _rope_theta(raw: dict[str, Any], kind: str, older: str, default: float) -> float:
    rope = raw.get("rope_parameters")
    parameters = rope.get(kind) if isinstance(rope, dict) else None
    if not isinstance(parameters, dict):
        return _number(raw, older, default)
    _require(parameters, "rope_type", "default")
    return _number(parameters, "rope_theta", _number(raw, older, default))


def _require(raw: dict[str, Any], name: str, expected: Any) -> None:
    value = raw.get(name, expected)
    if value != expected:
        raise ConfigurationError(f"the onnx engine knows {name} {expected!r} alone, not {shown(value)}")


def _number(raw: dict[str, Any], name: str, default: float) -> float:
    value = raw.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < _MAX_SIZE:
        raise ConfigurationError(f"config.json has to name {name!r}, a number from 0 to {_MAX_SIZE}")
    return float(value)


def _size(raw: dict[str, Any], name: str, default: int | None = None, most: int = _MAX_SIZE) -> int:
    value = raw.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise ConfigurationError(f"config.json has to name {name!r}, a whole number from 1 to {most}")
    return value
