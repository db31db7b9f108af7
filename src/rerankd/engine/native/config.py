"""config.json of a released checkpoint, checked: what is not understood is refused, never guessed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rerankd.engine.base import DType
from rerankd.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Family:
    """How the attention of one model family differs from its relatives."""

    qk_norm: bool
    qkv_bias: bool


_FAMILIES = {
    "Qwen3": Family(qk_norm=True, qkv_bias=False),
    "Qwen2": Family(qk_norm=False, qkv_bias=True),
}
_TASKS = {"ForCausalLM": False, "ForSequenceClassification": True}
ARCHITECTURES = {family + task: (family, task) for family in _FAMILIES for task in _TASKS}


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
    norm_eps: float
    rope_theta: float
    max_length: int
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
        raw = read_config(folder)
        architecture = _architecture(raw)
        family, task = ARCHITECTURES[architecture]
        _refuse_unsupported(raw)
        try:
            return cls(
                architecture=architecture,
                family=_FAMILIES[family],
                classifier=_TASKS[task],
                vocabulary=int(raw["vocab_size"]),
                hidden=int(raw["hidden_size"]),
                intermediate=int(raw["intermediate_size"]),
                layers=int(raw["num_hidden_layers"]),
                heads=int(raw["num_attention_heads"]),
                kv_heads=int(raw.get("num_key_value_heads") or raw["num_attention_heads"]),
                head_dim=int(raw.get("head_dim") or raw["hidden_size"] // raw["num_attention_heads"]),
                norm_eps=float(raw.get("rms_norm_eps", 1e-6)),
                rope_theta=_rope_theta(raw),
                max_length=int(raw.get("max_position_embeddings", 32768)),
                tied=bool(raw.get("tie_word_embeddings", False)),
                stored=_stored(raw),
            )
        except KeyError as error:
            raise ConfigurationError(f"{folder / 'config.json'} does not say {error.args[0]!r}") from None


def read_config(folder: Path) -> dict[str, Any]:
    """config.json as it stands.

    Raises:
        ConfigurationError: there is none, or it is not a JSON object.
    """
    path = folder / "config.json"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigurationError(f"there is no {path}: is this the folder of a checkpoint?") from None
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from None
    if not isinstance(raw, dict):
        raise ConfigurationError(f"{path} is not a JSON object")
    return raw


def _architecture(raw: dict[str, Any]) -> str:
    names = raw.get("architectures") or ["(none named)"]
    if names[0] not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise ConfigurationError(f"the native engine cannot run the architecture {names[0]}; it runs {known}")
    return str(names[0])


def _refuse_unsupported(raw: dict[str, Any]) -> None:
    if raw.get("quantization_config"):
        raise ConfigurationError("the native engine reads unquantised checkpoints; use --engine vllm for this one")
    if raw.get("hidden_act", "silu") != "silu":
        raise ConfigurationError(f"the native engine knows the activation silu, not {raw['hidden_act']}")
    if raw.get("use_sliding_window"):
        raise ConfigurationError("the native engine has no sliding-window attention (use_sliding_window)")
    if _rope(raw).get("rope_type", "default") != "default":
        raise ConfigurationError(f"the native engine has no scaled rotary positions ({_rope(raw)['rope_type']})")


def _stored(raw: dict[str, Any]) -> DType:
    # transformers 5 writes dtype, older releases torch_dtype.
    match raw.get("dtype") or raw.get("torch_dtype"):
        case "bfloat16":
            return "bfloat16"
        case "float16":
            return "float16"
    return "float32"


def _rope(raw: dict[str, Any]) -> dict[str, Any]:
    # transformers 5 writes rope_parameters; older releases rope_theta, and rope_scaling only for scaled kinds.
    scaling = raw.get("rope_scaling") or {}
    return {"rope_type": scaling.get("type", "default"), **scaling, **(raw.get("rope_parameters") or {})}


def _rope_theta(raw: dict[str, Any]) -> float:
    return float(_rope(raw).get("rope_theta") or raw.get("rope_theta") or 10_000.0)
