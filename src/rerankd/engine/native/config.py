"""config.json of a released checkpoint, checked: what is not understood is refused by name, never guessed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rerankd.checkpoint_files import CONFIG, read_config
from rerankd.engine.base import DType
from rerankd.errors import ConfigurationError

Json = Mapping[str, Any]

_MAX_SIZE: Final = 2**31 - 1
"""Largest size that config.json may name: ids and offsets are int32."""
_MAX_LAYERS: Final = 1024
_LONGEST_VALUE: Final = 60
"""Characters of a refused value that a message shows."""


@dataclass(frozen=True, slots=True)
class Family:
    """How the attention of one model family differs from its relatives."""

    qk_norm: bool
    """RMSNorm of each query and key head."""
    qkv_bias: bool
    """Biases of the query, key and value projections, whatever config.json says."""


_FAMILIES = {
    "Qwen3": Family(qk_norm=True, qkv_bias=False),
    "Qwen2": Family(qk_norm=False, qkv_bias=True),
}
_TASKS = {"ForCausalLM": False, "ForSequenceClassification": True}
ARCHITECTURES = {family + task: (family, task) for family in _FAMILIES for task in _TASKS}


@dataclass(frozen=True, slots=True)
class YarnScaling:
    """YaRN (https://arxiv.org/abs/2309.00071): RoPE stretched beyond the length that a model was trained on.

    Attributes:
        factor: how many times longer.
        original_length: tokens that the model was trained on.
        beta_fast, beta_slow: rotations over the original length from which a frequency is left alone, and up to
            which it is divided by ``factor``; between them the two are blended.
        attention_factor: what cosines and sines are multiplied by.
        truncate: the bounds of the blend are whole dimensions.
    """

    factor: float
    original_length: int
    beta_fast: float
    beta_slow: float
    attention_factor: float
    truncate: bool


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The numbers that a forward pass needs."""

    architecture: str
    family: Family
    classifier: bool
    """The checkpoint has its own ``score.weight`` in place of an output matrix."""
    vocabulary: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    qkv_bias: bool
    output_bias: bool
    """The attention's output projection has a bias."""
    norm_eps: float
    rope_theta: float
    yarn: YarnScaling | None
    max_length: int
    """Tokens of the longest pair that the model can read, YaRN included."""
    tied: bool
    """The output matrix is the embedding matrix."""
    stored: DType
    """The number format that the checkpoint says it is stored in."""

    @property
    def weights(self) -> int:
        """Numbers in the matrices of all layers."""
        attention = 2 * (self.heads + self.kv_heads) * self.head_dim * self.hidden
        return self.layers * (attention + 3 * self.hidden * self.intermediate)

    @classmethod
    def read(cls, folder: Path) -> ModelConfig:
        """The configuration of the checkpoint in ``folder``.

        Raises:
            ConfigurationError: no readable config.json, or a model that the native engine cannot run.
        """
        raw = _Fields(read_config(folder), folder / CONFIG)
        architecture = _architecture(raw.values)
        family_name, task = ARCHITECTURES[architecture]
        family = _FAMILIES[family_name]
        _refuse_unsupported(raw.values)
        hidden, heads = raw.size("hidden_size"), raw.size("num_attention_heads")
        has_bias = bool(raw.values.get("attention_bias")) and family_name == "Qwen3"
        length = raw.size("max_position_embeddings", 32_768)
        rope = _rope(raw.values)
        yarn = _yarn(rope, length)
        config = cls(
            architecture=architecture,
            family=family,
            classifier=_TASKS[task],
            vocabulary=raw.size("vocab_size"),
            hidden=hidden,
            intermediate=raw.size("intermediate_size"),
            layers=raw.size("num_hidden_layers", most=_MAX_LAYERS),
            heads=heads,
            kv_heads=raw.size("num_key_value_heads", heads),
            head_dim=raw.size("head_dim", max(1, hidden // heads)),
            qkv_bias=family.qkv_bias or has_bias,
            output_bias=has_bias,
            norm_eps=raw.positive("rms_norm_eps", 1e-6),
            rope_theta=_Fields(rope, raw.path).positive("rope_theta", 10_000.0),
            yarn=yarn,
            max_length=max(length, int(yarn.factor * yarn.original_length)) if yarn else length,
            tied=bool(raw.values.get("tie_word_embeddings", False)),
            stored=_stored(raw.values),
        )
        if config.heads % config.kv_heads or config.head_dim % 2:
            raise ConfigurationError(
                f"{raw.path}: {config.heads} attention heads of size {config.head_dim} with {config.kv_heads} "
                "key-value heads; the first has to be a multiple of the last, and the size even"
            )
        return config


@dataclass(frozen=True, slots=True)
class _Fields:
    """Checked numbers of a JSON object."""

    values: Json
    path: Path

    def size(self, name: str, default: int | None = None, most: int = _MAX_SIZE) -> int:
        """A whole number from 1 to ``most``."""
        value = self.values.get(name)
        if value is None:
            value = default
        if value is None:
            raise ConfigurationError(f"{self.path} does not say {name!r}")
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
            raise ConfigurationError(
                f"{self.path}: {name!r} has to be a whole number from 1 to {most}, not {_shown(value)}"
            )
        return value

    def positive(self, name: str, default: float) -> float:
        """A finite number above 0."""
        value = self.values.get(name)
        if value is None:
            value = default
        if isinstance(value, bool) or not isinstance(value, int | float) or not _is_positive(value):
            raise ConfigurationError(f"{self.path}: {name!r} has to be a number above 0, not {_shown(value)}")
        return float(value)


def _is_positive(value: int | float) -> bool:
    try:
        return 0 < float(value) < math.inf
    except OverflowError:
        return False


def _shown(value: object) -> str:
    # A whole number of a million digits is not written out: that takes quadratic time, and nobody reads it.
    if isinstance(value, int) and abs(value) >= 1 << 64:
        return "a number of more than 64 bits"
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"


def _architecture(raw: Json) -> str:
    names = raw.get("architectures")
    name = names[0] if isinstance(names, list) and names else None
    if not isinstance(name, str) or name not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        shown = "(none named)" if name is None else _shown(name).strip("'")
        raise ConfigurationError(f"the native engine cannot run the architecture {shown}; it runs {known}")
    return name


def _refuse_unsupported(raw: Json) -> None:
    if raw.get("quantization_config"):
        raise ConfigurationError("the native engine reads unquantised checkpoints; use --engine vllm for this one")
    if raw.get("hidden_act", "silu") != "silu":
        raise ConfigurationError(f"the native engine knows the activation silu, not {_shown(raw['hidden_act'])}")
    kinds = raw.get("layer_types") or ["full_attention"]
    if (
        raw.get("use_sliding_window")
        or not isinstance(kinds, list)
        or any(kind != "full_attention" for kind in kinds)
    ):
        raise ConfigurationError(
            "the native engine has no sliding-window attention (use_sliding_window, layer_types)"
        )
    if raw.get("mlp_bias"):
        raise ConfigurationError("the native engine has no biases in the MLP (mlp_bias)")


def _stored(raw: Json) -> DType:
    # transformers 5 writes dtype, older releases torch_dtype.
    match raw.get("dtype") or raw.get("torch_dtype"):
        case "bfloat16":
            return "bfloat16"
        case "float16":
            return "float16"
    return "float32"


_ROPE_KEYS: Final = {"rope_type", "type", "rope_theta", "partial_rotary_factor"}
_YARN_KEYS: Final = {
    "factor", "original_max_position_embeddings", "beta_fast", "beta_slow", "attention_factor", "mscale",
    "mscale_all_dim", "truncate",
}  # fmt: skip


def _rope(raw: Json) -> dict[str, Any]:
    """RoPE's parameters, as transformers merges them: ``rope_scaling`` (older releases, and the model cards) replaces
    ``rope_parameters`` (transformers 5), and what they leave out stands beside them."""
    scaling, parameters = (raw.get(name) or {} for name in ("rope_scaling", "rope_parameters"))
    if not isinstance(scaling, dict) or not isinstance(parameters, dict):
        raise ConfigurationError("rope_scaling and rope_parameters of config.json have to be objects")
    rope = {name: value for name, value in (scaling or parameters).items() if value is not None}
    outer = {name: raw[name] for name in ("rope_theta", "partial_rotary_factor") if raw.get(name) is not None}
    if scaling and "rope_theta" not in {*rope, *outer} and parameters.get("rope_theta") not in (None, 10_000.0):
        raise ConfigurationError(
            "config.json has rope_theta in rope_parameters and a rope_scaling that replaces them; "
            "put rope_theta into rope_scaling too, or the scaling into rope_parameters"
        )
    rope = {**outer, **rope}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ("default", "yarn"):
        raise ConfigurationError(f"the native engine knows the rope_type default and yarn, not {_shown(kind)}")
    if rope.get("partial_rotary_factor", 1.0) != 1.0:
        raise ConfigurationError("the native engine rotates whole heads (partial_rotary_factor)")
    if unknown := set(rope) - _ROPE_KEYS - (_YARN_KEYS if kind == "yarn" else set()):
        raise ConfigurationError(f"the native engine does not know {_shown(min(unknown))} of RoPE's parameters")
    return {**rope, "rope_type": kind}


def _yarn(rope: dict[str, Any], max_length: int) -> YarnScaling | None:
    if rope["rope_type"] != "yarn":
        return None
    fields = _Fields(rope, Path("config.json (YaRN)"))
    if "factor" not in rope:
        raise ConfigurationError("config.json asks for YaRN and does not say 'factor'")
    if fields.positive("rope_theta", 10_000.0) <= 1:
        raise ConfigurationError("config.json: YaRN needs a rope_theta above 1")
    factor = fields.positive("factor", 1.0)
    return YarnScaling(
        factor=factor,
        original_length=fields.size("original_max_position_embeddings", max_length),
        beta_fast=fields.positive("beta_fast", 32.0),
        beta_slow=fields.positive("beta_slow", 1.0),
        attention_factor=fields.positive("attention_factor", _attention_factor(fields, factor)),
        truncate=bool(rope.get("truncate", True)),
    )


def _attention_factor(fields: _Fields, factor: float) -> float:
    """0.1 ln(factor) + 1, as the paper recommends, or the quotient of two such terms (DeepSeek's ``mscale``)."""

    def magnitude(scale: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * scale * math.log(factor) + 1.0

    if fields.values.get("mscale") and fields.values.get("mscale_all_dim"):
        return magnitude(fields.positive("mscale", 1.0)) / magnitude(fields.positive("mscale_all_dim", 1.0))
    return magnitude(1.0)
