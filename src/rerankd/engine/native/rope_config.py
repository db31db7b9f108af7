"""RoPE's parameters in config.json: the base, and how angles are scaled for contexts longer than in training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from rerankd.engine.native.config_fields import Fields, Json
from rerankd.errors import ConfigurationError
from rerankd.printable import shown


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
class Llama3Scaling:
    """Llama 3.1's rule: frequencies are blended by their rotations over the original length, cosines are left alone.

    Attributes:
        factor: what slow frequencies are divided by.
        original_length: tokens that the model was trained on.
        low, high: rotations over the original length up to which a frequency is divided by ``factor``, and from
            which it is left alone.
    """

    factor: float
    original_length: int
    low: float
    high: float


RopeScaling: TypeAlias = YarnScaling | Llama3Scaling

_COMMON_KEYS: Final = frozenset({"rope_type", "type", "rope_theta", "partial_rotary_factor"})
_KEYS: Final[Mapping[str, frozenset[str]]] = {
    "default": _COMMON_KEYS,
    "yarn": _COMMON_KEYS
    | {"factor", "original_max_position_embeddings", "beta_fast", "beta_slow", "attention_factor", "mscale"}
    | {"mscale_all_dim", "truncate"},
    "llama3": _COMMON_KEYS
    | {"factor", "original_max_position_embeddings", "low_freq_factor", "high_freq_factor"},
}  # fmt: skip
"""What each ``rope_type`` may say; anything else is refused."""


def rope_of(raw: Json, path: Path, max_length: int) -> tuple[float, RopeScaling | None]:
    """The base of the angles, and their scaling.

    Args:
        raw: config.json.
        max_length: tokens that it says the model can read.

    Raises:
        ConfigurationError: a parameter is not understood, or none is there that has to be.
    """
    rope = _parameters(raw)
    fields = Fields(rope, path)
    theta = fields.positive("rope_theta", 10_000.0)
    if rope["rope_type"] == "default":
        return theta, None
    kind = rope["rope_type"]
    if "factor" not in rope:
        raise ConfigurationError(f"config.json asks for the rope_type {kind} and does not say 'factor'")
    if theta <= 1:
        raise ConfigurationError(f"config.json: the rope_type {kind} needs a rope_theta above 1")
    return theta, _yarn(fields, max_length) if kind == "yarn" else _llama3(fields)


def _parameters(raw: Json) -> dict[str, Any]:
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
    if not isinstance(kind, str) or kind not in _KEYS:
        raise ConfigurationError(f"the native engine knows the rope_type {', '.join(_KEYS)}, not {shown(kind)}")
    if rope.get("partial_rotary_factor", 1.0) != 1.0:
        raise ConfigurationError("the native engine rotates whole heads (partial_rotary_factor)")
    if unknown := set(rope) - _KEYS[kind]:
        raise ConfigurationError(f"the native engine does not know {shown(min(unknown))} of RoPE's parameters")
    return {**rope, "rope_type": kind}


def _yarn(fields: Fields, max_length: int) -> YarnScaling:
    factor = fields.positive("factor", 1.0)
    return YarnScaling(
        factor=factor,
        original_length=fields.size("original_max_position_embeddings", max_length),
        beta_fast=fields.positive("beta_fast", 32.0),
        beta_slow=fields.positive("beta_slow", 1.0),
        attention_factor=fields.positive("attention_factor", _attention_factor(fields, factor)),
        truncate=bool(fields.values.get("truncate", True)),
    )


def _attention_factor(fields: Fields, factor: float) -> float:
    """0.1 ln(factor) + 1, as the paper recommends, or the quotient of two such terms (DeepSeek's ``mscale``)."""

    def magnitude(scale: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * scale * math.log(factor) + 1.0

    if fields.values.get("mscale") and fields.values.get("mscale_all_dim"):
        return magnitude(fields.positive("mscale", 1.0)) / magnitude(fields.positive("mscale_all_dim", 1.0))
    return magnitude(1.0)


def _llama3(fields: Fields) -> Llama3Scaling:
    low, high = fields.positive("low_freq_factor", 1.0), fields.positive("high_freq_factor", 4.0)
    if low >= high:
        raise ConfigurationError(f"{fields.path}: 'low_freq_factor' has to be less than 'high_freq_factor'")
    return Llama3Scaling(
        factor=fields.positive("factor", 8.0),
        original_length=fields.size("original_max_position_embeddings", 8192),
        low=low,
        high=high,
    )
